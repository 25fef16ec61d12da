//! What workers report and what the coordinator orders: the vocabulary of the run machine, free of any wire format.
//!
//! A step's number counts from 0. `next_step` is the step to run next, which is the number of steps done.

use crate::commit::PartEntry;
use crate::evidence::Evidence;
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::ledger::{Losses, Substitution};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Where the ranks of a generation find each other: a store of keys at its rank 0, and what it asks of whoever comes.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MeetingPoint {
    /// `host:port`.
    pub address: String,
    /// Told to members alone, with their order.
    pub secret: String,
}

impl fmt::Debug for MeetingPoint {
    /// Without the secret: machines are printed into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeetingPoint").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The first thing a worker says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Join {
    /// A name for people, `worker-0`.
    pub name: String,
    /// The machine it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// The number that it was given before, by this leader or by an earlier one; `None`: it is new.
    pub member: Option<MemberId>,
    /// Where a generation meets whose rank 0 it is.
    pub meets_at: MeetingPoint,
}

/// Where a worker stands. Said once it can take part, and again, after everything that it still owes, to whoever it
/// reconnects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In no generation; model and data are open, so that it can train at once.
    Free {
        /// The state that it holds.
        next_step: Option<Step>,
        /// Digest of that state.
        digest: Option<u64>,
    },
    /// Its group is being formed, or it takes over state.
    Forming {
        /// Which membership.
        generation: Generation,
    },
    /// It trains.
    Training {
        /// Which membership.
        generation: Generation,
        /// The step that it runs now.
        next_step: Step,
    },
    /// All its steps are done and its part is in the store.
    Finished {
        /// Which membership.
        generation: Generation,
        /// Steps done.
        next_step: Step,
    },
}

/// One optimizer step, as a rank saw it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepReport {
    /// The membership that ran it.
    pub generation: Generation,
    /// Which step.
    pub step: Step,
    /// Losses of the global batch: every rank reports the same.
    pub losses: Losses,
    /// Learning rate of the vision tower's last layer.
    pub lr: f64,
    /// Samples of the global batch.
    pub samples: u64,
    /// From the end of the last step to the end of this one.
    pub seconds: f64,
    /// Of these, waiting for the feed.
    pub data_wait_s: f64,
    /// Of these, waiting in collectives.
    pub collective_wait_s: f64,
    /// Bad rows that were replaced, among this rank's own rows.
    pub substitutions: Vec<Substitution>,
    /// What the global batch was fed: the sum over all ranks, which every rank knows when it commits.
    pub evidence: Option<Evidence>,
    /// Digest of parameters and moments after the step, every so many steps: the same on every rank.
    pub digest: Option<u64>,
    /// `grad_norm`, `logit_scale`, accuracies: whatever is worth a curve. `forward_s`, `exchange_s`, `backward_s` and
    /// `optimizer_s` are seconds of the step's parts, `gather_s` and `reduce_wait_s` those of waiting for other ranks' features
    /// and gradients; `reduce_bytes` are the bytes that this rank sent to others to sum the gradients.
    pub metrics: BTreeMap<String, f64>,
}

/// Why a worker is out of its generation while it lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveKind {
    /// All ranks left after the same step, for a prepared generation in which this one has no part.
    Boundary {
        /// Which.
        next: Generation,
    },
    /// A collective failed or timed out.
    Collective,
    /// The coordinator said [`Order::Abort`].
    Aborted,
}

/// A worker is out of its generation and waits for the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The generation that it left.
    pub generation: Generation,
    /// `None`: its state is torn (a broadcast broke off half-way) and must be received anew.
    pub next_step: Option<Step>,
    /// Digest of the state that it holds.
    pub digest: Option<u64>,
    /// Why.
    pub kind: LeaveKind,
    /// The error's own words.
    pub message: String,
    /// The peer that the collective's error names.
    pub lost_rank: Option<Rank>,
}

/// A rank has gone over into a prepared generation: by itself with all others, or as one that joined there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switched {
    /// Which.
    pub generation: Generation,
    /// The step that it begins with, as its ranks agreed.
    pub start_step: Step,
    /// Digest of the state that the rank brings along; of one that joins there is none.
    pub digest: Option<u64>,
}

/// One rank's share of a checkpoint lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReport {
    /// The membership that wrote it.
    pub generation: Generation,
    /// Steps done.
    pub step: Step,
    /// What lies there.
    pub entry: PartEntry,
}

/// Worker -> coordinator.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// First on every session.
    Join(Join),
    /// It can take part, or goes on where it was.
    Standing(Standing),
    /// A sign of life.
    Heartbeat {
        /// The step it would run next, if it holds state.
        next_step: Option<Step>,
    },
    /// The group stands and the state is in place.
    Ready {
        /// Which membership.
        generation: Generation,
        /// The step it runs now.
        next_step: Step,
    },
    /// The optimizer has run.
    Committed(StepReport),
    /// Out of the generation, waiting for the next.
    Left(Left),
    /// In the next one.
    Switched(Switched),
    /// Wants to go (SIGTERM, spot notice): asks for the step in flight to be its last.
    Leaving {
        /// Why.
        reason: String,
    },
    /// A share of a checkpoint is in the store.
    Part(PartReport),
    /// All steps (or the drain) are done and the own part has been reported; waits for [`Order::Stop`], and still
    /// answers [`Order::Abort`].
    Finished {
        /// Which membership.
        generation: Generation,
        /// Steps done.
        next_step: Step,
    },
    /// About to exit for a reason that no other generation mends.
    Fault {
        /// The cause, in one sentence.
        message: String,
    },
}

