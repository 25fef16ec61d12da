//! Every timeout of a run, as one ladder: each rung follows from `train.patience_ms` (how long a worker may be silent
//! before it counts as lost) by a formula that stands here and nowhere else, unless the run file sets the rung's own key;
//! and where a step's length matters, no less than a few median steps, as measured.
//!
//! Invariants: the coordinator, the workers, the front door, the plan that is printed and the simulator read these rungs
//! and have no timeouts of their own that must be longer or shorter than another's; any legal patience by itself gives a
//! ladder in which every one of [`ORDER`] holds.

use super::run::{RunSection, TrainSpec};
use crate::spec::Problem;
use std::fmt;
use std::ops::{Index, RangeInclusive};
use std::time::Duration;

/// Legal values of `train.patience_ms`. Below, processes that are merely busy count as dead; above, ten minutes without a
/// word are no patience but a run that stands still.
pub const PATIENCE_MS: RangeInclusive<u64> = 100..=600_000;
/// Of `train.patience_ms`, where the run file does not say.
pub const PATIENCE_MS_DEFAULT: u64 = 5_000;
/// Median steps that rungs which wait for a step are at least as long as.
pub const MEDIAN_STEPS: u32 = 5;

/// One timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// A worker is told to give a sign of life this often, and does so twice as often.
    HeartbeatInterval,
    /// The longest pause between two attempts of a worker to reach a coordinator.
    ReconnectPause,
    /// The same for a worker whose generation is over: nothing goes on until it finds one.
    ParkedPause,
    /// How long those that come to a new coordinator out of a broken generation wait for the rest of it.
    ParkedWindow,
    /// How long a member whose session broke may stay away while its generation trains on.
    ReconnectGrace,
    /// A coordinator asks a session's other end for a sign of life this often.
    KeepaliveInterval,
    /// It takes a session for broken that does not answer for this long.
    KeepaliveTimeout,
    /// A coordinator that stands by asks the leader's wire for a sign of life this often, and waits for it twice as long.
    StandbyKeepalive,
    /// Silence of a leader, on its wire and in its ledger, after which one that stands by takes over.
    StandbySilence,
    /// How often one that stands by reads on in the ledger of a leader that answers.
    StandbyFollow,
    /// How long the members of a generation that an earlier coordinator formed may take to come to a new one.
    AdoptWindow,
    /// Silence after which a member is lost.
    HeartbeatTimeout,
    /// No step for this long: the generation hangs.
    Stall,
    /// How long an operation of the group waits for its peers.
    CollectiveTimeout,
    /// How long the members of a generation that was given up have to report out of it.
    ReformGrace,
    /// How long a group may take to form and to take over state.
    FormingTimeout,
    /// How long a trainer may take to leave a generation that is over before its process ends.
    Reaction,
    /// How long a coordinator tries to write a record or a manifest to a store that fails.
    LedgerPatience,
    /// How long a process waits for a store that fails when it opens or reads something.
    StorePatience,
    /// How long workers go on without any coordinator.
    CoordinatorPatience,
    /// How long a worker's last words may take to be heard, and its trainer to come back.
    WorkerFarewell,
    /// How long a coordinator's last uploads and removals may take.
    LastChores,
    /// How long `pixfleet train` waits for its children when the run is over.
    FrontDoorFarewell,
}

/// How a rung follows from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Formula {
    /// So many of so many parts of the patience.
    Patience(u32, u32),
    /// The same, but no longer than another rung.
    PatienceWithin(u32, u32, Rung),
    /// So many of so many parts of another rung.
    Share(u32, u32, Rung),
    /// Another rung and the patience.
    Beyond(Rung),
    /// Two rungs, one after the other.
    Sum(Rung, Rung),
    /// Milliseconds that depend on nothing in the run file.
    Fixed(u64),
}

/// What is known of a rung whatever the run file says.
struct Entry {
    rung: Rung,
    name: &'static str,
    formula: Formula,
    /// The run file's key that stands in for the formula.
    key: Option<&'static str>,
    /// Median steps that it is at least as long as.
    steps: u32,
}

const fn derived(rung: Rung, name: &'static str, formula: Formula) -> Entry {
    Entry { rung, name, formula, key: None, steps: 0 }
}

const fn keyed(rung: Rung, name: &'static str, formula: Formula, key: &'static str) -> Entry {
    Entry { rung, name, formula, key: Some(key), steps: 0 }
}

