//! Bytes of one version of one Parquet object: its footer, and ranges, near ones in one request.
//!
//! Every request asks for the version (etag) that the index names, so a file that was written again is noticed and never
//! mixed with the old one. Every claimed size is held against a limit before memory is taken for it (see `pages`).

use crate::access::Access;
use crate::error::{Change, Place, ShardError};
use crate::index::other_version;
use crate::numbers;
use crate::pages::{self, FOOTER_MAX, PageFault};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, MetadataFetch};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use pixfleet_cluster::index::FileIndex;
use std::ops::Range;
use std::sync::Arc;

/// Ranges of whole columns that are closer than this are fetched as one.
const COLUMN_GAP: u64 = 8 << 10;
/// Pages of single rows are fetched as one while this share of what is asked for lies between them: those pages are other
/// rows', which may be asked for later.
const PAGE_GAP_SHARE: u64 = 100;
/// The first bytes that are asked of a file are its last ones: this share of it,
const TAIL_SHARE: u64 = 128;
/// and at most so many. Most footers are then complete in one request, index of pages included.
const TAIL_MAX: u64 = 256 << 10;
/// Length of the footer and magic bytes, with which every Parquet file ends.
const END: u64 = 8;

/// Bytes of one version of one object.
#[derive(Clone)]
pub(crate) struct Source {
    access: Access,
    pub(crate) path: String,
    size: u64,
    etag: Option<String>,
    place: Place,
    /// Whether single rows are asked for.
    rows: bool,
}

impl Source {
    /// The object as the index knows it.
    pub(crate) fn new(access: &Access, file: &FileIndex) -> Self {
        Self {
            access: access.clone(),
            path: file.path.clone(),
            size: file.size,
            etag: file.etag.clone(),
            place: Place::file(&file.path),
            rows: false,
        }
    }

    /// The same object, for a read at `place`, of single rows or of whole columns.
    pub(crate) fn at(&self, place: Place, rows: bool) -> Self {
        Self { place, rows, ..self.clone() }
    }

    pub(crate) async fn footer(&mut self) -> Result<ArrowReaderMetadata, ShardError> {
        let truncated = || ShardError::Truncated { file: self.path.clone(), bytes: self.size };
        if self.size < 12 {
            return Err(truncated());
        }
        let start = self.size - (self.size / TAIL_SHARE).clamp(END, TAIL_MAX);
        let mut tail = Tail { bytes: self.range(start..self.size).await?, start, source: self };
        let end = &tail.bytes[tail.bytes.len() - END as usize..];
        if &end[4..] != b"PAR1" {
            return Err(truncated());
        }
        let length = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
        if length + END > self.size {
            return Err(truncated());
        }
        if length > FOOTER_MAX {
            let place = Box::new(self.place.clone());
            return Err(ShardError::TooLarge { place, what: "a footer", found: length, limit: FOOTER_MAX });
        }
        let (file, size) = (self.path.clone(), self.size);
        let failed = |source| match source {
            ParquetError::External(error) => match error.downcast::<ShardError>() {
                Ok(ours) => *ours,
                Err(error) => ShardError::Footer { file: file.clone(), source: ParquetError::External(error) },
            },
            source => ShardError::Footer { file: file.clone(), source },
        };
        let hint = usize::try_from((length + END).max(tail.bytes.len() as u64)).ok();
        let metadata = ParquetMetaDataReader::new()
            .with_prefetch_hint(hint)
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Optional)
            .load_and_finish(&mut tail, size)
            .await
            .map_err(failed)?;
        // Arrow's own schema in the footer is a hint of the writer; Parquet's types are what we check.
        let options =
            numbers::asked_for(&metadata, ArrowReaderOptions::new().with_skip_arrow_metadata(true)).map_err(failed)?;
        ArrowReaderMetadata::try_new(Arc::new(metadata), options).map_err(failed)
    }

    pub(crate) async fn range(&self, range: Range<u64>) -> Result<Bytes, ShardError> {
        let length = range.end - range.start;
        let options =
            GetOptions { if_match: self.etag.clone(), range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let location = &self.access.location;
        let (path, store) = (location.path(&self.path), location.store());
        let request = self.access.request().await;
        let got = match store.get_opts(&path, options).await {
            Ok(reply) => reply.bytes().await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) if bytes.len() as u64 == length => {
                request.answered(length);
                Ok(bytes)
            }
            Ok(_) => {
                Err(self.changed().await.unwrap_or(ShardError::Truncated { file: self.path.clone(), bytes: self.size }))
            }
            Err(error) => Err(match self.changed().await {
                Some(stale) => stale,
                None => ShardError::store(location.url_of(&self.path), "read", error),
            }),
        }
    }

    /// Whether the object is another one than the index says.
    async fn changed(&self) -> Option<ShardError> {
        let location = &self.access.location;
        let change = match location.store().head(&location.path(&self.path)).await {
            Ok(now) if now.size != self.size => {
                Change::Size { file: self.path.clone(), indexed: self.size, now: now.size }
            }
            Ok(now) if other_version(self.etag.as_deref(), &now) => Change::Version { file: self.path.clone() },
            Err(object_store::Error::NotFound { .. }) => Change::Gone { file: self.path.clone() },
            Ok(_) | Err(_) => return None,
        };
        Some(ShardError::Stale { url: location.url().into(), list: vec![change] })
    }

    /// Each of `ranges`, near ones in one request, all at the same time as far as the gate lets them.
    async fn ranges(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, ShardError> {
        let merged = if self.rows { merge_pages(&ranges) } else { merge(&ranges, COLUMN_GAP) };
        let fetched: Vec<Bytes> = try_join_all(merged.iter().cloned().map(|range| self.range(range))).await?;
        let part = |range: &Range<u64>| {
            let i = merged.partition_point(|m| m.start <= range.start) - 1;
            let from = (range.start - merged[i].start) as usize;
            fetched[i].slice(from..from + (range.end - range.start) as usize)
        };
        let parts: Vec<Bytes> = ranges.iter().map(part).collect();
        for bytes in &parts {
            pages::check(bytes).map_err(|fault| match fault {
                PageFault::Damaged => ShardError::Parquet {
                    place: Box::new(self.place.clone()),
                    source: ParquetError::General("a page header is damaged".into()),
                },
                PageFault::TooLarge { what, found, limit } => {
                    ShardError::TooLarge { place: Box::new(self.place.clone()), what, found, limit }
                }
            })?;
        }
        Ok(parts)
    }
}