/// One rank's place in a new generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// The new membership.
    pub generation: Generation,
    /// The receiver's rank.
    pub rank: Rank,
    /// Members, by rank; its length is the world size. One list for all who are told.
    pub members: Arc<[MemberId]>,
    /// Where they meet: at rank 0.
    pub meets_at: MeetingPoint,
    /// The step to run first. `None`: it is prepared, and begins with the step after which its ranks leave the one before;
    /// rank 0 says where they meet which that is.
    pub start_step: Option<Step>,
    /// The rank that broadcasts its state; `None`: nobody holds any.
    pub source: Option<Rank>,
    /// Ranks that need the source's state. If empty, nothing is broadcast; otherwise *every* rank takes part in the
    /// broadcast.
    pub receivers: Arc<[Rank]>,
    /// Without a source: the manifest (key below `<store>/<run>/`) that every rank loads. `None`: initial weights.
    pub resume_from: Option<String>,
    /// Checkpoint at `start_step` and finish.
    pub checkpoint_only: bool,
}

impl Form {
    /// Ranks in the generation.
    #[must_use]
    pub fn world(&self) -> u32 {
        u32::try_from(self.members.len()).expect("at most as many members as lanes, which are u32")
    }

    /// Whether the receiver of this order must take over the source's state.
    #[must_use]
    pub fn needs_state(&self) -> bool {
        self.receivers.contains(&self.rank)
    }
}

/// The order of a generation that its ranks will go over into by themselves, after the step at which all of them hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The membership that trains.
    pub from: Generation,
    /// The one that it goes over into.
    pub generation: Generation,
    /// The receiver's place there; `None`: it has none, and leaves.
    pub form: Option<Form>,
}

/// The prepared generation that the ranks of one go over into after this step, given what each of them holds: only the one
/// that all hold. Whoever leaves on less leaves ranks behind that nobody may ever tell where to go.
#[must_use]
pub fn agreed(held: impl IntoIterator<Item = Option<Generation>>) -> Option<Generation> {
    let mut held = held.into_iter();
    let first = held.next()??;
    held.all(|other| other == Some(first)).then_some(first)
}

/// What a worker is told when it has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Its number from now on.
    pub member: MemberId,
    /// Which leader of the run speaks; a lower one than any seen before is not obeyed.
    pub leader: u64,
    /// The run's name.
    pub run: String,
    /// The whole checked run file.
    pub spec_toml: String,
    /// [`crate::RunSpec::digest`] of it.
    pub spec_digest: String,
    /// The dataset version that the run trains on.
    pub dataset_digest: String,
    /// Send a report at least this often.
    pub heartbeat_ms: u64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done and checkpointed. Exit code 0.
    Done,
    /// Drained and checkpointed; wants to be started again. Exit code 75.
    Drained,
    /// Anything else.
    Fault,
}

impl Outcome {
    /// The exit code of a process that ends with this outcome (75 is sysexits' EX_TEMPFAIL: requeue me).
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Drained => 75,
            Self::Fault => 1,
        }
    }

    /// As ledger, store and people call it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Drained => "drained",
            Self::Fault => "fault",
        }
    }

    /// The outcome of that [`Self::word`].
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Done, Self::Drained, Self::Fault].into_iter().find(|outcome| outcome.word() == word)
    }
}

/// Coordinator -> worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Answer to [`Report::Join`].
    Welcome(Welcome),
    /// A new generation; answered by [`Report::Ready`] or [`Report::Left`]. One that is prepared is answered at once, by where
    /// the worker stands.
    Form(Form),
    /// To those who train: hold this, and go over when all do.
    Prepare(Prepared),
    /// Hold it no more, and do not go over if that is not agreed upon yet.
    Withdraw {
        /// Which prepared generation.
        generation: Generation,
    },
    /// This generation, and all before it, are over: abort its collectives and answer [`Report::Left`].
    Abort {
        /// Which membership is over.
        generation: Generation,
        /// Why, for logs.
        cause: String,
    },
    /// Finish the step in flight, checkpoint, and answer [`Report::Finished`]. The ranks agree on the step among themselves.
    Yield {
        /// Which membership.
        generation: Generation,
    },
    /// The records of all steps up to this one are in the store: their reports need not be kept.
    Recorded {
        /// Which step.
        through: Step,
    },
    /// A checkpoint is committed.
    Checkpointed {
        /// The membership that wrote it.
        generation: Generation,
        /// Steps done.
        step: Step,
        /// Key of its manifest below `<store>/<run>/`.
        key: String,
    },
    /// The run is over for this worker: exit with the outcome's code.
    Stop {
        /// How.
        outcome: Outcome,
        /// The first cause of a fault, else empty.
        message: String,
    },
}
