//! Child processes: started beside this program, each with a log file, each reported when it ends.

use crate::torch::beside;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};

/// A child ended.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    /// `coordinator`, `w0`, `w1`, ...
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) status: ExitStatus,
}

impl Exit {
    /// Signal or exit code, in words.
    pub(crate) fn how(&self) -> String {
        match (self.status.signal(), self.status.code()) {
            (Some(signal), _) => format!("killed by signal {signal}"),
            (None, Some(code)) => format!("exit code {code}"),
            (None, None) => "unknown".into(),
        }
    }
}

/// Starts children and hears of their ends.
#[derive(Debug)]
pub(crate) struct Children {
    logs: PathBuf,
    /// Where this life begins in each log file; earlier lives wrote what stands before.
    begins: BTreeMap<String, u64>,
    ended: mpsc::Sender<Exit>,
    pub(crate) exits: mpsc::Receiver<Exit>,
    kill: watch::Sender<bool>,
}

impl Children {
    /// Log files go to `logs`, which is made.
    pub(crate) fn new(logs: &Path) -> Result<Self> {
        std::fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let (ended, exits) = mpsc::channel(64);
        Ok(Self { logs: logs.to_path_buf(), begins: BTreeMap::new(), ended, exits, kill: watch::channel(false).0 })
    }

    /// The log file of the child called `name`.
    pub(crate) fn log_of(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// Starts `program` with `args` and these variables more as a child called `name`; its process id.
    pub(crate) fn start(
        &mut self,
        name: &str,
        program: &str,
        args: &[String],
        variables: &[(&str, String)],
    ) -> Result<u32> {
        let path = self.log_of(name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let begin = log.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
        self.begins.insert(name.to_string(), begin);
        let mut child = Command::from(beside(program)?)
            .args(args)
            .envs(variables.iter().map(|(key, value)| (key, value)))
            .env(pixfleet_proto::PARENT, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share a log file")?)
            .stderr(log)
            // Ctrl-C in a terminal goes to a whole process group: children must only hear of it from us.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let pid = child.id().context("the child is gone already")?;
        let (ended, mut kill, name) = (self.ended.clone(), self.kill.subscribe(), name.to_string());
        tokio::spawn(async move {
            let killed = tokio::select! {
                _ = child.wait() => false,
                // The guard of the watched value must not live on into the next await.
                told = kill.wait_for(|&k| k) => told.is_ok(),
            };
            if killed {
                // It may have ended by itself in this moment.
                let _ = child.start_kill();
            }
            let status = child.wait().await;
            if let Ok(status) = status {
                // The receiver is gone only when this program ends.
                let _ = ended.send(Exit { name, pid, status }).await;
            }
        });
        Ok(pid)
    }

    /// What the child called `name` last said was wrong in this life, without its `error: `.
    pub(crate) fn last_error(&self, name: &str) -> Option<String> {
        let bytes = std::fs::read(self.log_of(name)).ok()?;
        let begin = usize::try_from(*self.begins.get(name)?).ok()?;
        let text = String::from_utf8_lossy(bytes.get(begin..)?).into_owned();
        let line = text.rfind("\nerror: ").map(|at| at + 1).or_else(|| text.starts_with("error: ").then_some(0))?;
        Some(text[line + "error: ".len()..].trim().to_string())
    }

    /// SIGKILL to all that are left.
    pub(crate) fn kill_all(&self) {
        self.kill.send_replace(true);
    }
}
