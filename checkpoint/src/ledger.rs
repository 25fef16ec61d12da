//! A run's ledger, read back from its store: all segments in order, each chained to the one before.

use crate::store::Folder;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use pixfleet_cluster::Class;
use pixfleet_cluster::ledger::{BadLine, Record, parse_lines};

#[cfg(test)]
mod tests;

/// Segments that are fetched at the same time.
const IN_FLIGHT: usize = 32;

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

/// One segment of a ledger, chained to the one before.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Segments that the ledger has.
    pub of: u64,
    /// Its records, without the header.
    pub records: Vec<Record>,
    /// blake3 of it, in hex.
    pub digest: String,
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
pub async fn read_ledger(location: &Folder) -> Result<Ledger, LedgerError> {
    let mut ledger = Ledger::default();
    ledger.catch_up(location).await?;
    Ok(ledger)
}

impl Ledger {
    /// Takes in the segments that were written since this was read.
    ///
    /// # Errors
    /// As [`read_ledger`].
    pub async fn catch_up(&mut self, location: &Folder) -> Result<(), LedgerError> {
        let (next, digest) = (self.next_segment, self.last_digest.clone());
        segments_from(location, next, digest, |segment| {
            self.records.extend(segment.records);
            self.next_segment = segment.number + 1;
            self.last_digest = segment.digest;
        })
        .await
    }
}

/// Hands the segments of the ledger of the run at `location` to `visit`, in order, and keeps none of them: for who
/// needs little of a long ledger.
///
/// # Errors
/// [`LedgerError`] names the segment that is missing, damaged or not chained to the one before.
pub async fn each_segment(location: &Folder, visit: impl FnMut(Segment)) -> Result<(), LedgerError> {
    segments_from(location, 0, String::new(), visit).await
}

/// The segments from number `first` on, whose predecessor has the digest `previous`.
async fn segments_from(
    location: &Folder,
    first: u64,
    mut previous: String,
    mut visit: impl FnMut(Segment),
) -> Result<(), LedgerError> {
    let of = end(location, first).await?;
    let mut fetched = futures::stream::iter(first..of)
        .map(|number| async move { Ok::<_, LedgerError>((number, fetch(location, number).await?)) })
        .buffered(IN_FLIGHT);
    while let Some((number, bytes)) = fetched.try_next().await? {
        let key = || Record::segment_key(number);
        let text = std::str::from_utf8(&bytes).map_err(|source| LedgerError::NotText { key: key(), source })?;
        let mut records = parse_lines(text).map_err(|source| LedgerError::Damaged { key: key(), source })?;
        let chained =
            |r: &Record| matches!(r, Record::Segment { number: n, previous: p, .. } if *n == number && *p == previous);
        if !records.first().is_some_and(chained) {
            return Err(LedgerError::Unchained { key: key() });
        }
        records.remove(0);
        previous = blake3::hash(&bytes).to_hex().to_string();
        visit(Segment { number, of, records, digest: previous.clone() });
    }
    Ok(())
}

/// One past the last segment; from `first` on there is no gap.
async fn end(location: &Folder, first: u64) -> Result<u64, LedgerError> {
    let folder = location.path("ledger");
    let listed = match first.checked_sub(1) {
        Some(last) => location.store().list_with_offset(Some(&folder), &location.path(&Record::segment_key(last))),
        None => location.store().list(Some(&folder)),
    };
    let numbers = listed.try_filter_map(async |o| Ok(o.location.filename().and_then(Record::parse_segment_name)));
    let mut numbers: Vec<u64> = numbers.try_collect().await.map_err(|source| store_failed(location, source))?;
    numbers.sort_unstable();
    match (first..).zip(&numbers).find(|(i, n)| i != *n) {
        Some((gap, _)) => Err(LedgerError::Missing { key: Record::segment_key(gap) }),
        None => Ok(first + numbers.len() as u64),
    }
}

async fn fetch(location: &Folder, number: u64) -> Result<Bytes, LedgerError> {
    let failed = |source| store_failed(location, source);
    let path = location.path(&Record::segment_key(number));
    location.store().get(&path).await.map_err(failed)?.bytes().await.map_err(failed)
}

fn store_failed(location: &Folder, source: object_store::Error) -> LedgerError {
    LedgerError::Store { url: format!("{}/ledger", location.url()), source }
}
