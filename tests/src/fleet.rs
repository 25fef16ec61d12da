//! The processes of one run on this machine: a coordinator and workers, started, killed and waited for one by one.
//! It decides nothing about the run; measurements and tests that hurt a run on purpose are built on it.
//!
//! Invariant: no process outlives its [`Fleet`]. Dropping it, also by a panic, kills what is left; and if this process is
//! killed itself, the kernel kills the children. The kernel ties them to the *thread* that started them, so a fleet is
//! used from one thread that lives as long as it does.
//!
//! ```text
//! <dir>/run.toml          the run file
//! <dir>/logs/<name>.log   what a process wrote, over all its lives
//! <dir>/steps/            committed steps, one file for each life of a worker
//! <dir>/address-<life>    where a coordinator listens
//! ```

use crate::hosts::{Host, Hosts};
use crate::poll::wait_for;
use crate::program;
use crate::steps::{self, StepLogs};
use anyhow::{Context, Result, bail, ensure};
use pixfleet_proto::{PARENT, Patience, connect, pb};
use rustix::process::{Pid, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

pub use rustix::process::Signal;

/// The coordinator's name among the processes; where there are several, what their names begin with.
pub const COORDINATOR: &str = "coordinator";

/// How long a coordinator may take to listen.
const LISTEN: Duration = Duration::from_secs(30);
/// How long a coordinator may take to answer a question.
const ANSWER: Duration = Duration::from_secs(5);
/// Of a log, what an error quotes.
const QUOTED_LINES: usize = 12;

/// A process that ended.
#[derive(Debug, Clone)]
pub struct Exit {
    /// `coordinator`, or the worker's name.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// What waitpid says.
    pub status: ExitStatus,
}

impl Exit {
    /// The signal that killed it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// The code that it exited with.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {}): {}", self.name, self.pid, self.status)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Fleet {
    dir: PathBuf,
    running: BTreeMap<String, Child>,
    /// Processes ever started.
    lives: u32,
    /// Where workers that are started from now on look for their coordinator.
    address: Option<String>,
    /// For all processes.
    envs: Vec<(String, String)>,
    /// Where there are any, each process gets one of its own.
    hosts: Option<Hosts>,
}

impl Fleet {
    /// A fleet without processes, for the run of `spec` (a run file's text), with its files in `dir`.
    ///
    /// # Errors
    /// If `dir` cannot be written.
    pub fn new(dir: &Path, spec: &str) -> Result<Self> {
        for folder in ["logs", "steps"] {
            let folder = dir.join(folder);
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let (running, envs) = (BTreeMap::new(), Vec::new());
        let fleet = Self { dir: dir.to_path_buf(), running, lives: 0, address: None, envs, hosts: None };
        let file = fleet.spec();
        std::fs::write(&file, spec).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(fleet)
    }

    /// All processes that are started from now on get these variables.
    pub fn set_envs(&mut self, envs: Vec<(String, String)>) {
        self.envs = envs;
    }

    /// All processes that are started from now on get a host of their own.
    pub fn set_hosts(&mut self, hosts: Hosts) {
        self.hosts = Some(hosts);
    }

    /// Takes the link of a process's host down, or up again; what the system says of it then.
    ///
    /// # Errors
    /// If it has no host of its own.
    pub fn set_link(&self, name: &str, up: bool) -> Result<String> {
        self.hosts.as_ref().context("all processes share one host")?.set_link(name, up)
    }

    /// Workers that are started from now on look for their coordinator at `address`.
    pub fn send_workers_to(&mut self, address: &str) {
        self.address = Some(address.into());
    }

    /// Starts a coordinator that waits for `expect` workers before the first step, on a port of its own; its address,
    /// once it listens. Workers that are started from now on are sent there.
    ///
    /// # Errors
    /// If one runs already, or it ends instead of listening: with its own last words.
    pub fn start_coordinator(&mut self, expect: u32) -> Result<String> {
        let file = self.launch_coordinator(COORDINATOR, expect, &[])?;
        let address = wait_for("the coordinator listens", LISTEN, || {
            if let Some(exit) = self.try_wait(COORDINATOR)? {
                bail!("{}", self.last_words(&exit));
            }
            Ok(std::fs::read_to_string(&file).ok())
        })?;
        self.address = Some(address.clone());
        Ok(address)
    }

    /// Starts a coordinator called `name` with `args` besides, and does not wait for it. The file that will hold its
    /// address once it listens.
    ///
    /// # Errors
    /// If one of that name runs already.
    pub fn launch_coordinator(&mut self, name: &str, expect: u32, args: &[&str]) -> Result<PathBuf> {
        let file = self.dir.join(format!("address-{}", self.lives));
        let host = self.place(name)?;
        let mut command = Command::new(program("pixfleet-coordinator"));
        command.arg("--spec").arg(self.spec()).args(["--expect", &expect.to_string()]);
        match &host {
            // Nobody else is on that network.
            Some(host) => command.args(["--listen", &format!("{}:0", host.address), "--insecure"]),
            None => command.args(["--listen", "127.0.0.1:0"]),
        };
        command.arg("--port-file").arg(&file).args(args);
        self.start(name, command, host)?;
        Ok(file)
    }

    /// Starts a worker of one thread on the CPU, with `envs` besides; its process id.
    ///
    /// # Errors
    /// If one of that name runs already, or no coordinator has been started.
    pub fn start_worker(&mut self, name: &str, envs: &[(&str, &str)]) -> Result<u32> {
        let address = self.address.clone().context("start a coordinator before its workers")?;
        let host = self.place(name)?;
        let mut command = Command::new(program("pixfleet-worker"));
        command.args(["worker", "--coordinator", &address, "--name", name, "--device", "cpu"]);
        command.args(["--threads", "1", "--decode-threads", "1"]);
        if let Some(host) = &host {
            command.args(["--host", &host.address.to_string()]);
        }
        // Idle OpenMP threads must not spin: processes share the cores.
        command.env("OMP_NUM_THREADS", "1").env("OMP_WAIT_POLICY", "passive");
        command.env("PIXFLEET_STEP_LOG", self.dir.join(format!("steps/{}", self.lives)));
        command.env_remove("PIXFLEET_FAULT").envs(envs.iter().copied());
        self.start(name, command, host)
    }

    /// Where a process called `name` is to run.
    fn place(&mut self, name: &str) -> Result<Option<Host>> {
        ensure!(!self.running.contains_key(name), "{name} runs already");
        self.hosts.as_mut().map(|hosts| hosts.add(name)).transpose()
    }

    fn start(&mut self, name: &str, mut command: Command, host: Option<Host>) -> Result<u32> {
        if let Some(host) = host {
            command = host.runs(&command);
        }
        let path = self.log_of(name);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        command.envs(self.envs.iter().map(|(key, value)| (key, value)));
        command.env(PARENT, std::process::id().to_string()).stdin(Stdio::null());
        command.stdout(log.try_clone().context("cannot share a log file")?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let pid = child.id();
        self.lives += 1;
        self.running.insert(name.into(), child);
        Ok(pid)
    }

    /// Sends `signal` to a process that has not been waited for, so that it can reach no other; the moment right before,
    /// on the clock of the step logs.
    ///
    /// # Errors
    /// If there is no such process, or it cannot be signalled.
    pub fn kill(&mut self, name: &str, signal: Signal) -> Result<u64> {
        let pid = Pid::from_child(self.child(name)?);
        let moment = steps::now();
        kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to {name}"))?;
        Ok(moment)
    }

    /// The process id of `name`.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn pid(&mut self, name: &str) -> Result<u32> {
        Ok(self.child(name)?.id())
    }

    /// How the process `name` ended, if it has; then it is forgotten, and its name is free.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn try_wait(&mut self, name: &str) -> Result<Option<Exit>> {
        let child = self.child(name)?;
        let pid = child.id();
        let Some(status) = child.try_wait().with_context(|| format!("cannot wait for {name}"))? else {
            return Ok(None);
        };
        self.running.remove(name);
        Ok(Some(Exit { name: name.into(), pid, status }))
    }

    /// How the process `name` ends.
    ///
    /// # Errors
    /// If it does not within `limit`.
    pub fn wait(&mut self, name: &str, limit: Duration) -> Result<Exit> {
        wait_for(&format!("{name} ends"), limit, || self.try_wait(name))
    }

    /// Processes that have ended since somebody last looked.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn reap(&mut self) -> Result<Vec<Exit>> {
        let names: Vec<String> = self.running.keys().cloned().collect();
        names.iter().filter_map(|name| self.try_wait(name).transpose()).collect()
    }

    /// Whether no process runs, as far as anybody has looked.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Names of the workers that run, as far as anybody has looked.
    pub fn alive(&self) -> BTreeSet<String> {
        self.running.keys().filter(|name| !name.starts_with(COORDINATOR)).cloned().collect()
    }

    /// The process's state as the kernel has it: `R` running, `S` sleeping, `T` stopped, `Z` ended and not waited for.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn state(&mut self, name: &str) -> Result<char> {
        let path = format!("/proc/{}/stat", self.child(name)?.id());
        let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // The second field is the program's name in parentheses, which may hold anything.
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        state.with_context(|| format!("{path} has no state: {stat}"))
    }

    /// What the newest coordinator knows of its run; `None` if it does not answer.
    ///
    /// # Errors
    /// If none has been started.
    pub fn status(&self) -> Result<Option<pb::StatusReply>> {
        let address = self.address.clone().context("no coordinator has been started")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
        let asked = async {
            let mut client = connect(&address, Patience(ANSWER)).await.ok()?;
            client.status(pb::StatusRequest {}).await.ok()
        };
        let reply = runtime.block_on(async { tokio::time::timeout(ANSWER, asked).await });
        Ok(reply.ok().flatten().map(tonic::Response::into_inner))
    }

    /// A reader of the committed steps of all workers, dead or alive.
    pub fn step_logs(&self) -> StepLogs {
        StepLogs::new(&self.dir.join("steps"))
    }

    /// The run file.
    pub fn spec(&self) -> PathBuf {
        self.dir.join("run.toml")
    }

    /// The log file of the process called `name`.
    pub fn log_of(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// How a process ended and the end of its log, for an error.
    pub fn last_words(&self, exit: &Exit) -> String {
        let path = self.log_of(&exit.name);
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let quoted = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n");
        format!("{exit}; the end of {}:\n{quoted}", path.display())
    }

    fn child(&mut self, name: &str) -> Result<&mut Child> {
        self.running.get_mut(name).with_context(|| format!("there is no process called {name}"))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // Already dead is what we want; SIGKILL reaches a stopped process too.
            let _ = child.kill();
        }
        for child in self.running.values_mut() {
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests;
