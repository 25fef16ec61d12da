//! Reads rows of a split by row group, only the columns that are needed, by ranged GETs.
//!
//! Narrow columns (captions, boxes, masks) are fetched for a whole row group at once and kept; pictures and vectors,
//! which make up nearly all bytes, are fetched for the asked rows alone, all of it in one round. What was decoded is kept up
//! to a bound of bytes ([`crate::cache`]). A bad row is an error of its own and leaves its neighbours alone.

use crate::access::{Access, Fetched, Gate};
use crate::cache::{Cache, FoundImage, FoundVectors, Narrow};
use crate::decode::{self, Decoded};
use crate::error::{FieldFault, Place, ShardError};
use crate::file::{ShardFile, check_version};
use crate::row::{ImageRow, Region};
use crate::schema::{self, Columns, IMAGE_BYTES, VERSION_KEY};
use crate::store::Location;
use crate::text_vectors::{self, RowVectors};
use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;
use pixfleet_cluster::index::{DatasetIndex, FileIndex, SplitIndex};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of decoded row groups that are kept unless the caller says otherwise.
pub const CACHE_BYTES: usize = 256 << 20;

/// Reads one split of a dataset. Shared by reference among tasks.
pub struct RowGroupReader {
    access: Access,
    split: SplitIndex,
    vectors_key: Option<String>,
    cache: Cache,
    /// Pictures of a whole row group are read by one at a time: they are many bytes, and the others may find theirs then.
    whole: tokio::sync::Mutex<()>,
}

/// A row's picture, or in words what is wrong with it.
type Picture = Result<FoundImage, String>;

impl RowGroupReader {
    /// A reader of `split`; with a `vectors_key`, `Columns::vectors` reads the text vectors of that key.
    ///
    /// # Errors
    /// [`ShardError::NoSplit`].
    pub fn new(
        location: Location,
        index: &DatasetIndex,
        split: &str,
        vectors_key: Option<&str>,
    ) -> Result<Self, ShardError> {
        let found = index.split(split).ok_or_else(|| ShardError::NoSplit {
            url: location.url().into(),
            split: split.into(),
            known: index.splits.keys().cloned().collect::<Vec<_>>().join(", "),
        })?;
        Ok(Self {
            split: found.clone(),
            vectors_key: vectors_key.map(Into::into),
            access: Access::new(location),
            cache: Cache::new(CACHE_BYTES),
            whole: tokio::sync::Mutex::default(),
        })
    }

