//! Several processes of `pixfleet annotate` share one dataset while one after the other is killed with kill -9, and the proof
//! that nothing came of it: the rows are those of processes that nobody disturbed, and the server itself counted each question
//! once, but for those that a killed process had under way. `make annotate-soak`.

mod calls;
mod work;

use crate::sharing::{Harm, Sharing};
use crate::standin::{StandIn, StandInConfig, read, recipe, strip};
use crate::{pixfleet, root, succeed, url};
use anyhow::{Context, Result, ensure};
use calls::count;
use pixfleet_shards::ImageRow;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use work::Annotating;

/// Requests under way at one of the three servers, at most, of one process.
const IN_FLIGHT: usize = 4;
const SERVERS: usize = 3;
/// Work for this much longer than kills go on: how stages overlap makes the estimate no better than that.
const SPARE: f64 = 1.6;
/// Of the kills that fit into the time, those that there must be: a victim is waited for until it holds a file.
const KILLS_MIN: f64 = 0.75;
/// It makes no trouble, so every request has its answer.
const CALM: StandInConfig = StandInConfig { seed: 3, wrong: 0.2, trouble: 0.0, outside: 0.0 };

/// Hurts processes that annotate together and proves that it came out as if nothing had happened.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "annotate-soak",
    after_help = "Examples:\n  make annotate-soak MINUTES=5\n  target/debug/annotate-soak --minutes 1 --rows 100 --every 5"
)]
pub struct AnnotateSoakArgs {
    /// For how long processes are killed; the server is as slow as that takes.
    #[arg(long, default_value_t = 5.0)]
    pub minutes: f64,
    /// Pictures, each with a few regions of five questions.
    #[arg(long, default_value_t = 400)]
    pub rows: usize,
    /// Processes at a time; one that was killed is replaced at once.
    #[arg(long, default_value_t = 4)]
    pub processes: usize,
    /// Seconds between two kills.
    #[arg(long, default_value_t = 20.0)]
    pub every: f64,
    /// Seconds after which a process that is not heard of loses its file.
    #[arg(long, default_value_t = 10)]
    pub lease: u64,
    /// Seed of pictures and victims.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for datasets and logs; emptied first.
    #[arg(long, default_value = "target/annotate-soak")]
    pub out: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct AnnotateReport {
    /// Processes that were killed, each alive and with a file in hand.
    pub kills: usize,
    /// Rows that were compared, and their files.
    pub rows: usize,
    /// Files, each of which is a unit of work.
    pub files: usize,
    /// Different questions.
    pub questions: usize,
    /// Requests that the server got.
    pub calls: usize,
    /// Of these, asked again since a killed process had the question under way.
    pub again: usize,
    /// How many there may be at most: what the killed processes could have under way.
    pub again_max: usize,
    /// Of these, asked while another process had the same question under way.
    pub met: usize,
    /// How long an answer took.
    pub latency: Duration,
    /// For how long processes were killed.
    pub storm: Duration,
}

impl fmt::Display for AnnotateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills in {:.0} s, each of a living process that held a file; {} rows of {} files equal to those of an undisturbed \
             run; {} questions and {} requests of {:.2} s: {} asked again that a killed process had under way (at most {}), {} \
             asked by two processes at the same time, none whose answer was kept",
            self.kills,
            self.storm.as_secs_f64(),
            self.rows,
            self.files,
            self.questions,
            self.calls,
            self.latency.as_secs_f64(),
            self.again,
            self.again_max,
            self.met
        )
    }
}

