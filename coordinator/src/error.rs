//! Why a coordinator cannot start or go on, by what a person does about it.

use pixfleet_checkpoint::{CheckpointError, LedgerError};
use pixfleet_cluster::Class;
use pixfleet_proto::FleetError;
use std::net::SocketAddr;

/// What ends a coordinator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoordinatorError {
    /// Another program listens there.
    #[error("{address} is taken by another program; give another port with --listen, or port 0 for any free one")]
    PortTaken {
        /// Where it was to listen.
        address: SocketAddr,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// An address that others can reach, without any proof of who they are.
    #[error(
        "{address} can be reached from other machines and there is no token yet; listen on 127.0.0.1, or say --insecure \
         on a network that you trust"
    )]
    NotLoopback {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The dataset has no index.
    #[error("the dataset at {url} has no index; run `pixfleet shards index {url}`")]
    NoIndex {
        /// The dataset.
        url: String,
    },
    /// The index is not what this version reads.
    #[error("{url}/{path} is not a dataset index; run `pixfleet shards index {url}` again")]
    BadIndex {
        /// The dataset.
        url: String,
        /// The object.
        path: String,
        /// The parser's words.
        #[source]
        source: serde_json::Error,
    },
    /// The index has no such split.
    #[error("the dataset at {url} has no split `{split}`; it has {has}")]
    NoSplit {
        /// The dataset.
        url: String,
        /// What `data.split` says.
        split: String,
        /// The splits that are there.
        has: String,
    },
    /// The split has no rows.
    #[error("split `{split}` of the dataset at {url} has no rows")]
    EmptySplit {
        /// The dataset.
        url: String,
        /// What `data.split` says.
        split: String,
    },
    /// A store that does not let us.
    #[error(
        "no permission to {verb} {url}; give this user (or the AWS_* credentials) the right to read and write there"
    )]
    Permission {
        /// `read` or `write`.
        verb: &'static str,
        /// The object's or folder's URL.
        url: String,
        /// The store's words.
        #[source]
        source: object_store::Error,
    },
    /// A store that fails otherwise.
    #[error("cannot {verb} {url}")]
    Store {
        /// `read` or `write`.
        verb: &'static str,
        /// The object's or folder's URL.
        url: String,
        /// The store's words.
        #[source]
        source: object_store::Error,
    },
    /// Checkpoints cannot be looked for or committed.
    #[error("cannot read the run's checkpoints")]
    Checkpoint(#[source] CheckpointError),
    /// `--fresh` on a run that exists.
    #[error(
        "run `{run}` exists already in {store}; leave out --fresh to go on with it, or give a new name with \
         --set run.name=..."
    )]
    RunExists {
        /// The run's name.
        run: String,
        /// Where.
        store: String,
    },
    /// The run was started with another run file.
    #[error(
        "run `{run}` was started with another run file; these differ: {keys}; give a new name with --set run.name=..., \
         or the values it was started with"
    )]
    OtherSpec {
        /// The run's name.
        run: String,
        /// `key (then, now)`, comma-separated.
        keys: String,
    },
    /// The run was started on another version of the dataset.
    #[error(
        "run `{run}` was started on dataset version {then}, the index now says {now}; give a new name with \
         --set run.name=..., or restore the dataset"
    )]
    OtherDataset {
        /// The run's name.
        run: String,
        /// In the ledger.
        then: String,
        /// In the index.
        now: String,
    },
    /// A ledger with a hole or with a line that is no record.
    #[error("the run's ledger cannot be read")]
    Ledger(#[source] LedgerError),
    /// Another coordinator took the run over.
    #[error(
        "another coordinator leads the run now: {by}; this one, leader {number}, has ended and writes nothing more"
    )]
    Deposed {
        /// The number of this one.
        number: u64,
        /// Who leads, and where.
        by: String,
    },
    /// Others were always quicker.
    #[error("run `{run}` was opened {times} times and another coordinator always wrote first; see who else runs it")]
    Contended {
        /// The run's name.
        run: String,
        /// How often.
        times: u32,
    },
    /// The store does not take the ledger.
    #[error("the run's ledger cannot be written: {cause}")]
    Unwritable {
        /// The store's words.
        cause: String,
    },
    /// The page for Prometheus broke.
    #[error("the metrics page cannot be served")]
    Metrics(#[source] std::io::Error),
    /// The server broke.
    #[error("the gRPC server failed")]
    Serve(#[source] tonic::transport::Error),
    /// A fault on purpose that is none.
    #[error("{words}")]
    Fault {
        /// What was said, and what was expected.
        words: String,
    },
    /// A task of the coordinator ended unexpectedly.
    #[error("the coordinator's {task} ended unexpectedly")]
    Internal {
        /// Which.
        task: &'static str,
    },
}

impl CoordinatorError {
    /// The caller's next move.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Store { .. }
            | Self::Contended { .. }
            | Self::Unwritable { .. }
            | Self::Metrics(_)
            | Self::Serve(_) => Class::Retry,
            Self::Checkpoint(error) => error.class(),
            Self::Ledger(error) => error.class(),
            Self::PortTaken { .. }
            | Self::Listen { .. }
            | Self::NotLoopback { .. }
            | Self::NoIndex { .. }
            | Self::BadIndex { .. }
            | Self::NoSplit { .. }
            | Self::EmptySplit { .. }
            | Self::Permission { .. }
            | Self::RunExists { .. }
            | Self::OtherSpec { .. }
            | Self::OtherDataset { .. }
            | Self::Deposed { .. }
            | Self::Fault { .. }
            | Self::Internal { .. } => Class::Fatal,
        }
    }

    /// The exit code of a process that ends with this error: 3 if the run goes on under another coordinator.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Deposed { .. }) { 3 } else { 1 }
    }

    /// A store's error about `url`, sorted by whether a person must grant something.
    pub(crate) fn store(verb: &'static str, url: String, source: object_store::Error) -> Self {
        if is_permission(&source) { Self::Permission { verb, url, source } } else { Self::Store { verb, url, source } }
    }

    /// As it stands in one line, causes included.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// Whether the store says no: by its own variant, or by the system's error below a generic one.
fn is_permission(error: &object_store::Error) -> bool {
    use object_store::Error;
    if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) {
        return true;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(io) = e.downcast_ref::<std::io::Error>() {
            let kind = io.kind();
            return matches!(kind, std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem);
        }
        cause = e.source();
    }
    false
}

impl From<&CoordinatorError> for FleetError {
    fn from(error: &CoordinatorError) -> Self {
        Self::Store { object: "the run".into(), cause: error.sentence(), retry: error.class() == Class::Retry }
    }
}
