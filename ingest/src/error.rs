//! What stops an ingest. A record that cannot become a row does not: it is a [`Reject`](crate::Reject).

use crate::reject::RejectLimit;
use pixfleet_shards::ShardError;

/// Why an ingest stopped. What was written until then is kept, and the same command goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The output, or where the source lies.
    #[error(transparent)]
    Shards(#[from] ShardError),
    /// A source without files.
    #[error("{source_url}: {expected}")]
    NoFiles {
        /// The source.
        source_url: String,
        /// What was looked for.
        expected: String,
    },
    /// A source that cannot be read on.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file whose structure is broken, so that where the next record begins is not known.
    #[error("{file}, byte {offset}: {found}; expected {expected}")]
    Broken {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A tar file that ends before its end.
    #[error("{file}, byte {offset}: {found}; expected a whole tar file; fetch it again")]
    Cut {
        /// The file.
        file: String,
        /// Where it ends.
        offset: u64,
        /// Within what.
        found: &'static str,
    },
    /// A Parquet file that cannot be read.
    #[error("{file}: no readable Parquet: {source}")]
    Parquet {
        /// The file.
        file: String,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// Options that do not go together.
    #[error("{0}")]
    Options(String),
    /// More rejects than were allowed.
    #[error(
        "{rejects} of {records} records were refused, more than --max-rejects {limit}; they are named in {url}. What was \
         written is kept without an index: correct the source and run it again with --restart, or allow more"
    )]
    TooManyRejects {
        /// How many.
        rejects: u64,
        /// Of how many.
        records: u64,
        /// What was allowed.
        limit: RejectLimit,
        /// Where they are named.
        url: String,
    },
    /// The output holds the ingest of something else.
    #[error(
        "{url} belongs to an ingest of another source or with other options; finish it with its own command, write to \
         another --out or --split, or begin again with --restart"
    )]
    OtherIngest {
        /// The object that says so.
        url: String,
    },
    /// Another process writes the same parts.
    #[error("{url} was written by another process that ingests into the same split; let one of the two end")]
    Rival {
        /// The object that the other wrote.
        url: String,
    },
    /// Vectors of the key that are another's.
    #[error(
        "{url}: other vectors of this key are there; name another key with --vectors, or replace them with --restart"
    )]
    OtherVectors {
        /// The vectors file.
        url: String,
    },
    /// An object of progress that is not readable.
    #[error("{url}: no record of an ingest's progress: {source}; begin again with --restart")]
    Progress {
        /// The object.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Local disk for what is sorted.
    #[error("no room to sort the records by image (a temporary folder, TMPDIR): {0}")]
    Spill(#[source] std::io::Error),
    /// A task of ours ended early.
    #[error("a task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}
