//! Several processes of `pixfleet shards embed` share one dataset while one after the other is killed with kill -9, and
//! the proof that nothing came of it: the vectors are, byte for byte, those of processes that nobody disturbed, and each
//! text was given to an encoder once, but for those that a killed process had in hand. `make embed-soak`.

mod data;
mod texts;

use crate::sharing::{Harm, SharedWork, Sharing};
use crate::{pixfleet, root, url};
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Hurts processes that embed together and proves that it came out as if nothing had happened.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "embed-soak",
    after_help = "Examples:\n  make embed-soak\n  target/debug/embed-soak --files 20 --every 5 --kills 3"
)]
pub struct EmbedSoakArgs {
    /// Data files; each is a unit of work.
    #[arg(long, default_value_t = 100)]
    pub files: u32,
    /// Rows of a file: each has a long text of its own and a short one that other files have as well.
    #[arg(long, default_value_t = 100)]
    pub rows: u32,
    /// Processes at a time; one that was killed is replaced at once.
    #[arg(long, default_value_t = 4)]
    pub processes: usize,
    /// Seconds between two kills.
    #[arg(long, default_value_t = 20.0)]
    pub every: f64,
    /// Kills that there must be before the work is done; if there are fewer, it takes more files.
    #[arg(long, default_value_t = 15)]
    pub kills: usize,
    /// Seconds after which a process that is not heard of loses its file.
    #[arg(long, default_value_t = 10)]
    pub lease: u64,
    /// Seed of texts and victims.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for datasets and logs; emptied first.
    #[arg(long, default_value = "target/embed-soak")]
    pub out: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct SoakReport {
    /// Processes that were killed, each with texts in hand.
    pub kills: usize,
    /// Distinct texts of the dataset.
    pub texts: usize,
    /// Texts that were encoded again because a process was killed that had them in hand.
    pub again: usize,
    /// Without kills.
    pub calm: Duration,
    /// With kills.
    pub storm: Duration,
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills in {:.0} s, each with texts in hand; vectors equal to those of an undisturbed run ({:.0} s) byte for \
             byte; {} texts, each encoded once, but for {} ({:.1} %) that killed processes had in hand",
            self.kills,
            self.storm.as_secs_f64(),
            self.calm.as_secs_f64(),
            self.texts,
            self.again,
            100.0 * self.again as f64 / self.texts as f64
        )
    }
}

/// Runs it.
///
/// # Errors
/// What was not as it must be, or kept it from being seen.
pub fn soak(args: &EmbedSoakArgs) -> Result<SoakReport> {
    let out = root().join(&args.out);
    if out.exists() {
        std::fs::remove_dir_all(&out).context("emptying the folder of an earlier soak")?;
    }
    let (calm, storm) = (out.join("calm"), out.join("storm"));
    let distinct = data::write(args, &url(&calm))?;
    data::write(args, &url(&storm))?;

    let since = Instant::now();
    let work = Embedding { args, dataset: calm.clone(), logs: out.join("calm-logs") };
    Sharing::start(&work, args.processes, &work.logs)?.wait()?;
    let calm_took = since.elapsed();
    let since = Instant::now();
    let work = Embedding { args, dataset: storm.clone(), logs: out.join("storm-logs") };
    let mut sharing = Sharing::start(&work, args.processes, &work.logs)?;
    let harm = Harm { every: Duration::from_secs_f64(args.every), lasts: None, seed: args.seed };
    let killed: Vec<u32> = sharing.rage(harm)?.iter().map(|killed| killed.pid).collect();
    sharing.wait()?;
    let storm_took = since.elapsed();
    ensure!(killed.len() >= args.kills, "only {} kills before the work was done: --files more", killed.len());

    let again = texts::check(&work.logs, &killed, &distinct)?;
    equal(args, &calm, &storm)?;
    Ok(SoakReport { kills: killed.len(), texts: distinct.len(), again, calm: calm_took, storm: storm_took })
}

/// One dataset that is embedded.
struct Embedding<'a> {
    args: &'a EmbedSoakArgs,
    dataset: PathBuf,
    logs: PathBuf,
}

impl SharedWork for Embedding<'_> {
    fn command(&self, _: usize) -> Command {
        let mut command = pixfleet(["shards", "embed"]);
        command.arg(url(&self.dataset)).args(["--weights", ".cache/minilm", "--lease", &self.args.lease.to_string()]);
        // One thread each: the same sums in the same order however many processes share the cores.
        command.env("OMP_NUM_THREADS", "1").env("PIXFLEET_TEXT_LOG", self.logs.join("texts"));
        command
    }

    fn in_hand(&self, pid: u32) -> Result<bool> {
        texts::has_in_hand(&self.logs, pid)
    }
}

/// The vectors of every data file, byte for byte.
fn equal(args: &EmbedSoakArgs, calm: &Path, storm: &Path) -> Result<()> {
    for file in 0..args.files {
        let path = format!("vectors/minilm-plain-256/{}", data::path(file));
        let read = |folder: &Path| std::fs::read(folder.join(&path)).with_context(|| path.clone());
        ensure!(read(calm)? == read(storm)?, "{path} differs from that of the undisturbed run");
    }
    Ok(())
}
