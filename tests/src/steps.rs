//! Committed steps as the workers themselves wrote them down, and what can be read from them. Nothing here asks the
//! coordinator, so it holds while that is dead.
//!
//! A worker appends `<unix nanoseconds> <step> <generation>` to its file at the moment when a step's optimizer has run.

use crate::stats;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A step that one worker committed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Commit {
    /// When, in nanoseconds since 1970.
    pub at: u64,
    /// Which.
    pub step: u64,
    /// In which generation.
    pub generation: u64,
    /// The worker's name.
    pub worker: String,
}

/// This moment, in nanoseconds since 1970: the clock of the step logs.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock stands after 1970");
    u64::try_from(since.as_nanos()).expect("until the year 2554")
}

/// The step logs in a folder, read as they grow. A file is one life of one worker: `<life>-<name>.log`.
#[derive(Debug)]
pub struct StepLogs {
    folder: PathBuf,
    /// How far each file has been read.
    read: BTreeMap<PathBuf, u64>,
    commits: Vec<Commit>,
}

impl StepLogs {
    /// Of the files in `folder`, which need not be there yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), read: BTreeMap::new(), commits: Vec::new() }
    }

    /// Reads what was written since.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is not a step.
    pub fn refresh(&mut self) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Ok(()) };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", self.folder.display()))?.path();
            self.read_on(&path).with_context(|| format!("step log {}", path.display()))?;
        }
        self.commits.sort();
        Ok(())
    }

    fn read_on(&mut self, path: &Path) -> Result<()> {
        let name = path.file_stem().and_then(|stem| stem.to_str()).context("its name is not UTF-8")?;
        let worker = name.split_once('-').context("its name is not <life>-<worker>.log")?.1;
        let read = self.read.entry(path.to_path_buf()).or_default();
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(*read))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A line that is being written, or that a kill cut off, has no end.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        *read += whole as u64;
        for line in text[..whole].lines() {
            self.commits.push(
                parse(line, worker).with_context(|| format!("`{line}` is not `<nanoseconds> <step> <generation>`"))?,
            );
        }
        Ok(())
    }

    /// All that was read, in the order of time.
    pub fn commits(&self) -> &[Commit] {
        &self.commits
    }
}

fn parse(line: &str, worker: &str) -> Option<Commit> {
    let numbers: Vec<u64> = line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let &[at, step, generation] = numbers.as_slice() else { return None };
    Some(Commit { at, step, generation, worker: worker.into() })
}

/// The newest generation that has committed a step, and how many steps each of its workers has committed in it.
pub fn newest(commits: &[Commit]) -> (u64, BTreeMap<String, usize>) {
    let generation = commits.iter().map(|c| c.generation).max().unwrap_or(0);
    let mut members = BTreeMap::new();
    for commit in commits.iter().filter(|c| c.generation == generation) {
        *members.entry(commit.worker.clone()).or_default() += 1;
    }
    (generation, members)
}

/// The first commit of any generation after `generation`.
pub fn first_after(commits: &[Commit], generation: u64) -> Option<&Commit> {
    commits.iter().filter(|c| c.generation > generation).min()
}

/// The first commit of each step in each generation: a step counts from the moment when the first of its workers has
/// committed it.
pub fn firsts(commits: &[Commit]) -> Vec<&Commit> {
    let mut seen = BTreeSet::new();
    commits.iter().filter(|c| seen.insert((c.generation, c.step))).collect()
}

/// Median seconds from step to step within a generation; `None` before the second step.
pub fn step_median_s(commits: &[Commit]) -> Option<f64> {
    let firsts = firsts(commits);
    let healthy = firsts.windows(2).filter(|w| w[0].generation == w[1].generation && w[1].step == w[0].step + 1);
    stats::median(&healthy.map(|w| seconds(w[0].at, w[1].at)).collect::<Vec<_>>())
}

/// The longest time without a commit that touches `from..to`, seconds. Before the first commit and after the last there
/// is no pause.
pub fn longest_pause_s(commits: &[Commit], from: u64, to: u64) -> f64 {
    let firsts = firsts(commits);
    let gaps = firsts.windows(2).filter(|w| w[1].at > from && w[0].at < to);
    gaps.map(|w| seconds(w[0].at, w[1].at)).fold(0.0, f64::max)
}

/// Steps committed in `from..to`, each counted once.
pub fn committed(commits: &[Commit], from: u64, to: u64) -> usize {
    let within = commits.iter().filter(|c| (from..to).contains(&c.at));
    within.map(|c| c.step).collect::<BTreeSet<_>>().len()
}

/// Steps that were committed after `generation` although they had been committed by it or before it.
pub fn redone_after(commits: &[Commit], generation: u64) -> usize {
    let of = |later: bool| commits.iter().filter(move |c| (c.generation > generation) == later).map(|c| c.step);
    of(true).collect::<BTreeSet<_>>().intersection(&of(false).collect()).count()
}

/// Steps that were committed in more than one generation.
pub fn redone(commits: &[Commit]) -> usize {
    let mut generations: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for commit in commits {
        generations.entry(commit.step).or_default().insert(commit.generation);
    }
    generations.values().filter(|of| of.len() > 1).count()
}

/// Seconds from one moment to a later one.
pub fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}

#[cfg(test)]
mod tests;
