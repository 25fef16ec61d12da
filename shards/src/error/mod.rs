//! Everything that can be wrong with a dataset or its store. Each message names the file, row group, row and field it
//! concerns, what was expected, and what to do.

mod fault;

pub(crate) use fault::changes;
pub use fault::{Change, FieldFault, Place};

use pixfleet_cluster::Class;
use std::sync::Arc;

/// Why a dataset could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// Not a URL.
    #[error("`{url}` is not a URL: {source}; expected file:///folder, s3://bucket/folder, gs://, az:// or hf://")]
    Url {
        /// What was given.
        url: String,
        /// Why.
        source: url::ParseError,
    },
    /// A URL of a store we do not open.
    #[error("`{url}`: unknown scheme `{scheme}`; expected file:///folder, s3://bucket/folder, gs://, az:// or hf://")]
    Scheme {
        /// What was given.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// A place on the Hugging Face Hub that is none.
    #[error("{problem}")]
    Hub {
        /// What is wrong with it.
        problem: String,
    },
    /// The store refuses us.
    #[error(
        "{url}: no permission to {action}; check the credentials ({}) and the rights of their owner",
        credentials(url)
    )]
    Denied {
        /// The object.
        url: String,
        /// `read`, `write` or `list`.
        action: &'static str,
        /// The store's words.
        source: object_store::Error,
    },
    /// The bucket does not exist.
    #[error("{url}: no such bucket; create it, or check the name and AWS_ENDPOINT")]
    NoBucket {
        /// The object.
        url: String,
        /// The store's words.
        source: object_store::Error,
    },
    /// The object does not exist.
    #[error("{url}: no such file")]
    NotFound {
        /// The object.
        url: String,
        /// The store's words.
        source: object_store::Error,
    },
    /// Anything else a store says: it may work later.
    #[error("{url}: cannot {action}: {source}")]
    Store {
        /// The object.
        url: String,
        /// `read`, `write` or `list`.
        action: &'static str,
        /// The store's words.
        source: object_store::Error,
    },
    /// A file that ends before its Parquet footer, or is no Parquet file.
    #[error(
        "{file}: {bytes} bytes without a Parquet footer at the end: the file is truncated or no Parquet; write it again"
    )]
    Truncated {
        /// Path within the dataset.
        file: String,
        /// Its size.
        bytes: u64,
    },
    /// A file whose bytes are not those that were written.
    #[error("{file}: its bytes are not those that were written (the content hash differs); write or fetch it again")]
    Content {
        /// Path within the dataset.
        file: String,
    },
    /// A footer that cannot be read.
    #[error("{file}: the Parquet footer cannot be read: {source}; write the file again")]
    Footer {
        /// Path within the dataset.
        file: String,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// Another version of the schema.
    #[error("{file}: schema version {found}, this program reads {expected} (footer key `{key}`); build the dataset again with this version of pixfleet", key = crate::schema::VERSION_KEY)]
    Version {
        /// Path within the dataset.
        file: String,
        /// What the footer says, or `none`.
        found: String,
        /// What we read.
        expected: &'static str,
    },
    /// A required column is not there.
    #[error("{file}: no column `{column}`; see docs/format.md, and write the file again with it")]
    MissingColumn {
        /// Path within the dataset.
        file: String,
        /// Path of the column.
        column: String,
    },
    /// A column of another type.
    #[error("{file}: column `{column}` is {found}, expected {expected}; write the file again with that type")]
    ColumnType {
        /// Path within the dataset.
        file: String,
        /// Path of the column.
        column: String,
        /// What the schema says.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// A compression that is not read.
    #[error("{file}: column `{column}` is compressed with {found}; write the file again with zstd, snappy or none")]
    Codec {
        /// Path within the dataset.
        file: String,
        /// Path of the column.
        column: String,
        /// Its compression.
        found: String,
    },
    /// Pictures of a row group that can only be read all together, and are too many for that.
    #[error(
        "{place}: its {rows} pictures are {found} bytes that must be read all together, more than {limit}: the file has no index of pages for them; write at most {fits} rows a row group (pyarrow and polars: row_group_size={fits}; DuckDB: ROW_GROUP_SIZE, or ROW_GROUP_SIZE_BYTES), or with an index of pages and pictures without dictionary (docs/format.md)"
    )]
    Pictures {
        /// The row group.
        place: Box<Place>,
        /// Rows of the row group.
        rows: u64,
        /// Bytes of pictures after decompression.
        found: u64,
        /// The limit.
        limit: u64,
        /// Rows that would be within the limit.
        fits: u64,
    },
    /// Pages that cannot be decoded.
    #[error("{place}: cannot be decoded: {source}; the file is damaged, write it again")]
    Parquet {
        /// Where.
        place: Box<Place>,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// Rows that cannot be written as Parquet.
    #[error("{file}: cannot be written: {source}")]
    Write {
        /// Path within the dataset.
        file: String,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A size that is refused before anything is allocated for it.
    #[error("{place}: {what} of {found} exceeds the limit of {limit}; refused before allocation")]
    TooLarge {
        /// Where.
        place: Box<Place>,
        /// What is large.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A field of a row breaks a rule.
    #[error("{place}: {fault}")]
    Field {
        /// Where.
        place: Box<Place>,
        /// What.
        #[source]
        fault: Arc<FieldFault>,
    },
    /// Files changed after they were indexed.
    #[error("index is older than its files: {}; run `pixfleet shards index {url}`", changes(.list))]
    Stale {
        /// The dataset.
        url: String,
        /// What changed.
        list: Vec<Change>,
    },
    /// A dataset without an index.
    #[error("{url}: no index; run `pixfleet shards index {url}`")]
    NoIndex {
        /// The dataset.
        url: String,
    },
    /// A folder without shards.
    #[error("{url}: no Parquet files in it; expected <split>/part-00000.parquet")]
    NoFiles {
        /// The dataset.
        url: String,
    },
    /// An index that is not readable.
    #[error("{file}: not a dataset index: {source}; run `pixfleet shards index` again")]
    IndexFormat {
        /// Path within the dataset.
        file: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A split that is not there.
    #[error("{url}: no split `{split}`; it has {known}")]
    NoSplit {
        /// The dataset.
        url: String,
        /// What was asked for.
        split: String,
        /// What there is.
        known: String,
    },
    /// A row group or row beyond the index.
    #[error("{place} is beyond the index, which has {limit}")]
    Beyond {
        /// Where.
        place: Box<Place>,
        /// Row groups or rows there are.
        limit: u64,
    },
    /// Text vectors that were never made.
    #[error("{url}: no text vectors `{key}` beside {file}; run `pixfleet shards embed {url}`")]
    NoVectors {
        /// The dataset.
        url: String,
        /// Their key.
        key: String,
        /// The data file.
        file: String,
    },
    /// Text vectors of other rows than the data file's.
    #[error("{file}: these text vectors belong to another version of {data}; run `pixfleet shards embed` again")]
    VectorsStale {
        /// The vectors file.
        file: String,
        /// The data file.
        data: String,
    },
    /// An encoder that returned something else than one vector of one length for each text.
    #[error("the encoder returned {found}, expected {expected}")]
    Encoder {
        /// What came.
        found: String,
        /// What should have come.
        expected: String,
    },
    /// A worker task of ours ended early.
    #[error("a decoding task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl ShardError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Store { .. } => Class::Retry,
            Self::Url { .. }
            | Self::Scheme { .. }
            | Self::Hub { .. }
            | Self::Denied { .. }
            | Self::NoBucket { .. }
            | Self::NotFound { .. }
            | Self::Truncated { .. }
            | Self::Content { .. }
            | Self::Footer { .. }
            | Self::Version { .. }
            | Self::MissingColumn { .. }
            | Self::ColumnType { .. }
            | Self::Codec { .. }
            | Self::Pictures { .. }
            | Self::Parquet { .. }
            | Self::Write { .. }
            | Self::TooLarge { .. }
            | Self::Field { .. }
            | Self::Stale { .. }
            | Self::NoIndex { .. }
            | Self::NoFiles { .. }
            | Self::IndexFormat { .. }
            | Self::NoSplit { .. }
            | Self::Beyond { .. }
            | Self::NoVectors { .. }
            | Self::VectorsStale { .. }
            | Self::Encoder { .. }
            | Self::Task(_) => Class::Fatal,
        }
    }

    /// Whether the data itself is bad, so that another row may stand in for this one.
    #[must_use]
    pub fn is_bad_data(&self) -> bool {
        matches!(self, Self::Parquet { .. } | Self::TooLarge { .. } | Self::Field { .. } | Self::Truncated { .. })
    }

    /// What a store said when it was asked to `action` (`read`, `write`, `list`) the object at `url`.
    #[must_use]
    pub fn of_store(url: &str, action: &'static str, source: object_store::Error) -> Self {
        Self::store(url.to_owned(), action, source)
    }

    /// A broken rule of a field.
    pub(crate) fn field(place: Place, fault: impl Into<Arc<FieldFault>>) -> Self {
        Self::Field { place: Box::new(place), fault: fault.into() }
    }

    /// The store's error, by what the caller does about it.
    pub(crate) fn store(url: String, action: &'static str, source: object_store::Error) -> Self {
        use object_store::Error as E;
        if denied(&source) {
            return Self::Denied { url, action, source };
        }
        let text = source.to_string();
        if ["<Code>AccessDenied", "403 Forbidden", "401 Unauthorized"].iter().any(|t| text.contains(t)) {
            // Listings come back as generic errors.
            return Self::Denied { url, action, source };
        }
        if text.contains("NoSuchBucket") || text.contains("The specified bucket does not exist") {
            return Self::NoBucket { url, source };
        }
        match source {
            E::NotFound { .. } => Self::NotFound { url, source },
            source => Self::Store { url, action, source },
        }
    }
}

/// Where the credentials of a store are.
fn credentials(url: &str) -> &'static str {
    if url.starts_with("hf://") {
        "HF_TOKEN, or what `hf auth login` keeps"
    } else {
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or the store's own"
    }
}

/// Whether the store refused for want of rights; the local file system hides that in a generic error.
fn denied(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    if matches!(error, E::PermissionDenied { .. } | E::Unauthenticated { .. }) {
        return true;
    }
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if e.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied) {
            return true;
        }
        source = e.source();
    }
    false
}
