//! Everything that can happen to a run and everything that it can ask for, on one screen each.

use super::deal::Roster;
use super::messages::{Join, Order, Outcome, Report, StepReport};
use crate::commit::PartEntry;
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::ledger::Record;
use crate::spec::Ladder;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Time since the machine was made; the shell's clock, or a test's.
pub type Now = Duration;

/// A checkpoint to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Steps done.
    pub step: Step,
    /// Key of its manifest.
    pub key: String,
}

/// What a run is told once.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// Members to wait for before the first generation.
    pub expect: u32,
    /// Once somebody is there, wait no longer than this for the others.
    pub join_window: Duration,
    /// Fewer members do not train.
    pub min_workers: u32,
    /// More members than this do not train; the rest stands by.
    pub max_workers: u32,
    /// Micro-batches of a step: no more members than these can train.
    pub lanes: u32,
    /// Samples in a step.
    pub global_batch: u32,
    /// Steps in all.
    pub steps: u64,
    /// Members that can take part wait so long for others before a generation is ended for them.
    pub join_batch: Duration,
    /// How long everything else is waited for.
    pub ladder: Ladder,
    /// Generations in a row without a committed step, after which the run is at fault.
    pub fruitless_max: u32,
    /// Members that may wait or train at once.
    pub members_max: u32,
    /// The first generation that was never used.
    pub first_generation: Generation,
    /// The newest good checkpoint.
    pub resume: Option<Resume>,
    /// The first step that the ledger does not hold.
    pub recorded: Step,
    /// The generation that stood when an earlier leader fell silent.
    pub adopted: Option<Adopted>,
}

/// A generation that an earlier leader formed; it may well be training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Its number.
    pub generation: Generation,
    /// Its members, by rank.
    pub members: Vec<MemberId>,
    /// The step that it ran first.
    pub start_step: Step,
    /// Generations that were prepared while it trained, by number: its ranks may have gone over into one of them.
    pub prepared: BTreeMap<Generation, Roster>,
}

/// How a loss was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LossCause {
    /// Its session ended.
    StreamClosed {
        /// The transport's words.
        how: String,
    },
    /// Nothing was heard of it.
    HeartbeatMissed {
        /// For how long.
        silent: Duration,
    },
    /// Its parent process saw it exit.
    Exited {
        /// Signal or exit code.
        how: String,
    },
    /// Others left the generation, this one did not say anything.
    SilentAfterFailure {
        /// What the others met.
        failure: String,
    },
    /// It said that it gives up.
    Fault {
        /// Its own words.
        message: String,
    },
}

impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StreamClosed { how } => write!(f, "its session ended: {how}"),
            Self::HeartbeatMissed { silent } => write!(f, "no sign of life for {} ms", silent.as_millis()),
            Self::Exited { how } => write!(f, "its process ended: {how}"),
            Self::SilentAfterFailure { failure } => {
                write!(f, "it did not leave the generation after the others did ({failure})")
            }
            Self::Fault { message } => write!(f, "it gave up: {message}"),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// A worker opened a session; the shell gave it a number.
    Joined {
        /// Its number, never used before.
        member: MemberId,
        /// What it said.
        join: Join,
    },
    /// A member said something.
    Reported {
        /// Who.
        member: MemberId,
        /// What.
        report: Report,
    },
    /// A member is gone.
    Lost {
        /// Who.
        member: MemberId,
        /// How it was noticed.
        cause: LossCause,
    },
    /// A member's session broke; it may come back.
    Disconnected {
        /// Who.
        member: MemberId,
        /// The transport's words.
        how: String,
    },
    /// The record of this generation, and all before it, are in the store ([`RunEffect::Claim`]).
    Claimed {
        /// Which.
        generation: Generation,
    },
    /// The records of all steps up to this one are in the store.
    Recorded {
        /// Which step.
        through: Step,
    },
    /// A worker's process ended: it is not waited for, whether it had joined or not.
    WillNotJoin,
    /// Finish the step in flight, checkpoint, stop.
    Drain,
    /// Stop now, without a checkpoint.
    Stop {
        /// Why.
        message: String,
    },
    /// The manifest that [`RunEffect::StoreManifest`] asked for exists.
    ManifestStored {
        /// The membership that wrote the parts.
        generation: Generation,
        /// Steps done.
        step: Step,
        /// Its key.
        key: String,
    },
    /// It does not.
    ManifestFailed {
        /// The membership that wrote the parts.
        generation: Generation,
        /// Steps done.
        step: Step,
        /// The store's words.
        message: String,
    },
    /// [`super::Run::deadline`] has come.
    Tick,
}

