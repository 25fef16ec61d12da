//! A run's ledger, read back from its store: all segments in order, each chained to the one before.

use crate::store::Location;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use pixfleet_cluster::Class;
use pixfleet_cluster::ledger::{BadLine, Record, parse_lines};

/// Segments that are fetched at the same time.
const IN_FLIGHT: usize = 16;

/// A ledger as it lies in the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    /// All records, in order.
    pub records: Vec<Record>,
    /// The number of the next segment.
    pub next_segment: u64,
    /// blake3 of the last segment, in hex; empty if there is none.
    pub last_digest: String,
}

/// A ledger that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The store refused or failed.
    #[error("cannot read {url}")]
    Store {
        /// The object's or folder's URL.
        url: String,
        /// The store's own words.
        #[source]
        source: object_store::Error,
    },
    /// A segment with higher ones behind it is not there.
    #[error("ledger segment {key} is missing")]
    Missing {
        /// The object.
        key: String,
    },
    /// A segment holds something else than records.
    #[error("ledger segment {key} is damaged")]
    Damaged {
        /// The object.
        key: String,
        /// The line.
        #[source]
        source: BadLine,
    },
    /// A segment is not text.
    #[error("ledger segment {key} is not UTF-8")]
    NotText {
        /// The object.
        key: String,
        /// Where.
        #[source]
        source: std::str::Utf8Error,
    },
    /// A segment's header does not name the digest of the segment before it.
    #[error("ledger segment {key} is not the successor of the segment before it")]
    Unchained {
        /// The object.
        key: String,
    },
}

impl LedgerError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Store { .. } => Class::Retry,
            Self::Missing { .. } | Self::Damaged { .. } | Self::NotText { .. } | Self::Unchained { .. } => Class::Fatal,
        }
    }
}

/// Reads the ledger of the run at `location`.
///
/// # Errors
/// [`LedgerError`] names the segment that is missing, damaged or not chained to the one before.
pub async fn read_ledger(location: &Location) -> Result<Ledger, LedgerError> {
    let failed = |source| LedgerError::Store { url: format!("{}/ledger", location.url()), source };
    let listed: Vec<_> = location.store().list(Some(&location.path("ledger"))).try_collect().await.map_err(failed)?;
    let mut numbers: Vec<u64> =
        listed.iter().filter_map(|o| Record::parse_segment_name(o.location.filename()?)).collect();
    numbers.sort_unstable();
    if let Some(gap) = (0u64..).zip(&numbers).find(|(i, n)| i != *n).map(|(i, _)| i) {
        return Err(LedgerError::Missing { key: Record::segment_key(gap) });
    }
    let mut segments = futures::stream::iter(numbers)
        .map(|number| async move {
            let path = location.path(&Record::segment_key(number));
            let bytes = location.store().get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?;
            Ok::<_, LedgerError>((number, bytes))
        })
        .buffered(IN_FLIGHT);
    let mut ledger = Ledger::default();
    while let Some((number, bytes)) = segments.try_next().await? {
        let key = || Record::segment_key(number);
        let text = std::str::from_utf8(&bytes).map_err(|source| LedgerError::NotText { key: key(), source })?;
        let records = parse_lines(text).map_err(|source| LedgerError::Damaged { key: key(), source })?;
        match records.first() {
            Some(Record::Segment { number: n, previous, .. }) if *n == number && *previous == ledger.last_digest => {}
            _ => return Err(LedgerError::Unchained { key: key() }),
        }
        ledger.records.extend(records.into_iter().skip(1));
        ledger.next_segment = number + 1;
        ledger.last_digest = blake3::hash(&bytes).to_hex().to_string();
    }
    Ok(ledger)
}
