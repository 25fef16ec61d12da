//! The life of a run on this machine: start everybody, listen to the coordinator, to the children and to Ctrl-C, end
//! with the run's exit code.

use super::Log;
use super::children::{Children, Exit};
use super::coordinator::{self, Start};
use super::screen::Screen;
use anyhow::{Context, Result, anyhow};
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::run::Outcome;
use pixfleet_proto::pb::fleet_client::FleetClient;
use pixfleet_proto::{FleetError, Patience, connect, pb};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tonic::Streaming;
use tonic::transport::Channel;

/// How long the end of a lost process may take to be seen before its loss is told without it.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);
/// How long children may take to end when the run is over.
const FAREWELL: Duration = Duration::from_secs(15);

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) spec: RunSpec,
    pub(crate) workers: u32,
    pub(crate) log: Log,
    pub(crate) coordinator: Option<String>,
    pub(crate) fresh: bool,
    pub(crate) device: String,
}

pub(crate) async fn run(plan: Plan) -> Result<ExitCode> {
    let folder = Folder::new()?;
    let mut children = Children::new(&logs(&plan.spec, &folder))?;
    let address = match &plan.coordinator {
        Some(address) => address.clone(),
        None => {
            let spec = folder.0.join("run.toml");
            std::fs::write(&spec, plan.spec.to_toml()).with_context(|| format!("cannot write {}", spec.display()))?;
            let start = Start { spec: &spec, expect: plan.workers, fresh: plan.fresh, folder: &folder.0 };
            coordinator::start(&mut children, start).await?
        }
    };
    // Watched before the first worker starts, so that no step goes unseen.
    let watched = async {
        let mut client = connect(&address, Patience::default()).await?;
        let notices = client.watch(pb::WatchRequest {}).await.map_err(FleetError::from)?.into_inner();
        Ok((client, notices))
    };
    let (client, notices) = coordinator::unless_it_ends(&mut children, watched).await?;
    let workers = start_workers(&mut children, &plan, &address)?;
    let screen = Screen::new(plan.log, &plan.spec.run.name, plan.spec.schedule.steps);
    let own_coordinator = plan.coordinator.is_none();
    let min_workers = plan.spec.train.min_workers as usize;
    let run = Supervisor {
        client,
        children,
        screen,
        workers,
        own_coordinator,
        min_workers,
        exits: BTreeMap::new(),
        first_bad: None,
        untold: Vec::new(),
        interrupts: 0,
    };
    run.supervise(notices).await
}

/// Where children write: beside the run if it lies on this machine's disk, else in a folder that stays.
fn logs(spec: &RunSpec, folder: &Folder) -> PathBuf {
    let local = pixfleet_checkpoint::Location::parse(&spec.run.store).ok().and_then(|l| l.local_folder());
    match local {
        Some(store) => store.join(&spec.run.name).join("logs"),
        None => folder.0.with_extension("logs"),
    }
}

/// A folder for the run file and the address, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("pixfleet-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays in a temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start_workers(children: &mut Children, plan: &Plan, address: &str) -> Result<BTreeMap<u32, String>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = (cores / plan.workers as usize).max(1);
    let address = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
    let mut workers = BTreeMap::new();
    for i in 0..plan.workers {
        let name = format!("w{i}");
        let args = [
            ("--coordinator", address.clone()),
            ("--name", name.clone()),
            ("--threads", share.to_string()),
            ("--decode-threads", (share / 2).max(1).to_string()),
            ("--device", plan.device.clone()),
        ];
        let args: Vec<String> = std::iter::once("worker".to_string())
            .chain(args.into_iter().flat_map(|(flag, value)| [flag.to_string(), value]))
            .collect();
        workers.insert(children.start(&name, "pixfleet-worker", &args)?, name);
    }
    Ok(workers)
}

struct Supervisor {
    client: FleetClient<Channel>,
    children: Children,
    screen: Screen,
    /// Workers that live, by process id.
    workers: BTreeMap<u32, String>,
    own_coordinator: bool,
    min_workers: usize,
    /// Ends that were seen, by process id.
    exits: BTreeMap<u32, Exit>,
    /// The first worker that did not end because the run was over.
    first_bad: Option<Exit>,
    /// Losses whose process has not been seen to end.
    untold: Vec<pb::LossNotice>,
    interrupts: u32,
}

/// What ended the run, as far as this program knows.
struct End {
    outcome: Outcome,
    message: String,
}

impl Supervisor {
    async fn supervise(mut self, mut notices: Streaming<pb::Notice>) -> Result<ExitCode> {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let end = loop {
            let waiting = !self.untold.is_empty();
            tokio::select! {
                notice = notices.message() => match notice {
                    Ok(Some(notice)) => if let Some(end) = self.notice(notice)? { break end },
                    Ok(None) => break self.coordinator_gone("it hung up").await,
                    Err(status) => break self.coordinator_gone(status.message()).await,
                },
                Some(exit) = self.children.exits.recv() => self.exited(exit).await?,
                _ = interrupt.recv() => if let Some(end) = self.interrupted().await { break end },
                _ = terminate.recv() => if let Some(end) = self.interrupted().await { break end },
                () = tokio::time::sleep(EXIT_PATIENCE), if waiting => self.tell_losses(true)?,
            }
        };
        self.tell_losses(true)?;
        self.farewell().await;
        match end.outcome {
            Outcome::Fault => Err(anyhow!("{}", end.message)),
            outcome => Ok(ExitCode::from(outcome.exit_code())),
        }
    }

