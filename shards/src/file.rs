//! One Parquet file on a store: its footer, and ranged reads of columns and rows.
//!
//! Every read asks for the version (etag) that the index names, so a file that was written again is noticed and never
//! mixed with the old one. Every claimed size is held against a limit before memory is taken for it (see `pages`).

use crate::error::{Change, Place, ShardError};
use crate::pages::{self, CHUNK_MAX, FOOTER_MAX, PageFault, ROWS_MAX};
use crate::schema::{CONTENT_KEY, VERSION, VERSION_KEY, leaf_name};
use crate::store::Location;
use crate::writer::hash_key;
use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelectionPolicy};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use pixfleet_cluster::index::FileIndex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ranges closer than this are fetched as one.
const GAP: u64 = 8 << 10;
/// Bytes that are hashed at once.
const HASH_CHUNK: usize = 8 << 20;
/// Ranges fetched at the same time.
const PARALLEL: usize = 8;

/// What was fetched from the store.
#[derive(Debug, Default)]
pub struct Fetched {
    bytes: AtomicU64,
    requests: AtomicU64,
}

impl Fetched {
    /// Bytes, footers included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Ranged GETs.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A file and its footer.
#[derive(Clone)]
pub(crate) struct ShardFile {
    source: Source,
    metadata: ArrowReaderMetadata,
}

impl ShardFile {
    /// Reads the footer of the file as the index knows it.
    pub(crate) async fn open(
        location: &Location,
        file: &FileIndex,
        fetched: &Arc<Fetched>,
    ) -> Result<Self, ShardError> {
        let mut source = Source {
            location: location.clone(),
            path: file.path.clone(),
            size: file.size,
            etag: file.etag.clone(),
            place: Place::file(&file.path),
            fetched: Arc::clone(fetched),
        };
        let metadata = source.footer().await?;
        Ok(Self { source, metadata })
    }

    /// Path within the dataset.
    pub(crate) fn path(&self) -> &str {
        &self.source.path
    }

    pub(crate) fn footer(&self) -> &Arc<ParquetMetaData> {
        self.metadata.metadata()
    }

    /// The value of a footer key.
    pub(crate) fn key(&self, key: &str) -> Option<&str> {
        let keys = self.footer().file_metadata().key_value_metadata()?;
        keys.iter().find(|k| k.key == key)?.value.as_deref()
    }

    /// Whether the bytes are those that were hashed when the file was written; true where the footer has no hash.
    pub(crate) async fn is_intact(&self) -> Result<bool, ShardError> {
        let Some(written) = self.key(CONTENT_KEY) else { return Ok(true) };
        let chunks = self.footer().row_groups().iter().flat_map(|g| g.columns()).map(|c| c.byte_range());
        // A file without rows has its four magic bytes before the footer.
        let end = chunks.map(|(start, length)| start + length).max().unwrap_or(4);
        let mut hash = blake3::Hasher::new();
        for start in (0..end).step_by(HASH_CHUNK) {
            hash.update(&self.source.range(start..(start + HASH_CHUNK as u64).min(end)).await?);
        }
        for key in self.footer().file_metadata().key_value_metadata().into_iter().flatten() {
            if key.key.starts_with("pixfleet.") && key.key != CONTENT_KEY {
                hash_key(&mut hash, &key.key, key.value.as_deref().unwrap_or_default());
            }
        }
        Ok(hash.finalize().to_hex()[..32] == *written)
    }

    /// Leaves `wanted` of `rows` (ascending; all if `None`) of one row group, as batches in row order.
    pub(crate) async fn read(
        &self,
        row_group: u32,
        rows: Option<&[u32]>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<RecordBatch>, ShardError> {
        let place = Place::file(&self.source.path).row_group(row_group);
        let footer = self.footer();
        let groups = footer.num_row_groups() as u64;
        if u64::from(row_group) >= groups {
            return Err(ShardError::Beyond { place: Box::new(place), limit: groups });
        }
        let total = footer.row_group(row_group as usize).num_rows() as usize;
        if let Some(&row) = rows.and_then(|r| r.last()).filter(|&&r| r as usize >= total) {
            return Err(ShardError::Beyond { place: Box::new(place.row(row)), limit: total as u64 });
        }
        let schema = footer.file_metadata().schema_descr();
        let leaves: Vec<usize> =
            (0..schema.num_columns()).filter(|&i| wanted(&leaf_name(schema.column(i).path().parts()))).collect();
        self.bounds(row_group, &leaves)?;
        let mut source = self.source.clone();
        source.place = place.clone();
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(source, self.metadata.clone())
            .with_row_groups(vec![row_group as usize])
            .with_projection(ProjectionMask::leaves(schema, leaves))
            .with_batch_size(total.max(1))
            .with_row_selection_policy(RowSelectionPolicy::Selectors);
        if let Some(rows) = rows {
            let ranges = rows.iter().map(|&r| r as usize..r as usize + 1);
            builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, total));
        }
        let damaged = |error| from_parquet(error, &place);
        let mut stream = builder.build().map_err(damaged)?;
        let Some(reader) = stream.next_row_group().await.map_err(damaged)? else { return Ok(Vec::new()) };
        let decoded = tokio::task::spawn_blocking(move || reader.collect::<Result<Vec<_>, _>>()).await;
        match decoded {
            Ok(batches) => batches.map_err(|e| damaged(ParquetError::External(Box::new(e)))),
            // The decoder panics at some kinds of damage.
            Err(error) => Err(damaged(ParquetError::External(Box::new(error)))),
        }
    }

