//! The process that evaluates a run's checkpoints while it trains, where `[eval]` asks for it: started beside the workers, its
//! results read from its log as it writes them.

use super::children::{Children, Exit};
use super::workers;
use crate::torch::WORKER;
use anyhow::Result;
use pixfleet_cluster::RunSpec;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// What the child is called.
pub(crate) const NAME: &str = "eval";
/// How often its log is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(crate) struct Evaluations {
    log: PathBuf,
    /// Bytes of the log that have been read.
    read: usize,
}

impl Evaluations {
    /// Starts it for the run at `run`, if the run file wants it.
    pub(crate) fn start(children: &mut Children, spec: &RunSpec, run: &str) -> Result<Option<Self>> {
        if spec.eval.every_steps == 0 {
            return Ok(None);
        }
        let read = std::fs::metadata(children.log_of(NAME)).map_or(0, |log| log.len());
        children.start(NAME, WORKER, &arguments(spec, run), &[workers::few_threads()])?;
        Ok(Some(Self { log: children.log_of(NAME), read: usize::try_from(read)? }))
    }

    /// Results since it was last asked: one JSON list of benchmarks for each checkpoint.
    pub(crate) fn news(&mut self) -> Vec<Value> {
        let Ok(log) = std::fs::read(&self.log) else { return Vec::new() };
        let new = log.get(self.read..).unwrap_or_default();
        // A line that is still being written is read when it is whole.
        let whole = new.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.read += whole;
        let lines = new[..whole].split(|&byte| byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).filter(Value::is_array).collect()
    }
}

/// What it died of, in words; `None` if it ended well.
pub(crate) fn failure(children: &Children, exit: &Exit) -> Option<String> {
    let log = children.log_of(NAME);
    let said = || children.last_error(NAME).unwrap_or_else(|| format!("{}; its log is {}", exit.how(), log.display()));
    (!exit.status.success()).then(said)
}

fn arguments(spec: &RunSpec, run: &str) -> Vec<String> {
    let eval = &spec.eval;
    let mut args = vec!["eval".into(), run.to_owned(), "--bench".into(), eval.bench.join(",")];
    args.extend([format!("--follow={}", eval.every_steps), "--json".into()]);
    if !eval.data.is_empty() {
        args.extend(["--data".into(), eval.data.clone()]);
    }
    args.extend(eval.options.iter().cloned());
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_file_says_what_is_evaluated() {
        let file = "[run]\nname = \"r\"\nstore = \"file:///s\"\n[data]\nurl = \"file:///d\"\n[schedule]\nsteps = 10\nwarmup = 0\n\
                    [checkpoint]\nevery_steps = 5\n[eval]\nevery_steps = 5\nbench = [\"coco-box\", \"refcoco\"]\ndata = \"file:///c\"\n\
                    options = [\"--split\", \"test\"]\n";
        let spec = RunSpec::parse(file, &[]).expect("valid");
        let expected = "eval file:///s/r --bench coco-box,refcoco --follow=5 --json --data file:///c --split test";
        assert_eq!(arguments(&spec, "file:///s/r").join(" "), expected);
    }

    #[test]
    fn news_are_whole_lines_of_results() {
        let folder = std::env::temp_dir().join(format!("pixfleet-news-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("temporary");
        let log = folder.join("eval.log");
        let mut evaluations = Evaluations { log: log.clone(), read: 0 };
        assert_eq!(evaluations.news(), Vec::<Value>::new());
        std::fs::write(&log, "WARN a row is bad\n[{\"steps\": 5}]\n[{\"ste").expect("temporary");
        assert_eq!(evaluations.news(), [serde_json::json!([{ "steps": 5 }])]);
        std::fs::write(&log, "WARN a row is bad\n[{\"steps\": 5}]\n[{\"steps\": 10}]\n").expect("temporary");
        assert_eq!(evaluations.news(), [serde_json::json!([{ "steps": 10 }])]);
        assert_eq!(evaluations.news(), Vec::<Value>::new());
        std::fs::remove_dir_all(folder).expect("ours");
    }
}
