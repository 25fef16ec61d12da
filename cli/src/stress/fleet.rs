//! All members together: what they are told, and what has happened to them.

use super::member::StressMember;
use pixfleet_cluster::Generation;
use pixfleet_cluster::run::Outcome;
use pixfleet_proto::{Client, pb};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;

/// Sessions that share a connection.
pub(super) const SESSIONS_A_CHANNEL: u32 = 100;
/// Findings that are told.
const FINDINGS_MAX: usize = 20;

/// What all members are told at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Cue {
    /// Which coordinator.
    pub(super) life: u32,
    /// Connections to it; none while nobody leads.
    pub(super) clients: Arc<[Client]>,
    /// Steps before this one may be done.
    pub(super) through: u64,
    /// Members with lower numbers die.
    pub(super) dead: u32,
}

impl Cue {
    pub(super) fn leads(&self) -> bool {
        !self.clients.is_empty()
    }

    pub(super) fn client_of(&self, number: u32) -> Option<Client> {
        self.clients.get((number / SESSIONS_A_CHANNEL) as usize).cloned()
    }

    pub(super) fn kills(&self, number: u32) -> bool {
        number < self.dead
    }
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Sessions welcomed, by leader.
    pub(super) welcomed: BTreeMap<u64, u32>,
    /// Members that took their place, by generation.
    pub(super) formed: BTreeMap<Generation, u32>,
    /// When each member was asked to finish.
    pub(super) yields: Vec<Instant>,
    /// How members were told to end.
    pub(super) stopped: BTreeMap<&'static str, u32>,
    /// How often each step was told as recorded, by this coordinator.
    pub(super) recorded: BTreeMap<u64, u32>,
    /// Names of members that the coordinator lost.
    pub(super) lost: Vec<String>,
    /// What must not be.
    pub(super) findings: Vec<String>,
    /// The coordinator that has been killed: sessions with it may break.
    pub(super) killed: u32,
    /// The run is about to end: sessions may break.
    pub(super) ends: bool,
}

impl Page {
    pub(super) fn finding(&mut self, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(what);
        }
    }
}

/// The page, for all who write to it.
#[derive(Debug, Default)]
pub(super) struct StressBook(Mutex<Page>);

impl StressBook {
    pub(super) fn page(&self) -> MutexGuard<'_, Page> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn welcomed(&self, leader: u64) {
        *self.page().welcomed.entry(leader).or_default() += 1;
    }

    pub(super) fn formed(&self, generation: Generation) {
        *self.page().formed.entry(generation).or_default() += 1;
    }

    pub(super) fn yields(&self) {
        self.page().yields.push(Instant::now());
    }

    pub(super) fn stopped(&self, outcome: Outcome) {
        let word = match outcome {
            Outcome::Done => "done",
            Outcome::Drained => "drained",
            Outcome::Fault => "fault",
        };
        *self.page().stopped.entry(word).or_default() += 1;
    }

    /// A session with the coordinator of this life broke.
    pub(super) fn broke(&self, life: u32, number: u32, how: &str) {
        let mut page = self.page();
        if life > page.killed && !page.ends {
            page.finding(format!("member m{number} lost its session: {how}"));
        }
    }

    pub(super) fn noticed(&self, notice: pb::Notice) {
        use pb::notice::Kind;
        let mut page = self.page();
        match notice.kind {
            Some(Kind::Step(done)) => {
                let Some(report) = done.report else { return };
                let times = page.recorded.entry(report.step).or_default();
                *times += 1;
                if *times > 1 {
                    page.finding(format!("step {} was recorded twice", report.step));
                }
            }
            Some(Kind::Loss(loss)) => page.lost.push(loss.name),
            Some(Kind::Diverged(odd)) => page.finding(format!("{} counts as diverged", odd.name)),
            Some(Kind::State(_) | Kind::Checkpoint(_) | Kind::Finished(_) | Kind::Left(_) | Kind::Straggler(_))
            | None => {}
        }
    }
}

/// The members, and the way to tell them.
pub(super) struct StressFleet {
    pub(super) cue: watch::Sender<Cue>,
    pub(super) book: Arc<StressBook>,
}

impl StressFleet {
    /// Starts `members`, who wait for the first cue.
    pub(super) fn start(members: u32) -> Self {
        let (cue, cues) = watch::channel(Cue::default());
        let book = Arc::new(StressBook::default());
        for number in 0..members {
            tokio::spawn(StressMember::new((number, members), cues.clone(), book.clone()).run());
        }
        Self { cue, book }
    }
}
