//! Rows -> Parquet parts `<split>/part-00000.parquet`.
//!
//! Row groups are sized for ranged reads; a picture is a page of its own, so one can be fetched without its
//! neighbours. A row that breaks a rule is refused here, before it is on the store.

use crate::encode;
use crate::error::{Place, ShardError};
use crate::row::ImageRow;
use crate::schema::{CONTENT_KEY, REGIONS_KEY, VERSION, VERSION_KEY, schema};
use crate::store::Location;
use arrow_schema::ArrowError;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use tokio::task::JoinHandle;

/// Sizes of what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterOptions {
    /// A row group ends at this many rows,
    pub rows_per_group: u32,
    /// or at this many bytes of pictures.
    pub image_bytes_per_group: u64,
    /// A file ends at about this many bytes; a part is held in memory until it is complete.
    pub bytes_per_file: u64,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { rows_per_group: 64, image_bytes_per_group: 8 << 20, bytes_per_file: 128 << 20 }
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Files.
    pub files: u32,
    /// Rows.
    pub rows: u64,
    /// Regions.
    pub regions: u64,
    /// Bytes on the store.
    pub bytes: u64,
}

/// Columns with statistics of each row group in the footer: what filters ask for (arrow calls the leaf of a list `item`).
const COUNTED: [&[&str]; 9] = [
    &["source"],
    &["width"],
    &["height"],
    &["lang"],
    &["clip_sim_b32"],
    &["clip_sim_l14"],
    &["regions", "list", "item", "score"],
    &["regions", "list", "item", "category"],
    &["regions", "list", "item", "check_ok"],
];

/// Writes one Parquet file in memory.
pub struct PartWriter {
    file: String,
    options: WriterOptions,
    arrow: ArrowWriter<Vec<u8>>,
    pending: Vec<ImageRow>,
    pending_bytes: u64,
    regions: Vec<u64>,
    rows: u64,
}

