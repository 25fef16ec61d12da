//! What can go wrong between ranks, by what the caller does next.
//!
//! Invariant: every C++ exception becomes one of these; a lost peer, a time-out and an abort end the generation
//! ([`Class::Reform`]), and the text of the exception stays readable as the error's source.

use std::time::Duration;

use pixfleet_cluster::fault::Class;
use pixfleet_shim::{Failure, WITHOUT_NCCL};

/// Why a rendezvous store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The keys did not appear in time: a peer never came.
    #[error("waited {} ms for {keys} in the rendezvous store: a peer did not come", after.as_millis())]
    Timeout {
        /// The keys, comma-separated.
        keys: String,
        /// How long the call waited.
        after: Duration,
    },
    /// The store refuses this generation: a newer one is being formed.
    #[error("the rendezvous store is closed to this generation")]
    Closed,
    /// The store was asked something it does not know, or answered nonsense.
    #[error("the rendezvous store cannot {what}")]
    Unsupported {
        /// The request, as a verb phrase.
        what: &'static str,
    },
    /// The way to the store is broken: rank 0 is gone, or not to be reached.
    #[error("the rendezvous store cannot be reached")]
    Unreachable {
        /// The transport's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// What a caller does about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Timeout { .. } | Self::Closed => Class::Reform,
            Self::Unreachable { .. } => Class::Retry,
            Self::Unsupported { .. } => Class::Fatal,
        }
    }
}

/// Why a collective operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// A connection to a peer broke. The peer is dead, or has itself left the generation: the first closed connection
    /// is reported, and a survivor that gave up closes its connections too.
    #[error("lost {} during {operation}", name_of(*rank))]
    LostPeer {
        /// The peer, where its address could be told.
        rank: Option<u32>,
        /// What this rank was doing.
        operation: &'static str,
        /// The exception.
        source: Failure,
    },
    /// Nobody's connection broke, and yet the operation did not end within the group's timeout.
    #[error("{operation} did not end within {} ms", after.as_millis())]
    Timeout {
        /// What this rank was doing.
        operation: &'static str,
        /// The timeout of the group.
        after: Duration,
        /// The exception.
        source: Failure,
    },
    /// [`AbortHandle::abort`](crate::AbortHandle::abort) was called.
    #[error("{operation} was aborted")]
    Aborted {
        /// What this rank was doing.
        operation: &'static str,
    },
    /// The rendezvous store failed while the group was formed.
    #[error("cannot form the group")]
    Store(#[from] StoreError),
    /// Anything else libtorch refused: shapes, dtypes, devices, memory.
    #[error("libtorch refused {operation}")]
    Torch {
        /// What this rank was doing.
        operation: &'static str,
        /// The exception.
        source: Failure,
    },
    /// The caller's tensors do not fit the operation.
    #[error("{operation}: {problem}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// Expected and found.
        problem: String,
    },
    /// A CUDA call in a build for CPUs.
    #[error("{what}: {WITHOUT_NCCL}")]
    WithoutNccl {
        /// What was asked for.
        what: &'static str,
    },
}

impl CollectiveError {
    /// The typed error of a failure in `operation`, `after` being the group's timeout and `rank` the peer that it speaks
    /// of, where that is known.
    pub(crate) fn of(operation: &'static str, source: Failure, after: Duration, rank: Option<u32>) -> Self {
        match kind_of(source.text()) {
            Kind::LostPeer => Self::LostPeer { rank, operation, source },
            Kind::Timeout => Self::Timeout { operation, after, source },
            Kind::Other => Self::Torch { operation, source },
        }
    }

    /// What a caller does about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::LostPeer { .. } | Self::Timeout { .. } | Self::Aborted { .. } => Class::Reform,
            Self::Store(error) => error.class(),
            Self::Torch { .. } | Self::Shape { .. } | Self::WithoutNccl { .. } => Class::Fatal,
        }
    }
}

fn name_of(rank: Option<u32>) -> String {
    rank.map_or_else(|| "a peer".to_owned(), |rank| format!("rank {rank}"))
}

/// What the text of an exception is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    LostPeer,
    Timeout,
    Other,
}

/// libtorch, gloo and NCCL share no exception type across their boundaries (gloo's are not even exported by name), so
/// the text decides. The phrases are gloo's (tcp/pair.cc, tcp/socket.cc, unbound_buffer.cc) and ProcessGroupNCCL's.
pub(crate) fn kind_of(text: &str) -> Kind {
    const LOST: [&str; 14] = [
        "connection closed by peer",
        "connection reset by peer",
        "broken pipe",
        "connection refused",
        "socket closed",
        "network is unreachable",
        "no route to host",
        "socketerror",
        "connectfullmesh failed",
        "remote process exited",
        "ncclremoteerror",
        "nccl operation aborted",
        "nccl communicator was aborted",
        "unhandled system error",
    ];
    const LATE: [&str; 5] =
        ["timed out", "timeout", "time out", "application timeout caused pair closure", "watchdog caught collective"];
    let text = text.to_lowercase();
    // "Application timeout caused pair closure" and "connectFullMesh failed ... timed out" are time-outs first.
    if LATE.iter().any(|phrase| text.contains(phrase)) {
        Kind::Timeout
    } else if LOST.iter().any(|phrase| text.contains(phrase)) {
        Kind::LostPeer
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_connection_is_a_lost_peer_and_ends_the_generation() {
        let text = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1";
        let error = CollectiveError::of("all_reduce", Failure::new(text), Duration::ZERO, Some(2));
        assert!(matches!(error, CollectiveError::LostPeer { rank: Some(2), .. }));
        assert_eq!(error.class(), Class::Reform);
        assert_eq!(error.to_string(), "lost rank 2 during all_reduce");
    }

    #[test]
    fn a_gloo_time_out_is_a_timeout() {
        let text = "[unbound_buffer.cc:84] Timed out waiting 300ms for recv operation to complete";
        let error = CollectiveError::of("barrier", Failure::new(text), Duration::from_millis(300), None);
        assert!(matches!(error, CollectiveError::Timeout { .. }));
        assert_eq!(error.to_string(), "barrier did not end within 300 ms");
    }

    #[test]
    fn a_shape_error_is_fatal() {
        let text = "The size of tensor a (3) must match";
        let error = CollectiveError::of("backward", Failure::new(text), Duration::ZERO, None);
        assert_eq!(error.class(), Class::Fatal);
    }

    #[test]
    fn a_store_that_is_away_may_be_asked_again() {
        let source = Box::new(std::io::Error::other("refused"));
        let error = CollectiveError::from(StoreError::Unreachable { source });
        assert_eq!(error.class(), Class::Retry);
    }
}
