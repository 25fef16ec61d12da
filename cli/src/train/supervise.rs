//! The life of a run on this machine: start everybody, listen to the coordinator, to the children and to Ctrl-C, end
//! with the run's exit code.

use super::Log;
use super::children::{Children, Exit};
use super::coordinator::{self, Own};
use super::evaluations::{self, Evaluations};
use super::leader_client::LeaderClient;
use super::screen::Screen;
use super::workers::{self, Workers};
use anyhow::{Context, Result, anyhow};
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::run::Outcome;
use pixfleet_cluster::spec::Rung;
use pixfleet_proto::pb::control_request::Kind as Say;
use pixfleet_proto::{Patience, pb};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

mod evaluating;
mod leader;

/// How long the end of a lost process may take to be seen before its loss is told without it.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);
/// How long after members went it is asked whether enough are left.
const RECHECK: Duration = Duration::from_millis(100);

/// What is to be done.
pub(crate) struct Launch {
    pub(crate) spec: RunSpec,
    pub(crate) workers: u32,
    /// How often a lost worker is started again.
    pub(crate) respawn: u32,
    pub(crate) log: Log,
    pub(crate) coordinator: Option<String>,
    pub(crate) fresh: bool,
    /// Coordinators that stand by.
    pub(crate) standbys: u32,
    pub(crate) device: String,
}

pub(crate) async fn run(launch: Launch) -> Result<ExitCode> {
    let folder = TempFolder::new()?;
    let mut children = Children::new(&logs(&launch.spec, &folder))?;
    let (mut own, address) = match &launch.coordinator {
        Some(address) => (None, address.clone()),
        None => {
            let mut own = Own::new(&launch.spec, &folder.0, launch.standbys)?;
            let address = own.start(&mut children, launch.workers, launch.fresh).await?;
            (Some(own), address)
        }
    };
    // Watched before the first worker starts, so that no step goes unseen.
    let standbys = own.as_ref().is_some_and(Own::has_standbys);
    let watched = async {
        let mut client = LeaderClient::open(&address, Patience::default()).await?;
        while standbys && client.members().await.is_none() {
            tokio::time::sleep(RECHECK).await;
        }
        Ok(client)
    };
    let client = coordinator::unless_it_ends(&mut children, watched).await?;
    if let Some(own) = &mut own {
        own.start_standbys(&mut children, launch.workers)?;
    }
    let workers = Workers::start(
        &mut children,
        &address,
        &launch.device,
        (launch.workers, launch.respawn),
        folder_of(&launch.spec),
    )?;
    // Where the run is led elsewhere, whoever leads it evaluates it.
    let evaluations = match &launch.coordinator {
        None => Evaluations::start(&mut children, &launch.spec, &folder_of(&launch.spec))?,
        Some(_) => None,
    };
    let run = Supervisor {
        evaluations,
        address,
        client: Some(client),
        lost_at: Instant::now(),
        look_at: Instant::now(),
        children,
        screen: Screen::new(launch.log, &launch.spec.run.name, launch.spec.schedule.steps),
        workers,
        own,
        verdict: None,
        spec: launch.spec,
        exits: BTreeMap::new(),
        first_bad: None,
        untold: Vec::new(),
        interrupts: 0,
        short: None,
        recheck: false,
        wish: None,
    };
    run.supervise().await
}

/// The run's folder, as it is typed.
fn folder_of(spec: &RunSpec) -> String {
    format!("{}/{}", spec.run.store.trim_end_matches('/'), spec.run.name)
}

/// Where children write: beside the run if it lies on this machine's disk, else in a folder that stays.
fn logs(spec: &RunSpec, folder: &TempFolder) -> PathBuf {
    let local = pixfleet_checkpoint::Folder::parse(&spec.run.store).ok().and_then(|l| l.local_folder());
    match local {
        Some(store) => store.join(&spec.run.name).join("logs"),
        None => folder.0.with_extension("logs"),
    }
}

/// A folder for the run file and the address, removed at the end.
struct TempFolder(PathBuf);