/// Sorted ranges that cover `ranges`, without gaps of up to `gap` between them.
fn merge(ranges: &[Range<u64>], gap: u64) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|r| r.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end + gap => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Sorted ranges that cover `ranges` and little else: the smallest gaps are fetched with them, and in all at most one byte
/// in [`PAGE_GAP_SHARE`].
fn merge_pages(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let tight = merge(ranges, 0);
    let mut gaps: Vec<u64> = tight.windows(2).map(|pair| pair[1].start - pair[0].end).collect();
    gaps.sort_unstable();
    let mut spare = tight.iter().map(|r| r.end - r.start).sum::<u64>() / PAGE_GAP_SHARE;
    let mut largest = 0;
    // Gaps of one size go together or not at all.
    for same in gaps.chunk_by(|a, b| a == b) {
        let cost: u64 = same.iter().sum();
        if cost > spare {
            break;
        }
        (spare, largest) = (spare - cost, same[0]);
    }
    merge(ranges, largest)
}

/// The end of a file, already there, and what lies before it.
struct Tail<'a> {
    source: &'a Source,
    start: u64,
    bytes: Bytes,
}

impl MetadataFetch for &mut Tail<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        let from = |at: u64| usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.bytes.len());
        let kept = self.bytes.slice(from(range.start)..from(range.end));
        async move {
            if range.start >= self.start {
                return Ok(kept);
            }
            let before = self.source.range(range.start..range.end.min(self.start)).await.map_err(external)?;
            Ok(if kept.is_empty() { before } else { [before, kept].concat().into() })
        }
        .boxed()
    }
}

pub(crate) fn external(error: ShardError) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for Source {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { self.range(range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.ranges(ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move { Ok(Arc::clone(self.footer().await.map_err(external)?.metadata())) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_fetched_as_one() {
        assert_eq!(merge(&[100..200, 0..50, 200..300], COLUMN_GAP), vec![0..300]);
        assert_eq!(merge(&[0..10, 10 + COLUMN_GAP + 1..10 + COLUMN_GAP + 5], COLUMN_GAP).len(), 2);
        assert_eq!(merge(&[0..10, 2..5], 0), vec![0..10]);
    }

    #[test]
    fn between_pages_of_rows_at_most_one_byte_in_a_hundred_is_fetched() {
        let page = |n: u64| n * 1000..n * 1000 + 1000;
        assert_eq!(merge_pages(&[page(0), page(1), page(3)]), vec![0..2000, 3000..4000], "a neighbour is not fetched");
        let near = [0..1000, 1005..2000, 2010..3000, 3030..4000];
        // 39 bytes may be fetched in vain: the gaps of 5 and 10, not that of 30.
        assert_eq!(merge_pages(&near), vec![0..3000, 3030..4000]);
        let even = [0..100, 102..200, 202..300];
        assert_eq!(merge_pages(&even).len(), 3, "two gaps of 2 are more than 2 bytes");
        assert_eq!(merge_pages(&[]), Vec::<Range<u64>>::new());
    }
}