    fn notice(&mut self, notice: pb::Notice) -> Result<Option<End>> {
        use pb::notice::Kind;
        match notice.kind {
            Some(Kind::State(state)) => self.screen.state(&state)?,
            Some(Kind::Step(step)) => self.screen.step(&step)?,
            Some(Kind::Checkpoint(checkpoint)) => self.screen.checkpoint(&checkpoint)?,
            Some(Kind::Loss(loss)) => {
                self.untold.push(loss);
                self.tell_losses(false)?;
            }
            Some(Kind::Finished(stop)) => {
                self.tell_losses(true)?;
                self.screen.finished(stop.outcome(), &stop.message)?;
                let outcome = Outcome::try_from(stop.outcome()).context("the coordinator's last words")?;
                return Ok(Some(End { outcome, message: stop.message }));
            }
            None => {}
        }
        Ok(None)
    }

    /// Tells of losses whose process has been seen to end, or of all.
    fn tell_losses(&mut self, all: bool) -> Result<()> {
        for loss in std::mem::take(&mut self.untold) {
            match self.exits.get(&loss.pid) {
                None if !all && self.workers.contains_key(&loss.pid) => self.untold.push(loss),
                exit => self.screen.lost(&loss, exit)?,
            }
        }
        Ok(())
    }

    async fn exited(&mut self, exit: Exit) -> Result<()> {
        tracing::info!(name = exit.name, pid = exit.pid, how = exit.how(), "child ended");
        let worker = self.workers.remove(&exit.pid).is_some();
        let (pid, how) = (exit.pid, exit.how());
        if worker && self.first_bad.is_none() && !matches!(exit.status.code(), Some(0 | 75)) {
            self.first_bad = Some(exit.clone());
        }
        self.exits.insert(pid, exit);
        self.tell_losses(false)?;
        if !worker {
            return Ok(());
        }
        self.control(pb::control_request::Kind::MemberExit(pb::MemberExit { host: String::new(), pid, how })).await;
        // Nobody starts workers here any more: with too few of them the run would wait for ever.
        if self.own_coordinator && self.workers.len() < self.min_workers && self.first_bad.is_some() {
            let message = self.first_cause();
            let stop = pb::Stop { outcome: pb::Outcome::Fault.into(), message };
            self.control(pb::control_request::Kind::Stop(stop)).await;
        }
        Ok(())
    }

    /// What the first worker that ended badly died of, by its own word if it left one.
    fn first_cause(&self) -> String {
        let Some(first) = &self.first_bad else { return "all workers have ended".into() };
        let own_word = self.children.last_error(&first.name).filter(|_| first.status.code().is_some());
        match own_word {
            Some(error) => format!("worker {}: {error}", first.name),
            None => {
                let log = self.children.log_of(&first.name);
                format!("worker {} ended: {}; its log is {}", first.name, first.how(), log.display())
            }
        }
    }

    /// Passes something on; a coordinator that is gone shows in the stream of notices.
    async fn control(&mut self, kind: pb::control_request::Kind) {
        if let Err(status) = self.client.control(pb::ControlRequest { kind: Some(kind) }).await {
            tracing::debug!(error = status.message(), "the coordinator does not listen");
        }
    }

    /// The first Ctrl-C drains, the second kills.
    async fn interrupted(&mut self) -> Option<End> {
        self.interrupts += 1;
        if self.interrupts == 1 {
            self.screen.note("draining: the step in flight ends, then a checkpoint; once more to kill");
            self.control(pb::control_request::Kind::Drain(pb::Drain {})).await;
            return None;
        }
        self.children.kill_all();
        Some(End { outcome: Outcome::Fault, message: "killed; the run resumes from its newest checkpoint".into() })
    }

    async fn coordinator_gone(&mut self, how: &str) -> End {
        // Its exit says more than the broken stream, and comes at about the same time.
        let limit = tokio::time::Instant::now() + EXIT_PATIENCE;
        while let Ok(Some(exit)) = tokio::time::timeout_at(limit, self.children.exits.recv()).await {
            self.workers.remove(&exit.pid);
            if exit.name == "coordinator" {
                let log = self.children.log_of("coordinator");
                let message = self
                    .children
                    .last_error("coordinator")
                    .unwrap_or_else(|| format!("the coordinator ended: {}; its log is {}", exit.how(), log.display()));
                return End { outcome: Outcome::Fault, message };
            }
        }
        End { outcome: Outcome::Fault, message: format!("the connection to the coordinator broke: {how}") }
    }

    /// Waits for the children, and kills those that do not end.
    async fn farewell(&mut self) {
        let limit = tokio::time::Instant::now() + FAREWELL;
        let mut left = self.workers.len() + usize::from(self.own_coordinator && !self.has_ended("coordinator"));
        while left > 0 {
            match tokio::time::timeout_at(limit, self.children.exits.recv()).await {
                Ok(Some(_)) => left -= 1,
                Ok(None) => return,
                Err(_) => {
                    tracing::warn!(left, "children did not end, killing them");
                    self.children.kill_all();
                    return;
                }
            }
        }
    }

    fn has_ended(&self, name: &str) -> bool {
        self.exits.values().any(|e| e.name == name)
    }
}