const fn at_least(steps: u32, entry: Entry) -> Entry {
    Entry { steps, ..entry }
}

/// Rungs in all.
const COUNT: usize = 23;

/// In the order of [`Rung`].
const TABLE: [Entry; COUNT] = {
    use Formula::{Beyond, Fixed, Patience, PatienceWithin, Share, Sum};
    use Rung::*;
    [
        derived(HeartbeatInterval, "heartbeat interval", Share(1, 4, HeartbeatTimeout)),
        derived(ReconnectPause, "reconnect pause", Share(1, 5, HeartbeatTimeout)),
        derived(ParkedPause, "parked worker's pause", Share(1, 5, ReconnectPause)),
        derived(ParkedWindow, "parked workers' window", Share(1, 2, ReconnectPause)),
        keyed(ReconnectGrace, "reconnect grace", PatienceWithin(2, 5, HeartbeatTimeout), "train.reconnect_grace_ms"),
        derived(KeepaliveInterval, "keep-alive interval", Patience(2, 5)),
        derived(KeepaliveTimeout, "keep-alive timeout", Patience(3, 5)),
        derived(StandbyKeepalive, "standby's keep-alive", Share(1, 2, StandbySilence)),
        derived(StandbySilence, "standby's silence", Patience(1, 5)),
        derived(StandbyFollow, "standby's look", Patience(2, 1)),
        derived(AdoptWindow, "adopt window", PatienceWithin(3, 5, HeartbeatTimeout)),
        keyed(HeartbeatTimeout, "heartbeat timeout", Patience(1, 1), "train.heartbeat_timeout_ms"),
        at_least(MEDIAN_STEPS, keyed(Stall, "stall", Patience(2, 1), "train.stall_ms")),
        keyed(CollectiveTimeout, "collective timeout", Patience(12, 1), "train.collective_timeout_ms"),
        at_least(MEDIAN_STEPS, derived(ReformGrace, "reform grace", Share(1, 1, CollectiveTimeout))),
        derived(FormingTimeout, "forming timeout", Beyond(CollectiveTimeout)),
        at_least(2 * MEDIAN_STEPS, derived(Reaction, "trainer's reaction", Share(2, 1, ReformGrace))),
        derived(LedgerPatience, "ledger patience", Patience(24, 1)),
        keyed(StorePatience, "store patience", Patience(60, 1), "run.store_patience_ms"),
        keyed(CoordinatorPatience, "coordinator patience", Patience(120, 1), "train.coordinator_patience_ms"),
        derived(WorkerFarewell, "a worker's farewell", Fixed(5_000)),
        derived(LastChores, "a coordinator's last chores", Fixed(10_000)),
        derived(FrontDoorFarewell, "the front door's farewell", Sum(LastChores, WorkerFarewell)),
    ]
};

/// `(shorter, whether they may be equal, longer, why)`. Every pair is checked in every run file.
pub const ORDER: [(Rung, bool, Rung, &str); 14] = {
    use Rung::*;
    const FORMING: &str = "a group that does not form says by itself what was missing, before it counts as stuck";
    const AWAY: &str = "who is away is lost at its heartbeat timeout anyway, so what is longer never applies";
    const PRESENT: &str = "workers must still be there when it is over";
    [
        (HeartbeatInterval, false, HeartbeatTimeout, "signs of life that come in time must not be missed"),
        (ParkedPause, false, ParkedWindow, "who is parked must come to a new coordinator before the others go on"),
        (ReconnectPause, false, AdoptWindow, "a worker between two attempts must come to a new coordinator in time"),
        (ReconnectGrace, true, HeartbeatTimeout, AWAY),
        (AdoptWindow, true, HeartbeatTimeout, AWAY),
        (
            HeartbeatTimeout,
            false,
            Stall,
            "a worker that is silent is lost by name, before its generation counts as hanging",
        ),
        (
            Stall,
            false,
            CollectiveTimeout,
            "the coordinator, which knows how long steps take, calls a hang before the ranks' collectives give up one by \
             one; what is longer never applies",
        ),
        (CollectiveTimeout, false, FormingTimeout, FORMING),
        (
            CollectiveTimeout,
            true,
            ReformGrace,
            "a rank may find out by its collective alone that its generation is over",
        ),
        (ReformGrace, false, Reaction, "the coordinator names a trainer that hangs before its process ends"),
        (CollectiveTimeout, false, CoordinatorPatience, PRESENT),
        (LedgerPatience, false, CoordinatorPatience, PRESENT),
        (StorePatience, false, CoordinatorPatience, PRESENT),
        (WorkerFarewell, false, FrontDoorFarewell, "children end by themselves before they are killed"),
    ]
};

