//! The feed alone, from local disk and from an S3 server that is far away: the same run file and the same rows, in turns.

use super::FarProxy;
use crate::s3::S3;
use crate::stats::median;
use crate::{pixfleet, root, succeed, url};
use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Of the feed's rate from disk, from far away.
const RATE_MIN: f64 = 0.9;
/// Bytes fetched for each byte used.
const FETCHED_MAX: f64 = 1.02;

/// What was typed.
#[derive(Debug, clap::Parser)]
#[command(name = "bench-feed", version, about = "How fast rows are fed from a far store, against local disk.")]
pub struct FarFeedArgs {
    /// The run file.
    #[arg(long, default_value = "examples/demo.toml")]
    run: PathBuf,
    /// Folder of the dataset; one of --scenes is composed there, captions embedded, unless it is there.
    #[arg(long, default_value = "target/bench-feed/data")]
    data: PathBuf,
    /// Scenes of the dataset, as many as the demo's.
    #[arg(long, default_value_t = 1200)]
    scenes: u32,
    /// What each answer of the far store takes longer, in milliseconds.
    #[arg(long, default_value_t = 40)]
    delay_ms: u64,
    /// Measurements of each store, in turns; medians count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Steps: as many as the demo's.
    #[arg(long, default_value_t = 150)]
    steps: u64,
    /// MiB of rows that stay in memory once they were used; few, so that every epoch comes from the store.
    #[arg(long, default_value_t = 8)]
    cache_mib: usize,
    /// Workers that share the global batch; the first one's feed is measured.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Threads that decode; 0: half the cores.
    #[arg(long, default_value_t = 0)]
    decode_threads: u32,
    /// Overrides of the run file, section.key=value.
    #[arg(long)]
    set: Vec<String>,
}

/// What `pixfleet bench --only feed --json` says, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Fed {
    /// Samples of the measured worker.
    pub samples: u64,
    /// Its rate.
    pub samples_per_s: f64,
    /// From the start of the feed to its first batch.
    pub first_step_s: f64,
    /// Bytes that came from the store, for each byte that the rows account for there.
    pub fetched_per_used: f64,
    /// Ranged GETs.
    pub requests: u64,
    /// From sending to last byte, on average.
    pub mean_latency_ms: f64,
    /// Requests under way on average.
    pub mean_under_way: f64,
    /// The most that were.
    pub most_under_way: u64,
    /// The most bytes of rows that lay read and not decoded, in MiB.
    pub ahead_mib: f64,
    /// Part of the time in which decoding waited for rows.
    pub decode_waited: f64,
}

/// Runs `pixfleet bench --only feed` on a run file with `more` arguments.
///
/// # Errors
/// An answer that is not what was expected. A command that fails ends the process.
pub fn fed(run: &Path, data: &str, more: &[String], env: &[(&str, String)]) -> Result<Fed> {
    let mut command = pixfleet(["bench", "--only", "feed", "--json", "--set", &format!("data.url={data}")]);
    command.args(more).arg(run).envs(env.iter().map(|(key, value)| (key, value)));
    serde_json::from_slice(&succeed(command).stdout).context("what `pixfleet bench` prints")
}

/// Puts the files of the dataset in `folder` into the server's bucket and indexes them there: their versions are the
/// server's. Its URL.
///
/// # Errors
/// Files that cannot be read or put.
pub fn upload(runtime: &Runtime, s3: &S3, folder: &Path) -> Result<String> {
    runtime.block_on(s3.put_folder(folder, "mini"))?;
    let mut index = pixfleet(["shards", "index", "s3://pixdata/mini"]);
    index.envs(s3.env());
    succeed(index);
    Ok("s3://pixdata/mini".into())
}