/// Runs it.
///
/// # Errors
/// What was not as it must be, or kept it from being seen.
pub fn soak(args: &AnnotateSoakArgs) -> Result<AnnotateReport> {
    let out = root().join(&args.out);
    if out.exists() {
        std::fs::remove_dir_all(&out).context("emptying the folder of an earlier soak")?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let bare = runtime.block_on(bare(args, &out))?;
    let standin = runtime.block_on(StandIn::start(&url(&out.join("scenes")), "train", CALM))?;
    let settings = format!("most_in_flight = {IN_FLIGHT}");
    let recipe = recipe(&out.join("recipe"), &settings)?;
    let work = |name| Annotating { args, standin: &standin, recipe: &recipe, bare: &bare, out: out.join(name), name };

    let calm = work("calm");
    Sharing::start(&calm, args.processes, &out.join("calm-logs"))?.wait()?;
    let asked = calm.calls();
    let questions: BTreeSet<&str> = asked.iter().map(|call| call.question.as_str()).collect();
    let at_once = (args.processes * IN_FLIGHT) as f64;
    let latency = Duration::from_secs_f64(SPARE * 60.0 * args.minutes * at_once / questions.len() as f64);

    let storm = work("storm");
    standin.set_latency(latency);
    let since = Instant::now();
    let mut sharing = Sharing::start(&storm, args.processes, &out.join("storm-logs"))?;
    let lasts = Duration::from_secs_f64(60.0 * args.minutes);
    let harm = Harm { every: Duration::from_secs_f64(args.every), lasts: Some(lasts), seed: args.seed };
    let killed = sharing.rage(harm)?;
    let raged = since.elapsed();
    standin.set_latency(Duration::ZERO);
    sharing.wait()?;
    let wanted = (KILLS_MIN * lasts.as_secs_f64() / args.every) as usize;
    ensure!(killed.len() >= wanted.max(1), "{} kills in {raged:.0?} and not {wanted}: --rows more", killed.len());

    let calls = storm.calls();
    let counted = count(&calls, &killed, |who| storm.number(who))?;
    let stormy: BTreeSet<&str> = calls.iter().map(|call| call.question.as_str()).collect();
    ensure!(stormy == questions, "{} questions, {} in the undisturbed run", stormy.len(), questions.len());
    let again_max = killed.len() * IN_FLIGHT * SERVERS;
    ensure!(counted.again <= again_max, "{} asked again, {again_max} were under way at most", counted.again);
    let files = storm.files_done()?;
    let rows = runtime.block_on(equal(&calm.out, &storm.out, args.rows))?;
    Ok(AnnotateReport {
        kills: killed.len(),
        rows,
        files,
        questions: counted.questions,
        calls: calls.len(),
        again: counted.again,
        again_max,
        met: counted.met,
        latency,
        storm: raged,
    })
}

/// Composes scenes and takes from them what a model could have written.
async fn bare(args: &AnnotateSoakArgs, out: &Path) -> Result<String> {
    let (scenes, bare) = (url(&out.join("scenes")), url(&out.join("bare")));
    let (rows, seed) = (args.rows.to_string(), args.seed.to_string());
    let mut build = pixfleet(["shards", "build", "mini", "--scenes", &rows, "--seed", &seed, "--out", &scenes]);
    build.args(["--test-scenes", "4", "--heldout-scenes", "4", "--drawings"]).arg(root().join(".cache/drawings"));
    let index = pixfleet(["shards", "index", &scenes]);
    tokio::task::spawn_blocking(move || {
        succeed(build);
        succeed(index);
    })
    .await?;
    strip(&scenes, "train", &bare, args.rows, true).await?;
    Ok(bare)
}

/// That both hold the same rows, but for when they were asked about; how many.
async fn equal(calm: &Path, storm: &Path, wanted: usize) -> Result<usize> {
    let (calm, storm) = (read(&url(calm), "train").await?, read(&url(storm), "train").await?);
    ensure!(calm.len() == wanted && storm.len() == wanted, "{} and {} rows of {wanted}", calm.len(), storm.len());
    for (at, (calm, storm)) in calm.into_iter().zip(storm).enumerate() {
        let (calm, storm) = (ImageRow { provenance: None, ..calm }, ImageRow { provenance: None, ..storm });
        ensure!(calm == storm, "row {at} ({}) differs from that of the undisturbed run", calm.image_id);
    }
    Ok(wanted)
}