impl Rung {
    /// All of them.
    pub const ALL: [Self; COUNT] = {
        let mut all = [Self::Stall; COUNT];
        let mut i = 0;
        while i < COUNT {
            all[i] = TABLE[i].rung;
            i += 1;
        }
        all
    };

    fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }

    /// As people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// The run file's key that overrides it.
    #[must_use]
    pub fn key(self) -> Option<&'static str> {
        self.entry().key
    }

    /// How it follows from others, in words.
    #[must_use]
    pub fn formula(self) -> String {
        let Entry { formula, steps, .. } = self.entry();
        let least = if *steps == 0 { String::new() } else { format!(", and at least {steps} median steps") };
        format!("{formula}{least}")
    }
}

/// `2/5 of`, `12 times`, or nothing.
fn times(f: &mut fmt::Formatter<'_>, num: u32, den: u32) -> fmt::Result {
    match (num, den) {
        (1, 1) => Ok(()),
        (num, 1) => write!(f, "{num} times "),
        (num, den) => write!(f, "{num}/{den} of "),
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PATIENCE: &str = "train.patience_ms";
        match self {
            Self::Patience(num, den) => times(f, *num, *den).and_then(|()| f.write_str(PATIENCE)),
            Self::PatienceWithin(num, den, most) => {
                times(f, *num, *den)?;
                write!(f, "{PATIENCE}, at most the {}", most.name())
            }
            Self::Share(num, den, of) => times(f, *num, *den).and_then(|()| write!(f, "the {}", of.name())),
            Self::Beyond(rung) => write!(f, "the {} and {PATIENCE}", rung.name()),
            Self::Sum(one, other) => write!(f, "{} and {}", one.name(), other.name()),
            Self::Fixed(_) => f.write_str("fixed"),
        }
    }
}

/// The rungs of one run: `ladder[Rung::Stall]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    patience: Duration,
    rungs: [Duration; COUNT],
    /// What stands in for a formula.
    set: [Option<Duration>; COUNT],
}

impl Index<Rung> for Ladder {
    type Output = Duration;

    fn index(&self, rung: Rung) -> &Duration {
        &self.rungs[rung as usize]
    }
}

impl Default for Ladder {
    /// That of a run file which says nothing of it.
    fn default() -> Self {
        Self::of_patience(Duration::from_millis(PATIENCE_MS_DEFAULT))
    }
}

impl Ladder {
    /// The ladder of a run file.
    pub(super) fn of(run: &RunSection, train: &TrainSpec) -> Self {
        let keys = [
            (Rung::ReconnectGrace, train.reconnect_grace_ms),
            (Rung::HeartbeatTimeout, train.heartbeat_timeout_ms),
            (Rung::Stall, train.stall_ms),
            (Rung::CollectiveTimeout, train.collective_timeout_ms),
            (Rung::StorePatience, run.store_patience_ms),
            (Rung::CoordinatorPatience, train.coordinator_patience_ms),
        ];
        let mut ladder = Self::of_patience(Duration::from_millis(train.patience_ms));
        for (rung, value) in keys {
            ladder.set[rung as usize] = value.map(Duration::from_millis);
        }
        ladder.derived()
    }

    /// The ladder that follows from this patience alone.
    #[must_use]
    pub fn of_patience(patience: Duration) -> Self {
        Self { patience, rungs: [Duration::ZERO; COUNT], set: [None; COUNT] }.derived()
    }

    /// The same with this rung set; what follows from it changes with it.
    #[must_use]
    pub fn with(mut self, rung: Rung, value: Duration) -> Self {
        self.set[rung as usize] = Some(value);
        self.derived()
    }

    fn derived(mut self) -> Self {
        self.rungs = Rung::ALL.map(|rung| self.value(rung));
        self
    }

    fn value(&self, rung: Rung) -> Duration {
        if let Some(set) = self.set[rung as usize] {
            return set;
        }
        match rung.entry().formula {
            Formula::Patience(num, den) => self.patience * num / den,
            Formula::PatienceWithin(num, den, most) => (self.patience * num / den).min(self.value(most)),
            Formula::Share(num, den, of) => self.value(of) * num / den,
            Formula::Beyond(rung) => self.value(rung) + self.patience,
            Formula::Sum(one, other) => self.value(one) + self.value(other),
            Formula::Fixed(millis) => Duration::from_millis(millis),
        }
    }

