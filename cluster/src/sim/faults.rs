//! What goes wrong: a list drawn up front, so that a seed's trouble can be replayed with some of it left out.

use super::clock::Dice;
use super::net::SessionId;
use super::world::{CoordinatorId, ToWorker, What, WorkerId, World};
use crate::run::{Now, Refusal};
use crate::spec::Rung;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident = $name:literal),* $(,)?) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $($(#[doc = $doc])* $kind,)*
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// As it is typed.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// What it does.
            #[must_use]
            pub fn describe(self) -> &'static str {
                match self { $(Self::$kind => concat!($($doc),*).trim_ascii()),* }
            }
        }
    };
}

kinds! {
    /// A worker is killed; its parent sees that, or only its session's end.
    Crash = "crash",
    /// A worker's machine is gone without a word: its session ends when a keep-alive runs out.
    HostLoss = "host-loss",
    /// Most workers are told to leave and are killed two seconds later.
    SpotStorm = "spot-storm",
    /// A worker stands still for less than its heartbeats' timeout.
    FreezeShort = "freeze-short",
    /// A worker stands still for longer than its heartbeats' timeout, and then goes on.
    FreezeLong = "freeze-long",
    /// A worker is asked to leave.
    Term = "term",
    /// A new worker comes.
    Join = "join",
    /// A session breaks, with what is under way; both ends notice.
    Cut = "cut",
    /// A session breaks; one end notices only when its keep-alive runs out.
    HalfOpen = "half-open",
    /// A worker reaches no coordinator for a while; its peers it reaches.
    Lonely = "lonely",
    /// A collective group's connections break while all its processes live.
    Collective = "collective",
    /// The coordinator is killed between two effects.
    CoordinatorCrash = "coordinator-crash",
    /// The coordinator is killed while it hands out the order of a generation: some of its ranks have it, and some do not.
    CoordinatorMidOrder = "coordinator-mid-order",
    /// The coordinator stands still, and then goes on.
    CoordinatorFreeze = "coordinator-freeze",
    /// A second coordinator is started beside the first.
    SecondCoordinator = "second-coordinator",
    /// No worker reaches the coordinator for a while; the store does. Sometimes a second one is started.
    CoordinatorHidden = "coordinator-hidden",
    /// The store refuses; or takes effect and says that it does not, at once or up to 20 s later.
    StoreDown = "store-down",
    /// The store takes up to 15 s.
    StoreSlow = "store-slow",
    /// The store does now and then as if it were down.
    StoreFlaky = "store-flaky",
}

impl FaultKind {
    /// The kind called `name`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// One fault of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: Now,
    /// What.
    pub kind: FaultKind,
    /// Decides on whom it falls, and for how long.
    pub pick: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6} s: {} ({:016x})", self.at.as_secs_f64(), self.kind.name(), self.pick)
    }
}

/// Faults of one schedule at most.
const FAULTS_MAX: u64 = 14;

/// The faults of `seed`, of these kinds.
#[must_use]
pub fn schedule(seed: u64, kinds: &[FaultKind]) -> Vec<Fault> {
    let mut dice = Dice::new(seed, &[7]);
    if kinds.is_empty() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let mut at = dice.ms(2000..=15_000);
    for _ in 0..dice.within(1..=FAULTS_MAX) {
        let kind = kinds[dice.below(kinds.len() as u64) as usize];
        faults.push(Fault { at, kind, pick: dice.bits() });
        // Trouble comes in company.
        at += if dice.percent(40) { dice.ms(0..=600) } else { dice.ms(600..=15_000) };
    }
    faults
}

/// What has happened, counted.
#[derive(Debug, Clone, Default)]
pub struct Fired {
    /// Faults that found somebody to fall on.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Messages of an earlier generation that a coordinator turned away.
    pub stale: u64,
    /// Steps that a rank of an earlier generation committed for itself after a later one was formed.
    pub zombies: u64,
    /// Steps that were done and cut off again while a member lived that had done them.
    pub redone: u64,
    /// Steps that were cut off because everybody who had done them was gone.
    pub lost: u64,
    /// Coordinators that led.
    pub leaders: u64,
    /// Members lost.
    pub losses: u64,
    /// Generations.
    pub generations: u64,
    /// Generations that were prepared.
    pub prepared: u64,
    /// Of these, those that their ranks went over into.
    pub switched: u64,
    /// Times that ranks were seen to train on without anybody who led them.
    pub kept: u64,
    /// Steps in the ledger in the end.
    pub steps: u64,
}

impl Fired {
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        if matches!(refusal, Refusal::StaleGeneration { .. }) {
            self.stale += 1;
        }
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (&kind, n) in &other.faults {
            *self.faults.entry(kind).or_default() += n;
        }
        self.stale += other.stale;
        self.zombies += other.zombies;
        self.redone += other.redone;
        self.lost += other.lost;
        self.leaders += other.leaders;
        self.losses += other.losses;
        self.generations += other.generations;
        self.prepared += other.prepared;
        self.switched += other.switched;
        self.kept += other.kept;
        self.steps += other.steps;
    }
}

