//! A split in parts, each looked at by a process of its own (`--workers`). A part is a run of whole row groups, so that every
//! batch is the one that a single process would have made, and what the parts saw, put together, is what it would have seen.

use super::pictures::Seen;
use super::questions::Questions;
use crate::eval::feed;
use anyhow::{Context, Result, bail, ensure};
use pixfleet_proto::PARENT;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;
use tch::{Kind, Tensor};

/// How often it is looked whether processes have ended.
const LOOK: Duration = Duration::from_millis(50);
/// Of a log, what an error quotes.
const QUOTED_LINES: usize = 8;
/// The one tensor of a part's file.
const FEATURES: &str = "features";

/// One of several parts of a split: `1/4` is the second of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    number: u64,
    of: u64,
}

impl FromStr for Part {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let parsed = typed.split_once('/').and_then(|(n, of)| Some((n.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if number < of => Ok(Self { number, of }),
            Some(_) | None => Err("expected the number of a part and how many there are, such as 0/4".into()),
        }
    }
}

impl Part {
    /// All of it.
    pub(crate) const WHOLE: Self = Self { number: 0, of: 1 };

    /// Its row groups among those with so many `rows`, of which the `first` count: contiguous, and as even in rows as whole
    /// row groups allow.
    pub(crate) fn groups(self, rows: &[u32], first: u64) -> Range<usize> {
        let mut all = 0;
        let mut starts = Vec::with_capacity(rows.len());
        for &size in rows {
            starts.push(all);
            all += u64::from(size);
        }
        let total = all.min(first);
        // Where a share ends within a row group, the group is of the part in whose share it begins.
        let at = |number: u64| starts.partition_point(|&start| start * self.of < total * number);
        at(self.number)..at(self.number + 1)
    }
}

/// What lies beside the features of a part.
#[derive(Serialize, Deserialize)]
struct Beside {
    questions: Questions,
    bad: u64,
    /// Steps of the checkpoint that looked.
    steps: u64,
}

/// A folder of parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    /// Where.
    pub(crate) folder: &'a Path,
    /// Steps of the checkpoint.
    pub(crate) steps: u64,
}

impl Parts<'_> {
    fn file(&self, benchmark: &str, part: Part, kind: &str) -> PathBuf {
        self.folder.join(format!("{benchmark}-{}.{kind}", part.number))
    }

    /// Writes what a part saw.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(crate) fn keep(&self, benchmark: &str, part: Part, seen: Seen) -> Result<()> {
        let file = self.file(benchmark, part, "safetensors");
        let failed = || format!("cannot write {}", file.display());
        Tensor::write_safetensors(&[(FEATURES, seen.features)], &file).with_context(failed)?;
        let beside = Beside { questions: seen.questions, bad: seen.bad, steps: self.steps };
        let json = serde_json::to_vec(&beside).context("questions are strings and numbers")?;
        std::fs::write(self.file(benchmark, part, "json"), json).with_context(failed)
    }

    /// What all `workers` parts saw, together.
    ///
    /// # Errors
    /// A part that is not there, or that another checkpoint looked at.
    pub(crate) fn join(&self, benchmark: &str, workers: u64) -> Result<Seen> {
        let (mut questions, mut features, mut bad) = (Questions::default(), Vec::new(), 0);
        for number in 0..workers {
            let part = Part { number, of: workers };
            let file = self.file(benchmark, part, "safetensors");
            let failed = || format!("cannot read {}", file.display());
            let json = std::fs::read(self.file(benchmark, part, "json")).with_context(failed)?;
            let beside: Beside = serde_json::from_slice(&json).with_context(failed)?;
            ensure!(
                beside.steps == self.steps,
                "the run committed a checkpoint after {} steps while that after {} steps was evaluated; evaluate again",
                beside.steps,
                self.steps
            );
            questions.append(beside.questions);
            bad += beside.bad;
            let read = Tensor::read_safetensors(&file).with_context(failed)?;
            features.extend(read.into_iter().map(|(_, tensor)| tensor.to_kind(Kind::Float)));
        }
        Ok(Seen { questions, features: Tensor::f_cat(&features, 0)?, bad })
    }
}

/// Processes that look at the parts; those that are left are killed when this goes.
struct Lookers(Vec<(u64, Child)>);

