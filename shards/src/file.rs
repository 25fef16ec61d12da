//! One Parquet file on a store: its footer, and reads of columns and rows. What was fetched is decoded on a thread that may
//! block, never on the runtime's own.

use crate::access::Access;
use crate::error::{Place, ShardError};
use crate::numbers::Numbers;
use crate::pages::{CHUNK_MAX, PICTURES_MAX, ROWS_MAX};
use crate::schema::{CONTENT_KEY, Columns, IMAGE_BYTES, VERSION, VERSION_KEY, leaf_name};
use crate::source::Source;
use crate::text_vectors::{self, DATA_KEY, KEY_KEY};
use crate::writer::hash_key;
use arrow_array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, RowSelection, RowSelectionPolicy};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use pixfleet_cluster::evidence::{FileId, Origin};
use pixfleet_cluster::index::FileIndex;
use std::sync::Arc;

/// Bytes that are hashed at once.
const HASH_CHUNK: usize = 8 << 20;

/// A file and its footer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ShardFile {
    source: Source,
    metadata: ArrowReaderMetadata,
    /// Names of the leaves ([`leaf_name`]), in the order of the file.
    leaves: Arc<[String]>,
    /// The data file that it is, or that its vectors say they are of, by its own footer.
    id: FileId,
}

impl ShardFile {
    /// Reads the footer of the file as the index knows it.
    pub(crate) async fn open(access: &Access, file: &FileIndex) -> Result<Self, ShardError> {
        let mut source = Source::new(access, file);
        let metadata = source.footer().await?;
        let columns = metadata.metadata().file_metadata().schema_descr().columns();
        let leaves = columns.iter().map(|c| leaf_name(c.path().parts())).collect();
        let keys = metadata.metadata().file_metadata().key_value_metadata();
        let id = identity(file, |key| keys?.iter().find(|k| k.key == key)?.value.as_deref());
        Ok(Self { source, metadata, leaves, id })
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

    /// Whether the bytes are those that were hashed when the file was written, or else when it was `indexed`; true where
    /// they never were.
    pub(crate) async fn is_intact(&self, indexed: Option<&str>) -> Result<bool, ShardError> {
        match self.key(CONTENT_KEY).or(indexed) {
            Some(known) => Ok(self.content().await? == known),
            None => Ok(true),
        }
    }

    /// The hash of everything before the footer and of our own keys, as 32 hexadecimal digits: what [`CONTENT_KEY`] is.
    pub(crate) async fn content(&self) -> Result<String, ShardError> {
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
        Ok(hash.finalize().to_hex()[..32].to_owned())
    }

    /// Leaves `wanted` of `rows` (ascending; all if `None`) of one row group, as batches in row order with where each row was
    /// found, and what `then` makes of them on the thread that decodes.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        row_group: u32,
        rows: Option<&[u32]>,
        wanted: impl Fn(&str) -> bool,
        then: impl FnOnce(Vec<RecordBatch>, Vec<Origin>) -> Result<T, ShardError> + Send + 'static,
    ) -> Result<T, ShardError> {
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
        let leaves: Vec<usize> = (0..self.leaves.len()).filter(|&i| wanted(&self.leaves[i])).collect();
        self.bounds(row_group, &leaves)?;
        let source = self.source.at(place.clone(), rows.is_some());
        let schema = footer.file_metadata().schema_descr();
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
        let reader = stream.next_row_group().await.map_err(damaged)?;
        let before = footer.row_groups()[..row_group as usize].iter().map(|g| u64::try_from(g.num_rows()).unwrap_or(0));
        let numbers = Numbers { file: self.id, before: before.sum(), selected: rows.map(<[u32]>::to_vec) };
        let decoded = tokio::task::spawn_blocking(move || {
            let batches = reader.into_iter().flatten().collect::<Result<Vec<_>, _>>();
            batches.map(|batches| {
                let origins = numbers.of(&batches);
                then(batches, origins)
            })
        });
        match decoded.await {
            Ok(batches) => batches.map_err(|e| damaged(ParquetError::External(Box::new(e))))?,
            // The decoder panics at some kinds of damage.
            Err(error) => Err(damaged(ParquetError::External(Box::new(error)))),
        }
    }

    /// Whether rows of the leaves `wanted` can be fetched without those beside them: their pages are their own, and none
    /// needs a dictionary.
    pub(crate) fn keeps_rows_apart(&self, row_group: u32, wanted: impl Fn(&str) -> bool) -> bool {
        let rows = self.footer().row_group(row_group as usize).num_rows();
        let mut leaves = (0..self.leaves.len()).filter(|&leaf| wanted(&self.leaves[leaf]));
        leaves.all(|leaf| self.pages(row_group, leaf, |pages| pages.len() as i64 == rows).unwrap_or(false))
    }