fn one_of<T: Copy>(all: &[T], dice: &mut Dice) -> Option<T> {
    if all.is_empty() { None } else { Some(all[dice.below(all.len() as u64) as usize]) }
}

impl World {
    /// The fault of this number falls.
    pub(super) fn strike(&mut self, i: usize) {
        let Fault { kind, pick, .. } = self.faults[i];
        let mut dice = Dice::new(pick, &[]);
        if self.is_closed() {
            return;
        }
        self.log(|| format!("FAULT {i}: {}", kind.name()));
        if self.fall(kind, &mut dice).is_some() {
            *self.fired.faults.entry(kind).or_default() += 1;
        }
    }

    fn a_worker(&self, dice: &mut Dice) -> Option<WorkerId> {
        one_of(&self.workers.keys().copied().collect::<Vec<_>>(), dice)
    }

    fn a_coordinator(&self, dice: &mut Dice) -> Option<CoordinatorId> {
        one_of(&self.coordinators.keys().copied().collect::<Vec<_>>(), dice)
    }

    fn a_session(&self, dice: &mut Dice) -> Option<SessionId> {
        one_of(&self.net.those(|_| true), dice)
    }

    /// `None`: there is nobody to fall on.
    fn fall(&mut self, kind: FaultKind, dice: &mut Dice) -> Option<()> {
        let now = self.now;
        match kind {
            FaultKind::Crash => self.kill_worker(self.a_worker(dice)?, false),
            FaultKind::HostLoss => self.kill_worker(self.a_worker(dice)?, true),
            FaultKind::SpotStorm => self.storm(dice)?,
            FaultKind::FreezeShort => self.freeze(false, dice)?,
            FaultKind::FreezeLong => self.freeze(true, dice)?,
            FaultKind::Term => {
                let worker = self.a_worker(dice)?;
                self.queue.push(now, What::Worker(worker, ToWorker::Term));
            }
            FaultKind::Join => self.start_worker(),
            FaultKind::Cut => {
                let session = self.a_session(dice)?;
                self.cut(session, false);
            }
            FaultKind::HalfOpen => {
                let session = self.a_session(dice)?;
                self.cut(session, true);
            }
            FaultKind::Lonely => {
                let worker = self.a_worker(dice)?;
                self.net.lonely.insert(worker, now + dice.ms(200..=30_000));
                for session in self.net.those(|s| s.worker == worker) {
                    self.cut(session, dice.percent(50));
                }
            }
            FaultKind::Collective => {
                let group = one_of(&self.whole_groups(), dice)?;
                self.disturb(now);
                self.rank_gone(group, true);
            }
            FaultKind::CoordinatorCrash => {
                let coordinator = self.a_coordinator(dice)?;
                let fuse = dice.below(12);
                self.coordinators.get_mut(&coordinator)?.fuse.get_or_insert(fuse);
            }
            FaultKind::CoordinatorMidOrder => {
                let coordinator = self.a_coordinator(dice)?;
                let orders = dice.below(5);
                self.coordinators.get_mut(&coordinator)?.orders_left.get_or_insert(orders);
            }
            FaultKind::CoordinatorFreeze => {
                let coordinator = self.a_coordinator(dice)?;
                let until = now + dice.ms(100..=40_000);
                self.coordinators.get_mut(&coordinator)?.frozen_until = until;
                if dice.percent(60) {
                    self.start_coordinator();
                }
            }
            FaultKind::SecondCoordinator => self.start_coordinator(),
            FaultKind::CoordinatorHidden => {
                let coordinator = self.a_coordinator(dice)?;
                self.net.hidden.insert(coordinator, now + dice.ms(200..=30_000));
                for session in self.net.those(|s| s.coordinator == coordinator) {
                    self.cut(session, dice.percent(50));
                }
                if dice.percent(50) {
                    self.start_coordinator();
                }
            }
            FaultKind::StoreDown => self.store.down_until = now + dice.ms(100..=60_000),
            FaultKind::StoreSlow => self.store.slow_until = now + dice.ms(100..=60_000),
            FaultKind::StoreFlaky => self.store.flaky_until = now + dice.ms(100..=60_000),
        }
        Some(())
    }

    /// A worker stands still, for longer than its heartbeats' timeout or not.
    fn freeze(&mut self, long: bool, dice: &mut Dice) -> Option<()> {
        let worker = self.a_worker(dice)?;
        let silence = self.setup.ladder[Rung::HeartbeatTimeout].as_millis() as u64;
        let until = self.now + if long { dice.ms(silence..=40_000) } else { dice.ms(50..=silence * 4 / 5) };
        let worker = self.workers.get_mut(&worker)?;
        worker.frozen_until = worker.frozen_until.max(until);
        self.disturb(until);
        Some(())
    }

    fn storm(&mut self, dice: &mut Dice) -> Option<()> {
        let all: Vec<_> = self.workers.keys().copied().collect();
        one_of(&all, dice)?;
        let dies = self.now + Duration::from_secs(2);
        for worker in all {
            if dice.percent(70) {
                self.queue.push(self.now, What::Worker(worker, ToWorker::Term));
                self.queue.push(dies, What::Kill(worker, dice.percent(50)));
            }
        }
        Some(())
    }
}