impl Drop for Lookers {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts this program `workers` times over, each for its part, and waits until all have written theirs to `folder`. `step`: of
/// the run's checkpoints that one.
///
/// # Errors
/// The last words of the first that fails.
pub(crate) fn look_apart(workers: u64, folder: &Path, step: Option<u64>) -> Result<()> {
    let program = std::env::current_exe().context("a program has a path")?;
    let typed: Vec<OsString> = std::env::args_os().skip(1).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / usize::try_from(workers)?).max(1).to_string();
    let mut lookers = Lookers(Vec::new());
    for number in 0..workers {
        let log = std::fs::File::create(log_of(folder, number)).context("cannot write to a temporary folder")?;
        let mut command = Command::new(&program);
        command.args(&typed).args(["--part", &format!("{number}/{workers}"), "--parts"]).arg(folder);
        command.args(step.into_iter().flat_map(|step| ["--step".to_owned(), step.to_string()]));
        command.env(PARENT, std::process::id().to_string());
        command.env("OMP_NUM_THREADS", &threads).env("RAYON_NUM_THREADS", &threads);
        if let Some(device) = device(number) {
            command.env("CUDA_VISIBLE_DEVICES", device);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        lookers.0.push((number, child.with_context(|| format!("cannot start {}", program.display()))?));
    }
    let bar = feed::bar("parts", workers);
    while !lookers.0.is_empty() {
        let mut left = Vec::new();
        for (number, mut child) in std::mem::take(&mut lookers.0) {
            match child.try_wait().context("cannot wait for a process")? {
                None => left.push((number, child)),
                Some(status) if status.success() => bar.inc(1),
                Some(status) => {
                    lookers.0 = left;
                    let log = std::fs::read_to_string(log_of(folder, number)).unwrap_or_default();
                    let said = log.lines().rev().find(|line| line.starts_with("error: "));
                    let said = said.map(|line| line["error: ".len()..].to_string());
                    // It said nothing of what killed it; its last lines may.
                    let said = said.unwrap_or_else(|| format!("{status}; the end of what it said:\n{}", tail(&log)));
                    bail!("part {} of {workers} failed: {said}", number + 1);
                }
            }
        }
        lookers.0 = left;
        std::thread::sleep(LOOK);
    }
    bar.finish_and_clear();
    Ok(())
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
}

fn log_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("part-{number}.log"))
}

/// The one GPU that a process may see, where there are any; processes share them when they are more.
fn device(number: u64) -> Option<String> {
    let count = u64::try_from(tch::Cuda::device_count()).ok().filter(|count| *count > 0)?;
    let place = usize::try_from(number % count).ok()?;
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok().filter(|list| !list.is_empty());
    match visible {
        Some(list) => list.split(',').nth(place).map(str::to_owned),
        None => Some(place.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn parts_are_whole_row_groups_and_all_of_them() {
        for (rows, first) in [(vec![8; 10], u64::MAX), (vec![8; 10], 30), (vec![1, 100, 1, 1], u64::MAX), (vec![5], 2)]
        {
            for of in 1..6 {
                let parts: Vec<Range<usize>> = (0..of).map(|number| Part { number, of }.groups(&rows, first)).collect();
                assert_eq!(parts[0].start, 0);
                assert!(parts.windows(2).all(|two| two[0].end == two[1].start), "{parts:?}");
                let read: u64 = rows[..parts[of as usize - 1].end].iter().map(|&n| u64::from(n)).sum();
                let total: u64 = rows.iter().map(|&n| u64::from(n)).sum();
                assert!(read >= total.min(first), "{read} of {total} rows, the first {first} count");
            }
        }
        assert_eq!(Part { number: 1, of: 4 }.groups(&[8; 10], u64::MAX), 3..5);
        assert_eq!("1/4".parse(), Ok(Part { number: 1, of: 4 }));
        assert!("4/4".parse::<Part>().is_err() && "1".parse::<Part>().is_err());
    }

    #[test]
    fn what_parts_saw_is_joined_in_order_and_of_one_checkpoint() {
        let folder = tempfile::tempdir().expect("temporary");
        let parts = Parts { folder: folder.path(), steps: 7 };
        let seen = |value: f64, pictures: usize, texts: &[&str]| Seen {
            questions: Questions {
                pictures,
                picture: (0..pictures).collect(),
                categories: Vec::new(),
                texts: texts.iter().map(|&t| t.into()).collect(),
                owners: vec![pictures - 1; texts.len()],
                without_mask: 1,
            },
            features: Tensor::full([pictures as i64, 2], value, (Kind::Float, Device::Cpu)),
            bad: 2,
        };
        let part = |number| Part { number, of: 2 };
        parts.keep("refcoco", part(0), seen(0.5, 2, &["a", "b"])).expect("writable");
        parts.keep("refcoco", part(1), seen(0.25, 1, &["c"])).expect("writable");
        let all = parts.join("refcoco", 2).expect("both are there");
        assert_eq!((all.questions.pictures, all.questions.picture, all.bad), (3, vec![0, 1, 2], 4));
        assert_eq!((all.questions.texts.join(""), all.questions.owners), ("abc".into(), vec![1, 1, 2]));
        assert_eq!(all.questions.without_mask, 2);
        assert_eq!(
            Vec::<f32>::try_from(all.features.flatten(0, 1)).expect("on the host"),
            [0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
        );
        let newer = Parts { steps: 8, ..parts }.join("refcoco", 2).expect_err("of another checkpoint");
        assert!(newer.to_string().contains("after 7 steps while that after 8"), "{newer}");
        assert!(parts.join("refcoco", 3).is_err());
    }
}
