//! What can go wrong with a checkpoint, by what the caller does about it.

use pixfleet_cluster::Class;

/// A checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The URL of the run's store is of no use.
    #[error("`{url}` is not a place for checkpoints; expected file:///folder, s3://bucket/folder, gs:// or az://")]
    Url {
        /// As given.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store refused or failed.
    #[error("cannot {verb} {key} in the run's store")]
    Store {
        /// What was tried.
        verb: &'static str,
        /// The object.
        key: String,
        /// The store's own words.
        #[source]
        source: object_store::Error,
    },
    /// A part is shorter, longer or other than its manifest says.
    #[error("part {key} is damaged: expected {expected}, found {found}")]
    Damaged {
        /// The object.
        key: String,
        /// What the manifest says.
        expected: String,
        /// What lies there.
        found: String,
    },
    /// A part is not safetensors, although its digest agrees.
    #[error("part {key} cannot be taken apart as safetensors")]
    Part {
        /// The object.
        key: String,
        /// The format's own words.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A manifest is not the JSON that this version writes.
    #[error("manifest {key} cannot be read")]
    Manifest {
        /// The object.
        key: String,
        /// The parser's own words.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest of another format version.
    #[error("manifest {key} has format version {found}; this program reads version {expected}")]
    Version {
        /// The object.
        key: String,
        /// Of the object.
        found: u32,
        /// Of this program.
        expected: u32,
    },
    /// An object of a part lies there already, with other bytes.
    #[error(
        "{key} was written before with other bytes (blake3 {theirs}, ours {ours}) and stays as it is; two workers act as \
         one rank of one generation, and one of the two must stop"
    )]
    Taken {
        /// The object.
        key: String,
        /// Digest of the bytes that were to be written.
        ours: String,
        /// Digest of those that lie there.
        theirs: String,
    },
    /// A background thread ended before its work was done.
    #[error("the thread that packs {key} was cancelled")]
    Cancelled {
        /// The object.
        key: String,
        /// The runtime's own words.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl CheckpointError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Store { source, .. } => match source {
                object_store::Error::NotFound { .. }
                | object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. }
                | object_store::Error::InvalidPath { .. }
                | object_store::Error::NotSupported { .. }
                | object_store::Error::NotImplemented { .. }
                | object_store::Error::UnknownConfigurationKey { .. } => Class::Fatal,
                _ => Class::Retry,
            },
            Self::Cancelled { .. } => Class::Retry,
            Self::Url { .. }
            | Self::Damaged { .. }
            | Self::Part { .. }
            | Self::Manifest { .. }
            | Self::Version { .. }
            | Self::Taken { .. } => Class::Fatal,
        }
    }

    /// Whether the object itself is at fault, so that an older checkpoint may serve instead.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Part { .. } | Self::Manifest { .. } | Self::Version { .. } => true,
            Self::Store { source, .. } => matches!(source, object_store::Error::NotFound { .. }),
            Self::Url { .. } | Self::Taken { .. } | Self::Cancelled { .. } => false,
        }
    }

    pub(crate) fn store(verb: &'static str, key: &str) -> impl FnOnce(object_store::Error) -> Self {
        let key = key.to_string();
        move |source| Self::Store { verb, key, source }
    }
}
