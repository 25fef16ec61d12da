//! Why training stopped, by what the trainer does about it: wait for the next generation, or say what is wrong and
//! leave.

use pixfleet_checkpoint::CheckpointError;
use pixfleet_cluster::Class;
use pixfleet_collective::CollectiveError;
use pixfleet_model::ModelError;
use pixfleet_proto::FleetError;

use super::feed::FeedError;

/// An error of the training process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrainError {
    /// A collective failed, or the group did not form.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// Towers, losses or optimizer refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The checkpoint could not be written or read.
    #[error("checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// The coordinator refused or is gone.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The samples of a step could not be had.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// Another run that is not there, or not so far.
    #[error(
        "model.weights: {at} holds no such checkpoint; expected a run that has written one, as <store>/<name> or run:<name>, with @<step> for one of its steps, or a .safetensors file"
    )]
    NoCheckpoint {
        /// As the run file names it.
        at: String,
    },
    /// The tokenizer of the run file.
    #[error("data.tokenizer")]
    Tokenizer(#[source] pixfleet_shards::tokens::TokenizerError),
    /// libtorch refused a copy between host and device.
    #[error("libtorch refused {doing}")]
    Torch {
        /// What.
        doing: &'static str,
        /// Its own words.
        source: tch::TchError,
    },
    /// The device does not do what training asks of it.
    #[error("cannot compute on {device}")]
    Device {
        /// As `--device` has it.
        device: String,
        /// libtorch's own words.
        source: pixfleet_shim::Failure,
    },
    /// `train.reduce = "exact"` cannot keep its promise here.
    #[error(
        "train.reduce = \"exact\" needs deterministic kernels, and libtorch has none for {operation} on this device; \
         train on CPUs, or with train.reduce = \"fast\""
    )]
    NotDeterministic {
        /// Which.
        operation: String,
        /// As it was met.
        source: Box<TrainError>,
    },
    /// A checkpoint of another model.
    #[error(
        "the checkpoint's `{name}` is {found}, the model's is {expected}; was the run started with another [model]?"
    )]
    State {
        /// The tensor.
        name: String,
        /// As the model has it.
        expected: String,
        /// As the checkpoint has it.
        found: String,
    },
    /// The run file that the coordinator sent.
    #[error(transparent)]
    Spec(pixfleet_cluster::spec::SpecError),
    /// The run file does not hash to what the coordinator says: two versions of pixfleet.
    #[error(
        "the run file hashes to {found}, the coordinator says {expected}: worker and coordinator are of different versions"
    )]
    SpecDigest {
        /// As this program computes it.
        found: String,
        /// As the coordinator says.
        expected: String,
    },
    /// The dataset was indexed anew since the run started.
    #[error("the dataset is version {found}, the run trains on {expected}; the dataset was indexed again meanwhile")]
    Dataset {
        /// Of the run.
        expected: String,
        /// Of the index.
        found: String,
    },
    /// Nothing to train on.
    #[error("split `{split}` has no rows")]
    NoRows {
        /// Which.
        split: String,
    },
    /// `model.weights` cannot be read.
    #[error("model.weights: cannot read {at}")]
    Weights {
        /// URL or path.
        at: String,
        /// The store's or the system's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The decoding threads do not start.
    #[error("cannot start the decoding threads")]
    Threads(#[source] rayon::ThreadPoolBuildError),
    /// A fault for tests that cannot be planned.
    #[error(transparent)]
    Fault(#[from] super::fault::BadFault),
    /// A variable of the environment that cannot be read.
    #[error("{name}={value}: expected {expected}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The coordinator's order and what this rank holds contradict each other.
    #[error("ordered to start at step {ordered}, but this rank holds the state of step {held}")]
    OutOfStep {
        /// The order's step.
        ordered: u64,
        /// This rank's.
        held: u64,
    },
    /// More ranks than lanes.
    #[error("{world} workers, but train.lanes = {lanes}: a worker hosts at least one lane")]
    TooManyRanks {
        /// Ranks of the generation.
        world: u32,
        /// Lanes of the run.
        lanes: u32,
    },
    /// The background upload of a part was cancelled: the runtime is shutting down.
    #[error("the upload of a checkpoint's part was cancelled")]
    UploadCancelled(#[source] tokio::task::JoinError),
    /// The control side of this process is gone.
    #[error("the control side of this worker ended")]
    Dismissed,
    /// The trainer thread does not start.
    #[error("cannot start the trainer thread")]
    Thread(#[source] std::io::Error),
    /// The trainer thread panicked; its own words are in the log.
    #[error("the trainer thread panicked")]
    Panicked,
    /// The trainer cannot be got out of a generation that is over.
    #[error("the trainer hangs: its generation was over {} ms ago, and it has not left it", after.as_millis())]
    Hangs {
        /// How long it was waited for.
        after: std::time::Duration,
    },
    /// SIGTERM could not be noticed.
    #[error("cannot handle signals")]
    Signals(#[source] std::io::Error),
    /// A file beside the run could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
}

impl TrainError {
    /// What the trainer does about it.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Collective(e) => e.class(),
            Self::Model(e) => e.class(),
            Self::Tokenizer(_) | Self::NoCheckpoint { .. } => Class::Fatal,
            Self::Checkpoint(e) => e.class(),
            Self::Fleet(e) => e.class(),
            Self::Feed(e) => e.class(),
            Self::Torch { .. }
            | Self::Device { .. }
            | Self::NotDeterministic { .. }
            | Self::State { .. }
            | Self::Spec(_)
            | Self::SpecDigest { .. }
            | Self::Dataset { .. }
            | Self::NoRows { .. }
            | Self::Weights { .. }
            | Self::Threads(_)
            | Self::Fault(_)
            | Self::Variable { .. }
            | Self::OutOfStep { .. }
            | Self::TooManyRanks { .. }
            | Self::UploadCancelled(_)
            | Self::Dismissed
            | Self::Thread(_)
            | Self::Panicked
            | Self::Hangs { .. }
            | Self::Signals(_)
            | Self::File { .. } => Class::Fatal,
        }
    }

    /// Whether the generation is over and the next one may do better. A collective whose store is away counts: the
    /// coordinator that answers the store also forms generations.
    pub(crate) fn ends_only_the_generation(&self) -> bool {
        let of_a_collective = matches!(self, Self::Collective(_));
        if of_a_collective { self.class() != Class::Fatal } else { self.class() == Class::Reform }
    }

    /// The chain of causes in one line.
    pub(crate) fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            let words = next.to_string();
            // Transparent variants repeat their source's words.
            if !text.ends_with(&words) {
                text = format!("{text}: {words}");
            }
            cause = next.source();
        }
        text
    }
}