impl TempFolder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("pixfleet-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // What stays in a temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Supervisor {
    spec: RunSpec,
    /// The process that evaluates checkpoints, while there is one.
    evaluations: Option<Evaluations>,
    /// Where the coordinator is, or was last.
    address: String,
    /// `None` while there is no coordinator that answers.
    client: Option<LeaderClient>,
    lost_at: Instant,
    /// When it is looked for next.
    look_at: Instant,
    children: Children,
    screen: Screen,
    workers: Workers,
    /// The coordinators, if this program started the one that leads.
    own: Option<Own>,
    /// Its end, if that means that the run is over or goes on elsewhere.
    verdict: Option<Exit>,
    /// Ends that were seen, by process id.
    exits: BTreeMap<u32, Exit>,
    /// The first worker that did not end because the run was over, or because it was to leave.
    first_bad: Option<Exit>,
    /// Losses whose process has not been seen to end.
    untold: Vec<pb::LossNotice>,
    interrupts: u32,
    /// The last of our workers that ended while too few were left, and was not started again.
    short: Option<Exit>,
    /// Members may have gone since it was last asked whether enough are left.
    recheck: bool,
    /// What the run was told to do, drain or stop: a new coordinator must be told again.
    wish: Option<Say>,
}

/// What ended the run, as far as this program knows.
struct RunEnd {
    outcome: Outcome,
    message: String,
}

impl Supervisor {
    async fn supervise(mut self) -> Result<ExitCode> {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut news = tokio::time::interval(evaluations::LOOK);
        let end = loop {
            let (waiting, looking) = (!self.untold.is_empty(), self.client.is_none());
            let evaluating = self.evaluations.is_some();
            let end = tokio::select! {
                notice = next(&mut self.client) => match notice {
                    Ok(notice) => self.notice(notice)?,
                    Err(how) => self.hung_up(&how)?,
                },
                Some(exit) = self.children.exits.recv() => self.exited(exit).await?,
                _ = interrupt.recv() => self.interrupted().await,
                _ = terminate.recv() => self.interrupted().await,
                () = tokio::time::sleep(RECHECK), if self.recheck => {
                    self.recheck = false;
                    self.enough().await;
                    None
                }
                () = tokio::time::sleep_until(self.look_at), if looking => self.look().await?,
                _ = news.tick(), if evaluating => {
                    self.tell_evaluations()?;
                    None
                }
                () = tokio::time::sleep(EXIT_PATIENCE), if waiting => {
                    self.tell_losses(true)?;
                    None
                }
            };
            if let Some(end) = end {
                break end;
            }
        };
        self.tell_losses(true)?;
        self.farewell().await;
        self.await_evaluations(end.outcome, (&mut interrupt, &mut terminate)).await?;
        match end.outcome {
            Outcome::Fault => Err(anyhow!("{}", end.message)),
            outcome => Ok(ExitCode::from(outcome.exit_code())),
        }
    }

    fn notice(&mut self, notice: pb::Notice) -> Result<Option<RunEnd>> {
        use pb::notice::Kind;
        match notice.kind {
            Some(Kind::State(state)) => self.screen.state(&state)?,
            Some(Kind::Step(step)) => self.screen.step(&step)?,
            Some(Kind::Checkpoint(checkpoint)) => self.screen.checkpoint(&checkpoint)?,
            Some(Kind::Left(left)) => {
                self.recheck = true;
                self.screen.left(&left)?;
            }
            Some(Kind::Straggler(straggler)) => self.screen.straggler(&straggler)?,
            Some(Kind::Diverged(diverged)) => self.screen.diverged(&diverged)?,
            Some(Kind::Loss(loss)) => {
                self.recheck = true;
                self.untold.push(loss);
                self.tell_losses(false)?;
            }
            Some(Kind::Finished(stop)) => {
                self.tell_losses(true)?;
                self.screen.finished(stop.outcome(), &stop.message)?;
                let outcome = Outcome::try_from(stop.outcome()).context("the coordinator's last words")?;
                return Ok(Some(RunEnd { outcome, message: stop.message }));
            }
            None => {}
        }
        Ok(None)
    }

    /// Tells of losses whose process has been seen to end, or of all.
    fn tell_losses(&mut self, all: bool) -> Result<()> {
        for loss in std::mem::take(&mut self.untold) {
            match self.exits.get(&loss.pid) {
                None if !all && self.workers.has(loss.pid) => self.untold.push(loss),
                exit => self.screen.lost(&loss, exit)?,
            }
        }
        Ok(())
    }