    /// Refuses column chunks that claim more than is allowed.
    fn bounds(&self, row_group: u32, leaves: &[usize]) -> Result<(), ShardError> {
        let group = self.footer().row_group(row_group as usize);
        let claims = leaves.iter().flat_map(|&i| {
            let column = group.column(i);
            [
                ("a column chunk", column.compressed_size(), CHUNK_MAX),
                ("a column chunk after decompression", column.uncompressed_size(), CHUNK_MAX),
            ]
        });
        for (what, found, limit) in claims.chain([("a number of rows", group.num_rows(), ROWS_MAX)]) {
            let found = u64::try_from(found).unwrap_or(u64::MAX);
            if found > limit {
                let place = Box::new(Place::file(&self.source.path).row_group(row_group));
                return Err(ShardError::TooLarge { place, what, found, limit });
            }
        }
        Ok(())
    }
}

/// Bytes of one version of one object.
#[derive(Clone)]
struct Source {
    location: Location,
    path: String,
    size: u64,
    etag: Option<String>,
    place: Place,
    fetched: Arc<Fetched>,
}

impl Source {
    async fn footer(&mut self) -> Result<ArrowReaderMetadata, ShardError> {
        let truncated = || ShardError::Truncated { file: self.path.clone(), bytes: self.size };
        if self.size < 12 {
            return Err(truncated());
        }
        let tail = self.range(self.size - 8..self.size.max(8)).await?;
        if &tail[4..] != b"PAR1" {
            return Err(truncated());
        }
        let length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        if length + 8 > self.size {
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
        let hint = usize::try_from(length + 8).ok();
        let metadata = ParquetMetaDataReader::new()
            .with_prefetch_hint(hint)
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Optional)
            .load_and_finish(&mut *self, size)
            .await
            .map_err(failed)?;
        // Arrow's own schema in the footer is a hint of the writer; Parquet's types are what we check.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        ArrowReaderMetadata::try_new(Arc::new(metadata), options).map_err(failed)
    }

    async fn range(&self, range: Range<u64>) -> Result<Bytes, ShardError> {
        let length = range.end - range.start;
        let options =
            GetOptions { if_match: self.etag.clone(), range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let path = self.location.path(&self.path);
        let store = self.location.store();
        self.fetched.requests.fetch_add(1, Ordering::Relaxed);
        let got = match store.get_opts(&path, options).await {
            Ok(reply) => reply.bytes().await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) if bytes.len() as u64 == length => {
                self.fetched.bytes.fetch_add(length, Ordering::Relaxed);
                Ok(bytes)
            }
            Ok(_) => {
                Err(self.changed().await.unwrap_or(ShardError::Truncated { file: self.path.clone(), bytes: self.size }))
            }
            Err(error) => Err(match self.changed().await {
                Some(stale) => stale,
                None => ShardError::store(self.location.url_of(&self.path), "read", error),
            }),
        }
    }

    /// Whether the object is another one than the index says.
    async fn changed(&self) -> Option<ShardError> {
        let change = match self.location.store().head(&self.location.path(&self.path)).await {
            Ok(now) if now.size != self.size => {
                Change::Size { file: self.path.clone(), indexed: self.size, now: now.size }
            }
            Ok(now) if self.etag.is_some() && now.e_tag != self.etag => Change::Version { file: self.path.clone() },
            Err(object_store::Error::NotFound { .. }) => Change::Gone { file: self.path.clone() },
            Ok(_) | Err(_) => return None,
        };
        Some(ShardError::Stale { url: self.location.url().into(), list: vec![change] })
    }

    /// Each of `ranges`, near ones in one request.
    async fn ranges(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, ShardError> {
        let merged = merge(&ranges);
        let fetched: Vec<Bytes> = futures::stream::iter(merged.iter().cloned())
            .map(|range| self.range(range))
            .buffered(PARALLEL)
            .try_collect()
            .await?;
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

/// Sorted ranges that cover `ranges`, without gaps below [`GAP`] between them.
fn merge(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|r| r.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end + GAP => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn external(error: ShardError) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// Our own error, if that is what came back through the Parquet reader; else damage at `place`.
fn from_parquet(error: ParquetError, place: &Place) -> ShardError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<ShardError>() {
            Ok(ours) => *ours,
            Err(inner) => ShardError::Parquet { place: Box::new(place.clone()), source: ParquetError::External(inner) },
        },
        source => ShardError::Parquet { place: Box::new(place.clone()), source },
    }
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

/// Holds a file's schema version against ours.
pub(crate) fn check_version(file: &ShardFile) -> Result<(), ShardError> {
    let found = file.key(VERSION_KEY).unwrap_or("none");
    if found == VERSION {
        return Ok(());
    }
    Err(ShardError::Version { file: file.source.path.clone(), found: found.into(), expected: VERSION })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_fetched_as_one() {
        assert_eq!(merge(&[100..200, 0..50, 200..300]), vec![0..300]);
        assert_eq!(merge(&[0..10, 10 + GAP + 1..10 + GAP + 5]).len(), 2);
        assert_eq!(merge(&[0..10, 2..5]), vec![0..10]);
    }
}
