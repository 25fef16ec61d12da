//! A run's ledger, read back from its store: all segments in order, each chained to the one before.

use crate::error::CoordinatorError;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use pixfleet_checkpoint::Location;
use pixfleet_cluster::ledger::{Record, parse_lines};

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

/// Reads the ledger of the run at `location`.
///
/// # Errors
/// [`CoordinatorError::Ledger`] names the segment that is missing, damaged or not chained to the one before.
pub async fn read_ledger(location: &Location) -> Result<Ledger, CoordinatorError> {
    let failed = |source| CoordinatorError::store("read", format!("{}/ledger", location.url()), source);
    let listed: Vec<_> =
        location.store().list(Some(&location.path("ledger"))).try_collect().await.map_err(failed)?;
    let mut numbers: Vec<u64> =
        listed.iter().filter_map(|o| Record::parse_segment_name(o.location.filename()?)).collect();
    numbers.sort_unstable();
    if let Some(gap) = (0u64..).zip(&numbers).find(|(i, n)| i != *n).map(|(i, _)| i) {
        return Err(bad(gap, "missing"));
    }
    let mut segments = futures::stream::iter(numbers)
        .map(|number| async move {
            let path = location.path(&Record::segment_key(number));
            let bytes = location.store().get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?;
            Ok::<_, CoordinatorError>((number, bytes))
        })
        .buffered(IN_FLIGHT);
    let mut ledger = Ledger::default();
    while let Some((number, bytes)) = segments.try_next().await? {
        let text = std::str::from_utf8(&bytes).map_err(|_| bad(number, "not UTF-8"))?;
        let records = parse_lines(text).map_err(|source| CoordinatorError::Ledger {
            key: Record::segment_key(number),
            problem: "damaged",
            source: Some(source),
        })?;
        match records.first() {
            Some(Record::Segment { number: n, previous, .. }) if *n == number && *previous == ledger.last_digest => {}
            _ => return Err(bad(number, "not the successor of the segment before it")),
        }
        ledger.records.extend(records.into_iter().skip(1));
        ledger.next_segment = number + 1;
        ledger.last_digest = blake3::hash(&bytes).to_hex().to_string();
    }
    Ok(ledger)
}

fn bad(number: u64, problem: &'static str) -> CoordinatorError {
    CoordinatorError::Ledger { key: Record::segment_key(number), problem, source: None }
}