impl PartWriter {
    /// `file` is its path within the dataset.
    ///
    /// # Errors
    /// [`ShardError::Write`].
    pub fn new(file: impl Into<String>, options: WriterOptions) -> Result<Self, ShardError> {
        let file = file.into();
        let plain = properties(&[&["image", "bytes"]])
            .set_column_compression(ColumnPath::new(vec!["image".into(), "bytes".into()]), Compression::UNCOMPRESSED);
        let properties = COUNTED.iter().fold(plain, |builder, path| {
            let column = ColumnPath::new(path.iter().map(|&p| p.into()).collect());
            builder.set_column_statistics_enabled(column, EnabledStatistics::Chunk)
        });
        let properties = properties.build();
        let arrow = ArrowWriter::try_new(Vec::new(), schema(), Some(properties)).map_err(write_error(&file))?;
        Ok(Self { file, options, arrow, pending: Vec::new(), pending_bytes: 0, regions: Vec::new(), rows: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// [`ShardError::Field`] for a row that breaks a rule, [`ShardError::Write`].
    pub fn push(&mut self, row: ImageRow) -> Result<(), ShardError> {
        if let Some((field, fault)) = row.faults().into_iter().next() {
            let place = Place::file(&self.file).row_group(self.regions.len() as u32).row(self.pending.len() as u32);
            return Err(ShardError::field(place.field(field), fault));
        }
        self.push_unchecked(row)
    }

    /// Adds a row as it is: for tests of what readers do with bad rows.
    ///
    /// # Errors
    /// [`ShardError::Write`].
    #[doc(hidden)]
    pub fn push_unchecked(&mut self, row: ImageRow) -> Result<(), ShardError> {
        self.pending_bytes += row.image.bytes.as_ref().map_or(0, |b| b.len() as u64);
        self.pending.push(row);
        self.rows += 1;
        let full = self.pending.len() >= self.options.rows_per_group.max(1) as usize;
        if full || self.pending_bytes >= self.options.image_bytes_per_group { self.end_row_group() } else { Ok(()) }
    }

    /// Bytes of the row groups that are complete.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.arrow.bytes_written() as u64
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Regions of the row groups that are complete.
    #[must_use]
    pub fn regions(&self) -> u64 {
        self.regions.iter().sum()
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`ShardError::Write`].
    pub fn finish(mut self) -> Result<Bytes, ShardError> {
        self.end_row_group()?;
        let regions = serde_json::to_string(&self.regions).expect("numbers are JSON");
        finish_file(self.arrow, &self.file, &[(REGIONS_KEY, regions)])
    }

    fn end_row_group(&mut self) -> Result<(), ShardError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.regions.push(rows.iter().map(|r| r.regions.len() as u64).sum());
        let batch = encode::batch(&rows).map_err(arrow_error).map_err(write_error(&self.file))?;
        self.arrow.write(&batch).and_then(|()| self.arrow.flush()).map_err(write_error(&self.file))
    }
}

/// Properties of all our files: zstd, no statistics but those of [`COUNTED`] in data files, and for `wide` columns a page for each row.
pub(crate) fn properties(wide: &[&[&str]]) -> WriterPropertiesBuilder {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a level"));
    let builder = WriterProperties::builder()
        .set_created_by(concat!("pixfleet ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(zstd)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(None)
        // Page limits are looked at after every batch of this many values.
        .set_write_batch_size(1);
    wide.iter().fold(builder, |builder, path| {
        let column = ColumnPath::new(path.iter().map(|&p| p.into()).collect());
        builder.set_column_dictionary_enabled(column.clone(), false).set_column_data_page_row_count_limit(column, 1)
    })
}

/// Adds version, content hash and `keys` to the footer; the bytes of the file.
pub(crate) fn finish_file(
    mut arrow: ArrowWriter<Vec<u8>>,
    file: &str,
    keys: &[(&str, String)],
) -> Result<Bytes, ShardError> {
    arrow.flush().map_err(write_error(file))?;
    arrow.sync().map_err(|e| write_error(file)(ParquetError::External(Box::new(e))))?;
    let mut hash = blake3::Hasher::new();
    hash.update(arrow.inner());
    let mut put = |key: &str, value: &str| {
        hash_key(&mut hash, key, value);
        arrow_key(key, value)
    };
    let mut all = vec![put(VERSION_KEY, VERSION)];
    all.extend(keys.iter().map(|(key, value)| put(key, value)));
    all.push(arrow_key(CONTENT_KEY, &hash.finalize().to_hex()[..32]));
    for key in all {
        arrow.append_key_value_metadata(key);
    }
    Ok(arrow.into_inner().map_err(write_error(file))?.into())
}

/// Keys tell content apart beyond the bytes of the rows, as a vectors file's own key does.
pub(crate) fn hash_key(hash: &mut blake3::Hasher, key: &str, value: &str) {
    hash.update(key.as_bytes()).update(&[0]).update(value.as_bytes()).update(&[0]);
}

fn arrow_key(key: &str, value: &str) -> KeyValue {
    KeyValue::new(key.to_owned(), value.to_owned())
}

pub(crate) fn write_error(file: &str) -> impl Fn(ParquetError) -> ShardError + '_ {
    move |source| ShardError::Write { file: file.into(), source }
}

pub(crate) fn arrow_error(error: ArrowError) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// Path within the dataset of part `number` of `split`.
#[must_use]
pub fn part_path(split: &str, number: u32) -> String {
    format!("{split}/part-{number:05}.parquet")
}

/// Writes the parts of one split to the store, one after the other. The split is replaced: parts of an earlier one
/// that are not overwritten are deleted by [`ShardWriter::finish`].
pub struct ShardWriter {
    location: Location,
    split: String,
    options: WriterOptions,
    part: Option<PartWriter>,
    written: Written,
    /// Whether a part goes up while the next one is made.
    is_overlapped: bool,
    upload: Option<JoinHandle<Result<(), ShardError>>>,
}

impl ShardWriter {
    /// Nothing is written yet.
    #[must_use]
    pub fn new(location: Location, split: impl Into<String>, options: WriterOptions) -> Self {
        let (split, written) = (split.into(), Written::default());
        Self { location, split, options, part: None, written, is_overlapped: false, upload: None }
    }

    /// Goes on after the parts that `written` counts, as if they had just been written.
    #[must_use]
    pub fn after(self, written: Written) -> Self {
        Self { written, ..self }
    }

    /// Puts a part on the store while the next one is made: two are in memory then. [`ShardWriter::landed`] waits for it.
    #[must_use]
    pub fn overlapped(self) -> Self {
        Self { is_overlapped: true, ..self }
    }

    /// The parts that are complete; the last of them may still be on its way.
    #[must_use]
    pub fn written(&self) -> Written {
        self.written
    }

    /// Whether a part is on its way.
    #[must_use]
    pub fn is_uploading(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| !upload.is_finished())
    }

    /// Waits until all parts that are complete are on the store.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn landed(&mut self) -> Result<(), ShardError> {
        match self.upload.take() {
            Some(upload) => upload.await?,
            None => Ok(()),
        }
    }

    /// Adds a row; writes a part when it is full.
    ///
    /// # Errors
    /// Those of [`PartWriter::push`], and of the store.
    pub async fn push(&mut self, row: ImageRow) -> Result<(), ShardError> {
        let mut part = match self.part.take() {
            Some(part) => part,
            None => PartWriter::new(part_path(&self.split, self.written.files), self.options)?,
        };
        let pushed = part.push(row);
        let full = part.bytes() >= self.options.bytes_per_file;
        self.part = Some(part);
        pushed?;
        if full { self.end_part().await } else { Ok(()) }
    }

    /// Writes the last part.
    ///
    /// # Errors
    /// Those of [`PartWriter::finish`], and of the store.
    pub async fn finish(mut self) -> Result<Written, ShardError> {
        self.end_part().await?;
        self.landed().await?;
        let kept: Vec<String> = (0..self.written.files).map(|n| part_path(&self.split, n)).collect();
        let failed = |source| ShardError::store(self.location.url_of(&self.split), "list", source);
        let store = self.location.store();
        let folder = self.location.path(&self.split);
        let found: Vec<_> = store.list(Some(&folder)).map_ok(|m| m.location).try_collect().await.map_err(failed)?;
        let stale = |p: &object_store::path::Path| {
            self.location.relative(p).is_some_and(|r| r.ends_with(".parquet") && !kept.contains(&r))
        };
        futures::stream::iter(found.iter().filter(|p| stale(p)))
            .map(|path| store.delete(path))
            .buffer_unordered(8)
            .try_collect::<()>()
            .await
            .map_err(|source| ShardError::store(self.location.url_of(&self.split), "delete from", source))?;
        Ok(self.written)
    }

    async fn end_part(&mut self) -> Result<(), ShardError> {
        let Some(part) = self.part.take() else { return Ok(()) };
        let path = part_path(&self.split, self.written.files);
        let rows = part.rows();
        let regions = part.regions() + part.pending.iter().map(|r| r.regions.len() as u64).sum::<u64>();
        let bytes = part.finish()?;
        self.landed().await?;
        self.written.files += 1;
        self.written.rows += rows;
        self.written.regions += regions;
        self.written.bytes += bytes.len() as u64;
        if !self.is_overlapped {
            return self.location.put(&path, bytes).await;
        }
        let location = self.location.clone();
        self.upload = Some(tokio::spawn(async move { location.put(&path, bytes).await }));
        Ok(())
    }
}
