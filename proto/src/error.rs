//! Errors that keep their type to the end of the wire: the whole enum travels as JSON in binary metadata, so a client
//! matches on a variant and never on a sentence.

use pixfleet_cluster::{Class, Generation, MemberId};
use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

const KEY: &str = "pixfleet-error-bin";

/// What the control plane answers instead of a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
pub enum FleetError {
    /// No coordinator at the address, after all retries.
    #[error("no coordinator answers at {address}: {cause}")]
    NoCoordinator {
        /// Where it was looked for.
        address: String,
        /// What the last attempt met.
        cause: String,
    },
    /// The connection broke.
    #[error("the connection to the coordinator broke: {cause}")]
    Disconnected {
        /// What broke it.
        cause: String,
    },
    /// The coordinator is there and cannot answer this yet.
    #[error("the coordinator is not ready: {what}")]
    NotReady {
        /// What it waits for.
        what: String,
    },
    /// Of a generation that is over or was never formed.
    #[error("generation {got} is over; the run is at generation {current}")]
    StaleGeneration {
        /// The message's generation.
        got: Generation,
        /// The run's generation.
        current: Generation,
    },
    /// A key of the rendezvous store did not appear in time.
    #[error("key `{key}` of generation {generation} did not appear within {waited_ms} ms")]
    KeyTimeout {
        /// Whose store.
        generation: Generation,
        /// The key that is missing.
        key: String,
        /// How long was waited.
        waited_ms: u64,
    },
    /// A key or value beyond its bound, or a store that is full.
    #[error("{what} has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The run in the store was started with another run file.
    #[error(
        "run `{run}` was started with another run file ({stored} differs from {given}); choose another name \
         (--set run.name=...) or give the file it was started with"
    )]
    SpecMismatch {
        /// The run.
        run: String,
        /// Digest in the store.
        stored: String,
        /// Digest of what was given.
        given: String,
    },
    /// The run is over.
    #[error("the run is over: {how}")]
    RunOver {
        /// How it ended.
        how: String,
    },
    /// More members than the run can use are waiting already.
    #[error("the run has {members} members and can use no more than {members_max}")]
    RunFull {
        /// Members present.
        members: u64,
        /// Bound.
        members_max: u64,
    },
    /// A message from or about a member that is not (or no longer) part of the run: it must join anew.
    #[error("member {member} is not part of the run")]
    UnknownMember {
        /// Which.
        member: MemberId,
    },
    /// A message that does not follow the protocol.
    #[error("malformed message: {field}: {problem}")]
    Malformed {
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The run's store failed.
    #[error("the run's store failed at {object}: {cause}")]
    Store {
        /// Which object.
        object: String,
        /// The store's own words.
        cause: String,
        /// Whether trying again may help.
        retry: bool,
    },
    /// An answer without a typed error: another program at the address, or a proxy.
    #[error("unexpected answer from the coordinator ({code}): {message}")]
    Foreign {
        /// gRPC status code, by name.
        code: String,
        /// Its message.
        message: String,
    },
}

/// A message that lacks a field or holds a value that its type does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    /// Path of the field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl From<Malformed> for FleetError {
    fn from(m: Malformed) -> Self {
        Self::Malformed { field: m.field.into(), problem: m.problem.into() }
    }
}

impl FleetError {
    /// The caller's next move.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Disconnected { .. } | Self::NotReady { .. } | Self::UnknownMember { .. } => Class::Retry,
            Self::Store { retry, .. } => {
                if *retry {
                    Class::Retry
                } else {
                    Class::Fatal
                }
            }
            Self::StaleGeneration { .. } | Self::KeyTimeout { .. } => Class::Reform,
            Self::NoCoordinator { .. }
            | Self::TooLarge { .. }
            | Self::SpecMismatch { .. }
            | Self::RunOver { .. }
            | Self::RunFull { .. }
            | Self::Malformed { .. }
            | Self::Foreign { .. } => Class::Fatal,
        }
    }

    /// The gRPC code that comes nearest, for tools that know no more.
    fn code(&self) -> Code {
        match self {
            Self::NoCoordinator { .. } | Self::Disconnected { .. } | Self::NotReady { .. } => Code::Unavailable,
            Self::StaleGeneration { .. } | Self::RunOver { .. } => Code::FailedPrecondition,
            Self::KeyTimeout { .. } => Code::DeadlineExceeded,
            Self::TooLarge { .. } | Self::RunFull { .. } => Code::ResourceExhausted,
            Self::SpecMismatch { .. } | Self::Malformed { .. } => Code::InvalidArgument,
            Self::UnknownMember { .. } => Code::NotFound,
            Self::Store { .. } => Code::Internal,
            Self::Foreign { .. } => Code::Unknown,
        }
    }
}

impl From<FleetError> for Status {
    fn from(error: FleetError) -> Self {
        let mut status = Status::new(error.code(), error.to_string());
        let json = serde_json::to_vec(&error).expect("the enum has only JSON types");
        status.metadata_mut().insert_bin(KEY, MetadataValue::from_bytes(&json));
        status
    }
}

impl From<Status> for FleetError {
    fn from(status: Status) -> Self {
        let typed = status
            .metadata()
            .get_bin(KEY)
            .and_then(|v| v.to_bytes().ok())
            .and_then(|json| serde_json::from_slice(&json).ok());
        typed.unwrap_or_else(|| match status.code() {
            Code::Unavailable | Code::Cancelled | Code::Aborted => {
                Self::Disconnected { cause: status.message().to_string() }
            }
            // tonic reports a reset stream as Unknown with a transport error as its source.
            _ if std::error::Error::source(&status).is_some() => {
                Self::Disconnected { cause: status.message().to_string() }
            }
            code => Self::Foreign { code: format!("{code:?}"), message: status.message().to_string() },
        })
    }
}