    async fn exited(&mut self, exit: Exit) -> Result<Option<RunEnd>> {
        tracing::info!(name = exit.name, pid = exit.pid, how = exit.how(), "child ended");
        self.exits.insert(exit.pid, exit.clone());
        self.tell_losses(false)?;
        if exit.name == evaluations::NAME {
            return self.evaluations_ended(&exit).map(|()| None);
        }
        if coordinator::is_coordinator(&exit.name) {
            return self.coordinator_exited(exit);
        }
        self.workers.ended(exit.pid);
        if self.first_bad.is_none() && !matches!(exit.status.code(), Some(0 | 75)) {
            self.first_bad = Some(exit.clone());
        }
        let member_exit = pb::MemberExit { host: workers::HOST.into(), pid: exit.pid, how: exit.how() };
        self.say(Say::MemberExit(member_exit)).await;
        self.after_exit(&exit).await
    }

    /// Whether this program can go on with the workers that are left to it.
    async fn after_exit(&mut self, exit: &Exit) -> Result<Option<RunEnd>> {
        let left_by_order = exit.status.code() == Some(75);
        if exit.status.code() == Some(0) || self.wish.is_some() {
            return Ok(None);
        }
        if !left_by_order && self.workers.respawn(&mut self.children, &self.address, exit)? {
            self.screen.respawned(&exit.name)?;
            return Ok(None);
        }
        if self.own.is_none() {
            // The run is somebody else's; without workers this program has done its part.
            let outcome = if left_by_order { Outcome::Drained } else { Outcome::Fault };
            return Ok((self.workers.count() == 0).then(|| RunEnd { outcome, message: self.first_cause() }));
        }
        self.short = Some(exit.clone()).filter(|_| self.workers.count() < self.min_workers());
        self.enough().await;
        Ok(None)
    }

    fn min_workers(&self) -> usize {
        self.spec.train.min_workers.max(1) as usize
    }

    /// Ends the run when too few of our workers are left and no others make up for them: nobody starts any here, and
    /// it would wait for ever.
    async fn enough(&mut self) {
        let (own, min) = (self.workers.count(), self.min_workers());
        let Some(exit) = self.short.clone() else { return };
        let Some(client) = self.client.as_mut().filter(|_| self.wish.is_none()) else { return };
        let members = client.members().await;
        // A coordinator that opens the run says so later.
        self.recheck |= members.is_none();
        if members.is_none_or(|members| members >= min) {
            return;
        }
        if exit.status.code() == Some(75) || (own > 0 && self.screen.has_stepped()) {
            self.screen.note(&format!("{own} workers are left, train.min_workers is {min}: draining the run"));
            self.want(Say::Drain(pb::Drain {})).await;
        } else {
            let message = self.first_cause();
            self.want(Say::Stop(pb::Stop { outcome: pb::Outcome::Fault.into(), message })).await;
        }
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

    async fn say(&mut self, kind: Say) {
        if let Some(client) = &mut self.client {
            client.control(kind).await;
        }
    }

    /// Says how the run is to end, now and to every coordinator that comes.
    async fn want(&mut self, wish: Say) {
        self.wish = Some(wish.clone());
        self.say(wish).await;
    }

    /// The first Ctrl-C drains, the second kills.
    async fn interrupted(&mut self) -> Option<RunEnd> {
        self.interrupts += 1;
        if self.interrupts == 1 {
            self.screen.note("draining: the step in flight ends, then a checkpoint; once more to kill");
            self.want(Say::Drain(pb::Drain {})).await;
            return None;
        }
        self.children.kill_all();
        Some(RunEnd { outcome: Outcome::Fault, message: "killed; the run resumes from its newest checkpoint".into() })
    }

    /// Waits for the children, and kills those that do not end.
    async fn farewell(&mut self) {
        let limit = Instant::now() + self.spec.ladder()[Rung::FrontDoorFarewell];
        let mut left = self.workers.count() + self.own.as_ref().map_or(0, Own::count);
        while left > 0 {
            match tokio::time::timeout_at(limit, self.children.exits.recv()).await {
                Ok(Some(exit)) if exit.name == evaluations::NAME => {
                    // Nobody reads it later, and what it failed of is told either way.
                    if let Err(error) = self.evaluations_ended(&exit) {
                        tracing::warn!(%error, "an evaluation's end cannot be told");
                    }
                }
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
}

/// The next notice; for ever without a client.
async fn next(client: &mut Option<LeaderClient>) -> Result<pb::Notice, String> {
    let Some(client) = client else { return std::future::pending().await };
    match client.next().await {
        Ok(Some(notice)) => Ok(notice),
        Ok(None) => Err("it hung up".into()),
        Err(status) => Err(status.message().into()),
    }
}