    /// Whether single pages of the leaf `name` can be read: there is an index of them, and no dictionary of everything.
    pub(crate) fn has_pages(&self, row_group: u32, name: &str) -> bool {
        let leaf = self.leaves.iter().position(|leaf| leaf == name);
        leaf.is_some_and(|leaf| self.pages(row_group, leaf, |_| ()).is_some())
    }

    /// The leaf that begins with `prefix` and takes the fewest bytes in a row group.
    pub(crate) fn narrowest(&self, row_group: u32, prefix: &str) -> Option<&str> {
        let group = self.footer().row_group(row_group as usize);
        let leaves = self.leaves.iter().enumerate().filter(|(_, leaf)| leaf.starts_with(prefix));
        leaves.min_by_key(|(i, _)| group.column(*i).uncompressed_size()).map(|(_, leaf)| leaf.as_str())
    }

    /// Refuses what cannot be read later: compressions that are not built in, and pictures that only come all together and
    /// are too many for it.
    pub(crate) fn check_readable(&self) -> Result<(), ShardError> {
        for (number, group) in self.footer().row_groups().iter().enumerate() {
            let columns = self.leaves.iter().zip(group.columns()).filter(|(leaf, _)| Columns::ROWS.holds(leaf));
            for (leaf, column) in columns {
                let codec = column.compression();
                if !matches!(codec, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_)) {
                    let file = self.source.path.clone();
                    // Without its level.
                    let found = codec.to_string().chars().take_while(|c| *c != '(').collect();
                    return Err(ShardError::Codec { file, column: leaf.clone(), found });
                }
                let found = u64::try_from(column.uncompressed_size()).unwrap_or(u64::MAX);
                if leaf == IMAGE_BYTES && found > PICTURES_MAX && !self.has_pages(number as u32, leaf) {
                    let rows = u64::try_from(group.num_rows()).unwrap_or(u64::MAX);
                    let fits = (u128::from(rows) * u128::from(PICTURES_MAX) / u128::from(found)).max(1) as u64;
                    let place = Box::new(Place::file(&self.source.path).row_group(number as u32));
                    return Err(ShardError::Pictures { place, rows, found, limit: PICTURES_MAX, fits });
                }
            }
        }
        Ok(())
    }

    /// Bytes on the store that one row accounts for, of the leaves `wanted`: its share of the pages that hold it, or of the
    /// column where the file has no index of pages or the column a dictionary.
    pub(crate) fn bytes_of(&self, row_group: u32, row: u32, wanted: impl Fn(&str) -> bool) -> u64 {
        let group = self.footer().row_group(row_group as usize);
        let share_of_page = |pages: &[PageLocation]| {
            let after = pages.partition_point(|page| page.first_row_index <= i64::from(row));
            let Some(page) = after.checked_sub(1).map(|at| &pages[at]) else { return 0 };
            let end = pages.get(after).map_or(group.num_rows(), |next| next.first_row_index);
            i64::from(page.compressed_page_size) / (end - page.first_row_index).max(1)
        };
        let share = |leaf: usize| {
            let column = || group.column(leaf).compressed_size() / group.num_rows().max(1);
            self.pages(row_group, leaf, share_of_page).unwrap_or_else(column)
        };
        let leaves = (0..self.leaves.len()).filter(|&leaf| wanted(&self.leaves[leaf]));
        leaves.map(|leaf| u64::try_from(share(leaf)).unwrap_or(0)).sum()
    }

    /// What `look` says of the pages of a column that can be read one by one.
    fn pages<T>(&self, row_group: u32, leaf: usize, look: impl FnOnce(&[PageLocation]) -> T) -> Option<T> {
        let column = self.footer().row_group(row_group as usize).column(leaf);
        let index = self.footer().page_index_for_row_group(row_group as usize);
        let pages = index.offset_index(leaf)?.page_locations();
        (column.dictionary_page_offset().is_none() && !pages.is_empty()).then(|| look(pages))
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

/// What a file is by its path and footer. Vectors stand for the version of the data file that they were made for. A file of
/// another program does not say what it is: it is what the index knows it by, which the store's version of it is held against.
fn identity<'k>(file: &FileIndex, key: impl Fn(&str) -> Option<&'k str>) -> FileId {
    let path = file.path.as_str();
    match (key(KEY_KEY), key(DATA_KEY)) {
        (Some(vectors), Some(data)) => {
            FileId::of(path.strip_prefix(&text_vectors::vectors_path(vectors, "")).unwrap_or(path), data)
        }
        _ => key(CONTENT_KEY).map_or_else(|| file.id(), |content| FileId::of(path, content)),
    }
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

/// Holds a file's schema version against ours.
pub(crate) fn check_version(file: &ShardFile) -> Result<(), ShardError> {
    let found = file.key(VERSION_KEY).unwrap_or("none");
    if found == VERSION {
        return Ok(());
    }
    Err(ShardError::Version { file: file.source.path.clone(), found: found.into(), expected: VERSION })
}