/// Measures, prints, and says whether what must hold does.
///
/// # Errors
/// What keeps it from being measured.
pub fn main(args: &FarFeedArgs) -> Result<ExitCode> {
    ensure!(args.rounds > 0, "--rounds 0: there is nothing to measure; expected at least 1");
    let data = root().join(&args.data);
    compose(&data, args.scenes)?;
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let scratch = root().join("target/bench-feed");
    let s3 = S3::start_in(&scratch.join("weed"));
    let there = upload(&runtime, &s3, &data)?;
    let proxy = FarProxy::open(runtime.handle(), s3.address(), Duration::from_millis(args.delay_ms))?;

    let run = root().join(&args.run);
    let mut more = vec![format!("--workers={}", args.workers), format!("--decode-threads={}", args.decode_threads)];
    more.extend([format!("--steps={}", args.steps), format!("--cache-mib={}", args.cache_mib)]);
    more.extend(["data.vectors=minilm-plain-256"].into_iter().map(|set| format!("--set={set}")));
    more.extend(args.set.iter().map(|set| format!("--set={set}")));
    let far = S3::env_at(proxy.address());
    let (mut near_fed, mut far_fed, mut server_fed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        near_fed.push(fed(&run, &url(&data), &more, &[])?);
        far_fed.push(fed(&run, &there, &more, &far)?);
        server_fed.push(fed(&run, &there, &more, &s3.env())?);
    }
    let requests: u64 = far_fed.iter().map(|fed| fed.requests).sum();
    let (delayed, shortest) = (proxy.delayed(), proxy.shortest());
    let delay = format!("{} ms", args.delay_ms);
    say(&table(&[("disk", &near_fed), ("S3", &server_fed), (&format!("S3 + {delay}"), &far_fed)]));
    let latency = of(&far_fed, |fed| fed.mean_latency_ms);
    ensure!(
        delayed >= requests && shortest >= Duration::from_millis(args.delay_ms) && latency >= args.delay_ms as f64,
        "the proxy did not delay: {delayed} pieces of {requests} answers, the shortest by {shortest:?}, {latency:.1} ms \
         a request"
    );
    let rate = of(&far_fed, |fed| fed.samples_per_s) / of(&near_fed, |fed| fed.samples_per_s);
    let fetched = far_fed.iter().chain(&near_fed).map(|fed| fed.fetched_per_used).fold(0.0, f64::max);
    let held = |held: bool| if held { "held" } else { "MISSED" };
    say(&format!(
        "the proxy delayed {delayed} pieces of {requests} answers, each by {shortest:.1?} or more\n\
         rate from far away over rate from disk: {rate:.3}, at least {RATE_MIN}: {}\n\
         bytes fetched per byte used: {fetched:.4}, at most {FETCHED_MAX}: {}",
        held(rate >= RATE_MIN),
        held(fetched <= FETCHED_MAX),
    ));
    Ok(if rate >= RATE_MIN && fetched <= FETCHED_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The dataset of a demo with so many scenes, unless it is there; only the split that is trained on has its captions
/// embedded.
fn compose(data: &Path, scenes: u32) -> Result<()> {
    let done = data.with_extension("complete");
    if std::fs::read_to_string(&done).is_ok_and(|found| found == scenes.to_string()) {
        return Ok(());
    }
    let (to, cache) = (url(data), root().join(".cache"));
    let mut build = pixfleet(["shards", "build", "mini", "--scenes", &scenes.to_string(), "--out", &to, "--drawings"]);
    build.arg(cache.join("drawings"));
    let index = pixfleet(["shards", "index", &to]);
    let mut embed = pixfleet(["shards", "embed", &to, "--split", "train", "--encoder", "minilm", "--weights"]);
    embed.arg(cache.join("minilm"));
    for command in [build, index, embed] {
        succeed(command);
    }
    std::fs::write(&done, scenes.to_string()).with_context(|| format!("cannot write {}", done.display()))
}

fn of(fed: &[Fed], figure: impl Fn(&Fed) -> f64) -> f64 {
    median(&fed.iter().map(figure).collect::<Vec<_>>()).unwrap_or(f64::NAN)
}

/// Medians, and of the rate its lowest and highest.
fn table(stores: &[(&str, &[Fed])]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "from",
        "samples",
        "samples/s",
        "lowest, highest",
        "first step s",
        "requests",
        "ms each",
        "under way",
        "most",
        "ahead MiB",
        "waited",
        "fetched/used",
    ]);
    for (name, fed) in stores {
        let rates = fed.iter().map(|fed| fed.samples_per_s);
        let (lowest, highest) = rates.fold((f64::MAX, 0.0f64), |(low, high), rate| (low.min(rate), high.max(rate)));
        table.add_row([
            (*name).to_owned(),
            format!("{:.0}", of(fed, |fed| fed.samples as f64)),
            format!("{:.1}", of(fed, |fed| fed.samples_per_s)),
            format!("{lowest:.1}, {highest:.1}"),
            format!("{:.3}", of(fed, |fed| fed.first_step_s)),
            format!("{:.0}", of(fed, |fed| fed.requests as f64)),
            format!("{:.1}", of(fed, |fed| fed.mean_latency_ms)),
            format!("{:.1}", of(fed, |fed| fed.mean_under_way)),
            format!("{:.0}", of(fed, |fed| fed.most_under_way as f64)),
            format!("{:.1}", of(fed, |fed| fed.ahead_mib)),
            format!("{:.1} %", 100.0 * of(fed, |fed| fed.decode_waited)),
            format!("{:.4}", of(fed, |fed| fed.fetched_per_used)),
        ]);
    }
    table.to_string()
}

#[allow(clippy::print_stdout, reason = "the command's result")]
fn say(text: &str) {
    println!("{text}");
}
