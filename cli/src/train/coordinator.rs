//! Starting the coordinator and those that stand by, finding out where they listen, and starting them again when they
//! die.

use super::children::{Children, Exit};
use anyhow::{Context, Result, anyhow, ensure};
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::run::Outcome;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the first is called,
pub(crate) const FIRST: &str = "coordinator";
/// and what those that stand by are, before their number.
const STANDBY: &str = "standby";
/// How often the file with the address is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// How long the coordinator's end may take to be seen after its wire broke.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Deaths within [`DEATHS_WITHIN`] after which it is not started again.
const DEATHS_MAX: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(60);

/// The coordinators that this program starts, and starts again when they die: one that leads and those that stand by.
#[derive(Debug)]
pub(crate) struct Own {
    /// The resolved run file.
    spec: PathBuf,
    /// Where they write their addresses: a folder of our own.
    folder: PathBuf,
    standbys: u32,
    /// Those whose process lives.
    live: BTreeSet<String>,
    deaths: Vec<Instant>,
}

impl Own {
    /// Writes the run file to `folder`, which is ours.
    pub(crate) fn new(spec: &RunSpec, folder: &Path, standbys: u32) -> Result<Self> {
        let file = folder.join("run.toml");
        std::fs::write(&file, spec.to_toml()).with_context(|| format!("cannot write {}", file.display()))?;
        let (live, deaths) = (BTreeSet::new(), Vec::new());
        Ok(Self { spec: file, folder: folder.to_path_buf(), standbys, live, deaths })
    }

    /// Starts the first and waits until it listens; its address. `fresh`: refuse a run that exists.
    ///
    /// # Errors
    /// What it died of, in its own words.
    pub(crate) async fn start(&mut self, children: &mut Children, expect: u32, fresh: bool) -> Result<String> {
        self.spawn(children, FIRST, expect, fresh)?;
        loop {
            if let Some(address) = self.address(FIRST) {
                return Ok(address);
            }
            tokio::select! {
                exit = children.exits.recv() => return Err(death(children, exit)),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Starts those that stand by. The first leads by now: of several that start at once any might.
    pub(crate) fn start_standbys(&mut self, children: &mut Children, expect: u32) -> Result<()> {
        (1..=self.standbys).try_for_each(|i| self.spawn(children, &format!("{STANDBY}{i}"), expect, false))
    }

    fn spawn(&mut self, children: &mut Children, name: &str, expect: u32, fresh: bool) -> Result<()> {
        let address = self.address_file(name);
        // Not the address of an earlier life; there may have been none.
        let _ = std::fs::remove_file(&address);
        let mut args: Vec<String> = vec!["--spec".into(), self.spec.display().to_string()];
        args.extend(["--listen".into(), "127.0.0.1:0".into(), "--expect".into(), expect.to_string()]);
        args.extend(["--port-file".into(), address.display().to_string()]);
        if fresh {
            args.push("--fresh".into());
        }
        if self.has_standbys() {
            args.push("--standby".into());
        }
        children.start(name, "pixfleet-coordinator", &args, &[])?;
        self.live.insert(name.to_string());
        Ok(())
    }

    fn address_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.address"))
    }

    /// Where the coordinator of this name listens, once it does.
    pub(crate) fn address(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.address_file(name)).ok()
    }

    /// Whether others stand by, so that whoever leads is for the run's store to say.
    pub(crate) fn has_standbys(&self) -> bool {
        self.standbys > 0
    }

    /// How many live.
    pub(crate) fn count(&self) -> usize {
        self.live.len()
    }

    /// One of them ended.
    pub(crate) fn ended(&mut self, name: &str) {
        self.live.remove(name);
    }

    /// Starts one again after a death. Its workers find whoever leads through the run's store.
    ///
    /// # Errors
    /// They die again and again.
    pub(crate) fn respawn(&mut self, children: &mut Children, exit: &Exit, expect: u32) -> Result<()> {
        let now = Instant::now();
        self.deaths.push(now);
        self.deaths.retain(|at| now.duration_since(*at) <= DEATHS_WITHIN);
        let (deaths, within, log) = (self.deaths.len(), DEATHS_WITHIN.as_secs(), children.log_of(&exit.name));
        ensure!(
            deaths <= DEATHS_MAX,
            "the coordinator died {deaths} times within {within} s, the last time: {}; its log is {}",
            exit.how(),
            log.display()
        );
        self.spawn(children, &exit.name, expect, false)
    }
}

/// Whether the child of this name is a coordinator.
pub(crate) fn is_coordinator(name: &str) -> bool {
    name == FIRST || name.starts_with(STANDBY)
}

/// What the end of a coordinator means for its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The run is over.
    Over(Outcome),
    /// Another coordinator leads it.
    Deposed,
    /// None of this: it was killed, or crashed.
    Died,
}

/// Reads it from the exit code, which the coordinator's `--help` explains.
pub(crate) fn ending(exit: &Exit) -> Ending {
    match exit.status.code() {
        Some(0) => Ending::Over(Outcome::Done),
        Some(75) => Ending::Over(Outcome::Drained),
        Some(1) => Ending::Over(Outcome::Fault),
        Some(3) => Ending::Deposed,
        _ => Ending::Died,
    }
}

/// `doing`, unless the coordinator ends meanwhile: it listens before it opens run and dataset, so that is when their
/// faults show.
///
/// # Errors
/// What the coordinator died of, in its own words; else the error of `doing`.
pub(crate) async fn unless_it_ends<T>(children: &mut Children, doing: impl Future<Output = Result<T>>) -> Result<T> {
    let error = tokio::select! {
        biased;
        exit = children.exits.recv() => return Err(death(children, exit)),
        done = doing => match done {
            Ok(done) => return Ok(done),
            Err(error) => error,
        },
    };
    // A broken wire may be the first sign of its end.
    match tokio::time::timeout(LAST_WORDS, children.exits.recv()).await {
        Ok(exit) => Err(death(children, exit)),
        Err(_) => Err(error),
    }
}

fn death(children: &Children, exit: Option<Exit>) -> anyhow::Error {
    let how = exit.map_or("it is gone".into(), |e| e.how());
    match children.last_error(FIRST) {
        Some(cause) => anyhow!("{cause}"),
        None => anyhow!("the coordinator ended before training began: {how}; see {}", children.log_of(FIRST).display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn the_exit_says_whether_the_run_goes_on() {
        let exit = |raw| Exit { name: FIRST.into(), pid: 1, status: ExitStatus::from_raw(raw) };
        let code = |code: i32| ending(&exit(code << 8));
        assert_eq!(code(0), Ending::Over(Outcome::Done));
        assert_eq!(code(75), Ending::Over(Outcome::Drained));
        assert_eq!(code(1), Ending::Over(Outcome::Fault));
        assert_eq!(code(3), Ending::Deposed);
        assert_eq!((code(101), ending(&exit(9))), (Ending::Died, Ending::Died), "a panic, a SIGKILL");
    }
}
