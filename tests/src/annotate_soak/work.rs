//! One dataset that processes annotate, each with an address of the stand-in for itself.

use super::AnnotateSoakArgs;
use crate::sharing::SharedWork;
use crate::standin::{ServedCall, StandIn};
use crate::{pixfleet, url};
use anyhow::{Context, Result, ensure};
use pixfleet_cluster::claims::{Mark, Sight};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// See the module.
pub(super) struct Annotating<'a> {
    pub(super) args: &'a AnnotateSoakArgs,
    pub(super) standin: &'a StandIn,
    pub(super) recipe: &'a Path,
    /// URL of what is annotated.
    pub(super) bare: &'a str,
    pub(super) out: PathBuf,
    /// Tells its processes from those of the other run.
    pub(super) name: &'static str,
}

/// What a turn's object says.
#[derive(Deserialize)]
struct Holder {
    who: String,
}

impl SharedWork for Annotating<'_> {
    fn command(&self, number: usize) -> Command {
        let mut command = pixfleet(["annotate"]);
        command.arg(self.recipe).args([self.bare, "--out", &url(&self.out)]);
        command.args(["--lease", &self.args.lease.to_string()]).stdout(std::process::Stdio::null());
        let address = self.standin.address_of(&format!("{}-{number}", self.name));
        for server in ["vlm", "llm", "segmenter"] {
            command.args(["--server", &format!("{server}={address}")]);
        }
        command
    }

    /// Whether a claim of it stands.
    fn in_hand(&self, pid: u32) -> Result<bool> {
        let ending = format!("/{pid}");
        for (unit, sight) in self.sights()? {
            if sight.turn == 0 || sight.left || sight.done {
                continue;
            }
            let path = self.claims().join(Mark::Turn(sight.turn).key(&unit));
            let holder: Holder = serde_json::from_slice(&std::fs::read(&path)?)
                .with_context(|| format!("{} is no claim", path.display()))?;
            if holder.who.ends_with(&ending) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Annotating<'_> {
    fn claims(&self) -> PathBuf {
        self.out.join("claims")
    }

    /// What the claims say of every file.
    fn sights(&self) -> Result<BTreeMap<String, Sight>> {
        let mut keys = Vec::new();
        if self.claims().exists() {
            walk(&self.claims(), "", &mut keys)?;
        }
        Ok(Sight::all(keys.iter().map(|key| (key.as_str(), String::new()))))
    }

    /// How many files there were to do.
    ///
    /// # Errors
    /// If one is not done.
    pub(super) fn files_done(&self) -> Result<usize> {
        let sights = self.sights()?;
        for (unit, sight) in &sights {
            ensure!(sight.done, "{unit} is not done");
        }
        Ok(sights.len())
    }

    /// The requests of its processes.
    pub(super) fn calls(&self) -> Vec<ServedCall> {
        let mut calls = self.standin.calls();
        calls.retain(|call| call.who.starts_with(self.name));
        calls
    }

    /// Which process that was started `who` is; 0 for nobody's.
    pub(super) fn number(&self, who: &str) -> usize {
        who.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
    }
}

/// The paths of all files below `folder`, each after `prefix`.
fn walk(folder: &Path, prefix: &str, keys: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let key = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{key}/"), keys)?;
        } else {
            keys.push(key);
        }
    }
    Ok(())
}
