//! The demo's journal: which stages are done, how long each took, and for which configuration. A JSON file in the
//! demo's folder, replaced as a whole after every stage.

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What the stages' results depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DemoConfig {
    /// Scenes to train on.
    pub(crate) scenes: u64,
    /// Steps instead of the run file's.
    pub(crate) steps: Option<u64>,
    /// Overrides of the run file.
    pub(crate) set: Vec<String>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct DemoStage {
    name: String,
    seconds: f64,
    done: bool,
}

/// Stages of one folder, in the order they were first reached.
#[derive(Debug)]
pub(crate) struct DemoJournal {
    path: PathBuf,
    stages: Vec<DemoStage>,
}

impl DemoJournal {
    /// Opens the journal of `out`; what is there of another configuration, or with `fresh`, is removed.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(crate) fn open(out: &Path, config: DemoConfig, fresh: bool) -> Result<Self> {
        let config_path = out.join("demo.json");
        let path = out.join("stages.json");
        let before: Option<DemoConfig> = read(&config_path);
        if fresh || before.as_ref() != Some(&config) {
            if before.is_some() {
                eprintln!("starting afresh in {}", out.display());
            }
            // Scenes stay where only the run changes: they are the same function of the same seed.
            let keep_data = !fresh && before.as_ref().is_some_and(|b| b.scenes == config.scenes);
            for folder in if keep_data { &["runs"][..] } else { &["data", "runs"][..] } {
                remove(&out.join(folder))?;
            }
            let mut stages: Vec<DemoStage> = read(&path).unwrap_or_default();
            stages.retain(|s| keep_data && s.done && !s.name.starts_with("train"));
            write(&path, &stages)?;
            write(&config_path, &config)?;
        }
        Ok(Self { stages: read(&path).unwrap_or_default(), path })
    }

    /// The journal's file: a list of stages with name and seconds.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does a stage unless it is done.
    ///
    /// # Errors
    /// The stage's own; time spent on it is kept.
    pub(crate) fn stage(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.try_stage(name, || work().map(|()| None)).map(|_| ())
    }

    /// As [`DemoJournal::stage`], for one that may be stopped before its end: then it returns the exit code.
    ///
    /// # Errors
    /// The stage's own; time spent on it is kept.
    pub(crate) fn try_stage(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<Option<ExitCode>>,
    ) -> Result<Option<ExitCode>> {
        let at = self.stages.iter().position(|s| s.name == name).unwrap_or_else(|| {
            self.stages.push(DemoStage { name: name.into(), seconds: 0.0, done: false });
            self.stages.len() - 1
        });
        if self.stages[at].done {
            eprintln!("  done before, in {:.1} s", self.stages[at].seconds);
            return Ok(None);
        }
        let started = Instant::now();
        let result = work();
        self.stages[at].seconds += started.elapsed().as_secs_f64();
        self.stages[at].done = matches!(result, Ok(None));
        write(&self.path, &self.stages)?;
        if self.stages[at].done {
            eprintln!("  {:.1} s", self.stages[at].seconds);
        }
        result
    }

    /// Seconds of each stage, and of this invocation.
    pub(crate) fn table(&self, elapsed: Duration) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["stage", "seconds"]);
        let mut row = |name: &str, seconds: f64| {
            table.add_row([Cell::new(name), Cell::new(format!("{seconds:.1}")).set_alignment(CellAlignment::Right)]);
        };
        for stage in &self.stages {
            row(&stage.name, stage.seconds);
        }
        row("this command, evaluation included", elapsed.as_secs_f64());
        table.to_string()
    }
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// What a JSON file holds; `None` for one that is not there or of another shape.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Replaces a JSON file as a whole.
fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    let partial = path.with_extension("json.part");
    std::fs::write(&partial, serde_json::to_vec_pretty(value).with_context(failed)?).with_context(failed)?;
    std::fs::rename(&partial, path).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(scenes: u64, steps: Option<u64>) -> DemoConfig {
        DemoConfig { scenes, steps, set: Vec::new() }
    }

    #[test]
    fn a_stage_that_is_done_is_not_done_again_and_a_failed_one_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut journal = DemoJournal::open(dir.path(), config(10, None), false).expect("opens");
        journal.stage("compose", || Ok(())).expect("works");
        assert!(journal.stage("embed", || anyhow::bail!("no weights")).is_err());
        let mut again = DemoJournal::open(dir.path(), config(10, None), false).expect("opens");
        again.stage("compose", || panic!("done before")).expect("nothing to do");
        let mut done = false;
        again
            .stage("embed", || {
                done = true;
                Ok(())
            })
            .expect("works");
        assert!(done);
    }

    #[test]
    fn a_stopped_stage_goes_on_and_its_time_adds_up() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut journal = DemoJournal::open(dir.path(), config(10, None), false).expect("opens");
        assert!(journal.try_stage("train", || Ok(Some(ExitCode::from(75)))).expect("no fault").is_some());
        let spent = journal.stages[0].seconds;
        assert!(journal.try_stage("train", || Ok(None)).expect("no fault").is_none());
        assert!(journal.stages[0].seconds > spent && journal.stages[0].done);
    }

    #[test]
    fn another_run_keeps_the_scenes_and_other_scenes_keep_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let there = |name: &str| dir.path().join(name).exists();
        let fill = || {
            for folder in ["data", "runs"] {
                std::fs::create_dir_all(dir.path().join(folder)).expect("made");
            }
        };
        let mut journal = DemoJournal::open(dir.path(), config(10, None), false).expect("opens");
        journal.stage("compose", || Ok(())).expect("works");
        journal.stage("train", || Ok(())).expect("works");
        fill();
        let journal = DemoJournal::open(dir.path(), config(10, Some(5)), false).expect("opens");
        assert!(there("data") && !there("runs"));
        assert_eq!(journal.stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["compose"]);
        fill();
        let journal = DemoJournal::open(dir.path(), config(20, Some(5)), false).expect("opens");
        assert!(!there("data") && !there("runs") && journal.stages.is_empty());
    }
}