/// Why something that a worker said is not acted upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The run is over.
    Over {
        /// How it ended.
        outcome: Outcome,
    },
    /// Enough members are there.
    Full {
        /// How many.
        members: u64,
    },
    /// The message belongs to another generation.
    StaleGeneration {
        /// The message's.
        got: Generation,
        /// The run's.
        current: Generation,
    },
    /// The sender is no member.
    Unknown,
    /// The message makes no sense where the run stands.
    OutOfPlace,
    /// A step that is not the sender's next one.
    OutOfOrder {
        /// The step that the run expects of it.
        expected: Option<Step>,
        /// The step that it names.
        got: Step,
    },
}

impl Refusal {
    /// Whether the sender's session ends with it: there is no place for the worker, or it must join anew. A report that
    /// was under way when its generation ended is ordinary, and only not heard.
    #[must_use]
    pub fn ends_session(&self) -> bool {
        match self {
            Self::Over { .. } | Self::Full { .. } | Self::Unknown => true,
            Self::StaleGeneration { .. } | Self::OutOfPlace | Self::OutOfOrder { .. } => false,
        }
    }
}

/// Something that people want to see.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The phase, generation or membership changed.
    State,
    /// A step is committed.
    Step {
        /// As the first rank saw it.
        report: StepReport,
        /// Ranks.
        world: u32,
    },
    /// A checkpoint exists.
    Checkpoint {
        /// Steps done.
        step: Step,
        /// Its manifest.
        key: String,
    },
    /// A checkpoint was given up; the run goes on.
    CheckpointFailed {
        /// Steps done.
        step: Step,
        /// The store's words.
        message: String,
    },
    /// A member is gone.
    Loss {
        /// Who.
        member: MemberId,
        /// Its name.
        name: String,
        /// Its process.
        pid: u32,
        /// The membership at that time.
        generation: Generation,
        /// Its rank there, if it took part.
        rank: Option<Rank>,
        /// How it was noticed.
        cause: LossCause,
    },
    /// A member left by its own wish, and cost no step.
    Left {
        /// Who.
        member: MemberId,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A member is slower than the others, step after step.
    Straggler {
        /// Who.
        member: MemberId,
        /// Its name.
        name: String,
        /// Its own time a step, against the median of the others.
        ratio: f64,
    },
    /// A member's weights differ from the others'; it takes theirs at the next forming.
    Diverged {
        /// Who.
        member: MemberId,
        /// Its name.
        name: String,
        /// Its rank, if it has one.
        rank: Option<Rank>,
        /// Steps done.
        step: Step,
    },
}

/// What must now be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEffect {
    /// Greet a new member: the shell adds the run file and the dataset's digest.
    Welcome {
        /// Who.
        member: MemberId,
    },
    /// Send an order.
    Send {
        /// To whom.
        member: MemberId,
        /// What.
        order: Order,
    },
    /// End a session.
    Close {
        /// Whose.
        member: MemberId,
    },
    /// Answer or log that a message was not acted upon. [`Refusal::Over`] and [`Refusal::Full`] end the session.
    Refuse {
        /// Whose message.
        member: MemberId,
        /// Why.
        refusal: Refusal,
    },
    /// Write a record.
    Ledger(Record),
    /// Make all records so far durable, then say [`RunEvent::Claimed`]. No member hears of the generation before.
    Claim {
        /// Which.
        generation: Generation,
    },
    /// Make all records so far durable, then create a manifest, then say so.
    StoreManifest {
        /// The membership that wrote the parts.
        generation: Generation,
        /// Steps done.
        step: Step,
        /// All parts, by rank.
        parts: Vec<PartEntry>,
    },
    /// Tell whoever watches.
    Announce(Notice),
    /// The run is over: make the ledger durable and end.
    Finish {
        /// How.
        outcome: Outcome,
        /// The first cause of a fault, else empty.
        message: String,
    },
}