    /// Whether the rung is not as its formula says.
    #[must_use]
    pub fn is_set(&self, rung: Rung) -> bool {
        self.set[rung as usize].is_some()
    }

    /// The rung where steps take so long: some wait for a step to end, whatever the patience.
    #[must_use]
    pub fn measured(&self, rung: Rung, median_step: Option<Duration>) -> Duration {
        median_step.map_or(self[rung], |step| self[rung].max(step * rung.entry().steps))
    }

    /// The longest that the first step of a run may take, of which nothing is known yet.
    #[must_use]
    pub fn first_step(&self) -> Duration {
        self[Rung::FormingTimeout].max(self[Rung::Stall])
    }

    /// What is wrong with the collectives' timeout where steps take so long. It is the one rung that waits for a step and
    /// cannot grow with it: a group keeps the timeout that it was formed with, and all its ranks must have the same.
    #[must_use]
    pub fn outgrown(&self, median_step: Duration) -> Option<String> {
        let (limit, need) = (self[Rung::CollectiveTimeout], median_step * MEDIAN_STEPS);
        (need > limit).then(|| {
            format!(
                "{MEDIAN_STEPS} median steps take {} ms, and a rank that waits for others gives up after {} ms; set \
                 train.collective_timeout_ms to {} or more",
                need.as_millis(),
                limit.as_millis(),
                need.as_millis()
            )
        })
    }

    /// Every pair of rungs that stands in the wrong order, with the keys that cause it and what to do.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (shorter, may_be_equal, longer, why) in ORDER {
            let (low, high) = (self[shorter], self[longer]);
            if low < high || (may_be_equal && low == high) {
                continue;
            }
            let least = if may_be_equal { "at least" } else { "more than" };
            let message = format!(
                "the {} of {} ms ({}) must be {least} the {} of {} ms ({}): {why}; {}",
                longer.name(),
                high.as_millis(),
                self.origin(longer),
                shorter.name(),
                low.as_millis(),
                self.origin(shorter),
                self.cure(shorter, longer)
            );
            let key = [longer, shorter].into_iter().find_map(|rung| self.cause(rung));
            problems.push(Problem::new(key.unwrap_or("train.patience_ms"), message));
        }
        problems
    }

    /// The key that a rung's value comes from, its own or that of the rung it follows from; `None`: the patience.
    fn cause(&self, rung: Rung) -> Option<&'static str> {
        if self.is_set(rung) {
            return rung.key();
        }
        match rung.entry().formula {
            Formula::PatienceWithin(_, _, of) | Formula::Share(_, _, of) | Formula::Beyond(of) => self.cause(of),
            Formula::Sum(one, other) => self.cause(one).or_else(|| self.cause(other)),
            Formula::Patience(..) | Formula::Fixed(_) => None,
        }
    }

    fn cure(&self, shorter: Rung, longer: Rung) -> String {
        let raise = self.cause(longer).map(|key| format!("raise {key}"));
        let lower = self.cause(shorter).map(|key| format!("lower {key}"));
        let both: Vec<String> = [raise, lower].into_iter().flatten().collect();
        format!("{}, or leave it to follow from train.patience_ms", both.join(", "))
    }

    /// Where a rung's value comes from: its key, or its formula.
    #[must_use]
    pub fn origin(&self, rung: Rung) -> String {
        match rung.key().filter(|_| self.is_set(rung)) {
            Some(key) => format!("set by {key}"),
            None => rung.formula(),
        }
    }

    /// All rungs, the shortest first.
    #[must_use]
    pub fn sorted(&self) -> Vec<Rung> {
        let mut rungs = Rung::ALL;
        rungs.sort_by_key(|&rung| self[rung]);
        rungs.to_vec()
    }
}

impl fmt::Display for Ladder {
    /// A line for each rung, the shortest first: milliseconds, name, where that comes from, the key that overrides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rung in self.sorted() {
            let (ms, name, origin) = (self[rung].as_millis(), rung.name(), self.origin(rung));
            write!(f, "{ms:>9} ms  {name:<28}{origin}")?;
            match rung.key().filter(|_| !self.is_set(rung)) {
                Some(key) => writeln!(f, " [{key}]")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