    /// Keeps at most about this many bytes of decoded row groups.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache = Cache::new(bytes);
        self
    }

    /// The split that is read.
    #[must_use]
    pub fn split(&self) -> &SplitIndex {
        &self.split
    }

    /// Counts of what was fetched.
    #[must_use]
    pub fn fetched(&self) -> &Fetched {
        &self.access.fetched
    }

    /// How many requests may be under way.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.access.gate
    }

    /// Bytes of decoded row groups that are kept now.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Where a row is, for messages: `row_group` counts over all files of the split.
    #[must_use]
    pub fn place(&self, row_group: u32, row: u32) -> Place {
        match self.split.locate_row_group(row_group) {
            Some((file, inner)) => Place::file(&file.path).row_group(inner).row(row),
            None => Place::default().row_group(row_group).row(row),
        }
    }

    /// `rows` of a row group (which counts over all files of the split), in the order asked for.
    ///
    /// # Errors
    /// The first bad row, or whatever kept the row group from being read.
    pub async fn read(&self, row_group: u32, rows: &[u32], columns: Columns) -> Result<Vec<ImageRow>, ShardError> {
        self.read_each(row_group, rows, columns).await?.into_iter().collect()
    }

    /// Like [`RowGroupReader::read`], with a verdict for each row, so that bad rows can be replaced.
    ///
    /// # Errors
    /// Whatever kept the row group from being read; [`ShardError::is_bad_data`] tells damage from a store's trouble.
    pub async fn read_each(
        &self,
        row_group: u32,
        rows: &[u32],
        columns: Columns,
    ) -> Result<Vec<Result<ImageRow, ShardError>>, ShardError> {
        let at = self.at(row_group, rows)?;
        let (data, beside) = self.open(&at, columns).await?;
        // All three are waited for before any fault is told, so that the same one is told each time.
        let (narrow, images, vectors) = tokio::join!(
            self.narrow(&data, &at, columns.narrow()),
            self.images(&data, &at, rows, columns),
            self.vectors(beside.as_ref(), &at, rows, columns),
        );
        let (narrow, images, vectors) = (narrow?, images?, vectors?);
        self.access.fetched.use_bytes(used(&data, beside.as_ref(), &at, rows, columns));
        let row = |&row: &u32| {
            let place = || self.place(row_group, row);
            let decoded = narrow
                .get(row as usize)
                .ok_or_else(|| ShardError::Beyond { place: Box::new(place()), limit: narrow.len() as u64 })?;
            if let Some((field, fault)) = decoded.faults.first() {
                return Err(ShardError::field(place().field(field), Arc::clone(fault)));
            }
            let mut out = decoded.row.clone();
            let (mut picture, mut beside_it) = (None, None);
            match images.get(&row) {
                Some(Ok(found)) => {
                    out.image.bytes.clone_from(&found.bytes);
                    picture = found.origin;
                }
                Some(Err(source)) => {
                    let source = parquet::errors::ParquetError::General(source.clone());
                    return Err(ShardError::Parquet { place: Box::new(place().field(IMAGE_BYTES)), source });
                }
                None => {}
            }
            if beside.is_some() {
                let (found, origin) = &*vectors[&row];
                attach(&mut out, found, columns)
                    .map_err(|(field, fault)| ShardError::field(place().field(field), fault))?;
                beside_it = Some(*origin);
            }
            if let Some(origins) = &mut out.whence.0 {
                (origins.picture, origins.vectors) = (picture, beside_it);
            }
            Ok(out)
        };
        Ok(rows.iter().map(row).collect())
    }

    /// Opens the files of a row group ahead of its rows, unless they are open.
    ///
    /// # Errors
    /// Whatever keeps a file from being opened.
    pub async fn prepare(&self, row_group: u32, columns: Columns) -> Result<(), ShardError> {
        self.open(&self.at(row_group, &[])?, columns).await.map(drop)
    }

    /// The footer of the data file that holds a row group, and the row group's number in it.
    pub(crate) async fn footer(&self, row_group: u32) -> Result<(Arc<ParquetMetaData>, usize), ShardError> {
        let at = self.at(row_group, &[])?;
        let (data, _) = self.open(&at, Columns::default()).await?;
        Ok((Arc::clone(data.footer()), at.inner as usize))
    }

    /// Bytes that a row of `row_group` takes on the store on average, by the index alone: its picture and its share of all
    /// columns of the data file.
    #[must_use]
    pub fn row_bytes(&self, row_group: u32) -> u64 {
        let group = self.split.locate_row_group(row_group).map(|(file, inner)| &file.row_groups[inner as usize]);
        group.map_or(0, |group| (group.end - group.start) / u64::from(group.rows.max(1)))
    }

    fn at(&self, row_group: u32, rows: &[u32]) -> Result<At<'_>, ShardError> {
        let (file, inner) = self.split.locate_row_group(row_group).ok_or_else(|| ShardError::Beyond {
            place: Box::new(self.place(row_group, 0)),
            limit: self.split.row_groups().count() as u64,
        })?;
        let total = file.row_groups[inner as usize].rows;
        if let Some(&row) = rows.iter().find(|&&r| r >= total) {
            return Err(ShardError::Beyond { place: Box::new(self.place(row_group, row)), limit: total.into() });
        }
        Ok(At { file, inner, row_group })
    }

    /// All rows of a row group but pictures and vectors, decoded.
    async fn narrow(&self, file: &ShardFile, at: &At<'_>, columns: Columns) -> Result<Narrow, ShardError> {
        let cell = self.cache.narrow(at.row_group, columns);
        let fetch = async || {
            let decode = decode::all_rows(file.path(), columns);
            let rows = file.read(at.inner, None, |leaf| columns.holds(leaf), decode).await?;
            self.cache.narrowed(at.row_group, columns, rows.iter().map(|d| d.row.weight()).sum());
            Ok(Arc::new(rows))
        };
        cell.get_or_try_init(fetch).await.cloned()
    }

    /// The pictures of `rows`; damage is told row by row.
    async fn images(
        &self,
        file: &ShardFile,
        at: &At<'_>,
        rows: &[u32],
        columns: Columns,
    ) -> Result<HashMap<u32, Picture>, ShardError> {
        if !columns.image {
            return Ok(HashMap::new());
        }
        let mut out = self.kept_images(at, rows);
        let missing = missing(rows, |r| out.contains_key(&r));
        if missing.is_empty() {
            return Ok(out);
        }
        if !file.has_pages(at.inner, IMAGE_BYTES) {
            return self.whole_images(file, at, rows).await;
        }
        match self.fetch_images(file, at, &missing).await {
            Ok(found) => out.extend(missing.iter().copied().zip(found.into_iter().map(Ok))),
            Err(error) if error.is_bad_data() => {
                for &row in &missing {
                    let one = match self.fetch_images(file, at, &[row]).await {
                        Ok(found) => Ok(found.into_iter().next().unwrap_or_default()),
                        Err(error) if error.is_bad_data() => Err(error.to_string()),
                        Err(error) => return Err(error),
                    };
                    out.insert(row, one);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(out)
    }

    fn kept_images(&self, at: &At<'_>, rows: &[u32]) -> HashMap<u32, Picture> {
        self.cache.find(at.row_group, |kept| {
            rows.iter().filter_map(|r| Some((*r, Ok(kept.images.get(r)?.clone())))).collect()
        })
    }

    /// The pictures of `rows` where none can be read without its neighbours, as in most files of other programs: those of
    /// the row group, of which as many are kept as the cache holds.
    async fn whole_images(
        &self,
        file: &ShardFile,
        at: &At<'_>,
        rows: &[u32],
    ) -> Result<HashMap<u32, Picture>, ShardError> {
        let _one = self.whole.lock().await;
        let kept = self.kept_images(at, rows);
        if rows.iter().all(|row| kept.contains_key(row)) {
            return Ok(kept);
        }
        let all: Vec<u32> = (0..at.file.row_groups[at.inner as usize].rows).collect();
        match self.fetch_images(file, at, &all).await {
            Ok(found) => Ok(rows.iter().map(|&row| (row, Ok(found[row as usize].clone()))).collect()),
            Err(error) if error.is_bad_data() => Ok(rows.iter().map(|&row| (row, Err(error.to_string()))).collect()),
            Err(error) => Err(error),
        }
    }

    async fn fetch_images(&self, file: &ShardFile, at: &At<'_>, rows: &[u32]) -> Result<Vec<FoundImage>, ShardError> {
        let decode = decode::all_rows(file.path(), Columns { image: true, ..Columns::default() });
        let decoded = file.read(at.inner, Some(rows), |leaf| leaf == IMAGE_BYTES, decode).await?;
        let found = decoded.into_iter().map(|Decoded { row, .. }| FoundImage {
            bytes: row.image.bytes,
            origin: row.whence.0.map(|origins| origins.narrow),
        });
        let mut found: Vec<FoundImage> = found.collect();
        found.resize(rows.len(), FoundImage::default());
        let bytes = found.iter().filter_map(|image| image.bytes.as_ref()).map(Bytes::len).sum();
        self.cache
            .keep(at.row_group, bytes, |kept| kept.images.extend(rows.iter().copied().zip(found.iter().cloned())));
        Ok(found)
    }

    /// The vectors of `rows`; none without a file of vectors.
    async fn vectors(
        &self,
        file: Option<&ShardFile>,
        at: &At<'_>,
        rows: &[u32],
        columns: Columns,
    ) -> Result<HashMap<u32, FoundVectors>, ShardError> {
        let Some(file) = file else { return Ok(HashMap::new()) };
        // Where there are captions to compare them with.
        let hashes = columns.captions;
        let mut out: HashMap<u32, FoundVectors> = self.cache.find(at.row_group, |kept| {
            rows.iter().filter_map(|&r| Some((r, Arc::clone(kept.vectors.get(&(r, hashes))?)))).collect()
        });
        let mut missing = missing(rows, |r| out.contains_key(&r));
        if missing.is_empty() {
            return Ok(out);
        }
        if !file.keeps_rows_apart(at.inner, |leaf| text_vectors::is_read(leaf, false)) {
            // Earlier versions wrote all vectors of a row group into a dictionary, which every row needs.
            missing = (0..at.file.row_groups[at.inner as usize].rows).collect();
        }
        let found = text_vectors::found(file, &at.file.path, at.inner, Some(&missing), hashes).await?;
        let found: Vec<FoundVectors> = found.into_iter().map(Arc::new).collect();
        let bytes = found.iter().map(|v| v.0.weight()).sum();
        let kept = missing.iter().map(|&row| (row, hashes)).zip(found.iter().cloned());
        self.cache.keep(at.row_group, bytes, |rows| rows.vectors.extend(kept));
        out.extend(missing.into_iter().zip(found));
        Ok(out)
    }

    /// The data file of a row group, and the vectors beside it where `columns` have them.
    async fn open(&self, at: &At<'_>, columns: Columns) -> Result<(ShardFile, Option<ShardFile>), ShardError> {
        let path = &at.file.path;
        let data = self.opened(path, async || open(&self.access, at.file).await);
        let Some(key) = self.vectors_key.as_ref().filter(|_| columns.vectors) else { return Ok((data.await?, None)) };
        let beside = text_vectors::vectors_path(key, path);
        let vectors = self.opened(&beside, async || text_vectors::open(&self.access, key, at.file).await);
        let (data, vectors) = tokio::join!(data, vectors);
        Ok((data?, Some(vectors?)))
    }

    /// The file at `path`, opened by one of those who ask for it.
    async fn opened(
        &self,
        path: &str,
        open: impl AsyncFnOnce() -> Result<ShardFile, ShardError>,
    ) -> Result<ShardFile, ShardError> {
        let cell = self.cache.file(path);
        let fetch = async || {
            let file = open().await?;
            self.cache.opened(path, &file);
            Ok(file)
        };
        cell.get_or_try_init(fetch).await.cloned()
    }
}

/// Bytes on the store that `rows` account for.
fn used(data: &ShardFile, beside: Option<&ShardFile>, at: &At<'_>, rows: &[u32], columns: Columns) -> u64 {
    let vectors = |row| {
        beside.map_or(0, |file| file.bytes_of(at.inner, row, |leaf| text_vectors::is_read(leaf, columns.captions)))
    };
    rows.iter().map(|&row| data.bytes_of(at.inner, row, |leaf| columns.holds(leaf)) + vectors(row)).sum()
}

/// A row group of a file.
struct At<'a> {
    file: &'a FileIndex,
    /// Within the file.
    inner: u32,
    /// Within the split.
    row_group: u32,
}

/// A data file with its schema checked. One that another program wrote has no version: it is what its columns are.
pub(crate) async fn open(access: &Access, file: &FileIndex) -> Result<ShardFile, ShardError> {
    let opened = ShardFile::open(access, file).await?;
    if opened.key(VERSION_KEY).is_some() {
        check_version(&opened)?;
    }
    opened.check_readable()?;
    schema::check(&file.path, opened.footer().file_metadata().schema_descr())?;
    Ok(opened)
}

/// The rows that are not there yet, ascending, each once.
fn missing(rows: &[u32], have: impl Fn(u32) -> bool) -> Vec<u32> {
    let mut missing: Vec<u32> = rows.iter().copied().filter(|&r| !have(r)).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Puts vectors into their row. Where captions were read, the vectors must be those of the captions.
pub(crate) fn attach(row: &mut ImageRow, vectors: &RowVectors, columns: Columns) -> Result<(), (String, FieldFault)> {
    if columns.has_regions() && row.regions.len() != vectors.short.len() {
        let fault = FieldFault::Regions { found: vectors.short.len(), expected: row.regions.len() };
        return Err(("regions".into(), fault));
    }
    row.regions.resize_with(vectors.short.len(), Region::default);
    let other = |text: Option<&str>, hash: &Option<text_vectors::TextHash>| {
        columns.captions && text.map(text_vectors::text_hash) != *hash
    };
    if other(row.image_text(), &vectors.image.hash) {
        return Err(("image_vector".into(), FieldFault::OtherText));
    }
    row.image_vector.clone_from(&vectors.image.values);
    for (i, region) in row.regions.iter_mut().enumerate() {
        let (short, long) = (&vectors.short[i], &vectors.long[i]);
        for (name, text, vector) in
            [("short_vector", region.short_text(), short), ("long_vector", region.long_text(), long)]
        {
            if other(text, &vector.hash) {
                return Err((format!("regions[{i}].{name}"), FieldFault::OtherText));
            }
        }
        region.short_vector.clone_from(&short.values);
        region.long_vector.clone_from(&long.values);
    }
    match row.faults().into_iter().find(|(field, _)| field.ends_with("_vector")) {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
