//! Reads rows of a split by row group, only the columns that are needed, by ranged GETs.
//!
//! Narrow columns (captions, boxes, masks) are fetched for a whole row group at once and kept; pictures and vectors,
//! which make up nearly all bytes, are fetched for the asked rows alone. Decoded row groups are kept up to a bound of
//! bytes, the least recently used ones leave first. A bad row is an error of its own and leaves its neighbours alone.

use crate::decode::{self, Decoded};
use crate::error::{FieldFault, Place, ShardError};
use crate::file::{Fetched, ShardFile, check_version};
use crate::row::{ImageRow, Region};
use crate::schema::{self, Columns, IMAGE_BYTES};
use crate::store::Location;
use crate::text_vectors::{self, RowVectors};
use bytes::Bytes;
use pixfleet_cluster::index::{DatasetIndex, FileIndex, SplitIndex};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of decoded row groups that are kept unless the caller says otherwise.
pub const CACHE_BYTES: usize = 256 << 20;

/// Reads one split of a dataset. Shared by reference among tasks.
pub struct RowGroupReader {
    location: Location,
    split: SplitIndex,
    vectors_key: Option<String>,
    cache_bytes: usize,
    fetched: Arc<Fetched>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    data: HashMap<String, ShardFile>,
    vectors: HashMap<String, ShardFile>,
    groups: HashMap<u32, Group>,
    bytes: usize,
    clock: u64,
}

/// What is kept of one row group.
#[derive(Default)]
struct Group {
    narrow: Option<(Columns, Arc<Vec<Decoded>>)>,
    images: HashMap<u32, Option<Bytes>>,
    vectors: HashMap<u32, Arc<RowVectors>>,
    bytes: usize,
    used: u64,
}

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
            location,
            cache_bytes: CACHE_BYTES,
            fetched: Arc::default(),
            state: Mutex::default(),
        })
    }

    /// Keeps at most about this many bytes of decoded row groups.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
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
        &self.fetched
    }

    /// Bytes of decoded row groups that are kept now.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes
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
        let (file, inner) = self.split.locate_row_group(row_group).ok_or_else(|| ShardError::Beyond {
            place: Box::new(self.place(row_group, 0)),
            limit: self.split.row_groups().count() as u64,
        })?;
        let total = file.row_groups[inner as usize].rows;
        if let Some(&row) = rows.iter().find(|&&r| r >= total) {
            return Err(ShardError::Beyond { place: Box::new(self.place(row_group, row)), limit: total.into() });
        }
        let at = At { file, inner, row_group };
        let narrow = self.narrow(&at, columns.narrow()).await?;
        let images = if columns.image { self.images(&at, rows).await? } else { HashMap::new() };
        let vectors = match &self.vectors_key {
            Some(key) if columns.vectors => Some(self.vectors(&at, rows, key).await?),
            _ => None,
        };
        Ok(rows
            .iter()
            .map(|&row| {
                let place = || self.place(row_group, row);
                let decoded = narrow
                    .get(row as usize)
                    .ok_or_else(|| ShardError::Beyond { place: Box::new(place()), limit: narrow.len() as u64 })?;
                if let Some((field, fault)) = decoded.faults.first() {
                    return Err(ShardError::field(place().field(field), Arc::clone(fault)));
                }
                let mut out = decoded.row.clone();
                match images.get(&row) {
                    Some(Ok(bytes)) => out.image.bytes.clone_from(bytes),
                    Some(Err(source)) => {
                        let source = parquet::errors::ParquetError::General(source.clone());
                        return Err(ShardError::Parquet { place: Box::new(place().field(IMAGE_BYTES)), source });
                    }
                    None => {}
                }
                if let Some(vectors) = &vectors {
                    attach(&mut out, &vectors[&row], columns)
                        .map_err(|(field, fault)| ShardError::field(place().field(field), fault))?;
                }
                Ok(out)
            })
            .collect())
    }

    /// All rows of a row group but pictures and vectors, decoded.
    async fn narrow(&self, at: &At<'_>, columns: Columns) -> Result<Arc<Vec<Decoded>>, ShardError> {
        let kept = self.with_group(at.row_group, |g| {
            g.narrow.as_ref().filter(|(c, _)| *c == columns).map(|(_, rows)| Arc::clone(rows))
        });
        if let Some(rows) = kept {
            return Ok(rows);
        }
        let file = self.open(at.file).await?;
        let batches = file.read(at.inner, None, |leaf| columns.holds(leaf)).await?;
        let mut rows = Vec::new();
        for batch in batches {
            rows.extend(decode::rows(&at.file.path, batch, columns)?);
        }
        let rows = Arc::new(rows);
        let bytes = rows.iter().map(weight).sum();
        self.keep(at.row_group, bytes, |g| g.narrow = Some((columns, Arc::clone(&rows))));
        Ok(rows)
    }

    /// The pictures of `rows`; damage is told row by row.
    async fn images(
        &self,
        at: &At<'_>,
        rows: &[u32],
    ) -> Result<HashMap<u32, Result<Option<Bytes>, String>>, ShardError> {
        let mut out: HashMap<u32, Result<Option<Bytes>, String>> = self.with_group(at.row_group, |g| {
            rows.iter().filter_map(|r| Some((*r, Ok(g.images.get(r)?.clone())))).collect()
        });
        let missing = missing(rows, |r| out.contains_key(&r));
        if missing.is_empty() {
            return Ok(out);
        }
        let file = self.open(at.file).await?;
        match self.fetch_images(&file, at, &missing).await {
            Ok(found) => out.extend(missing.iter().copied().zip(found.into_iter().map(Ok))),
            Err(error) if error.is_bad_data() => {
                for &row in &missing {
                    let one = match self.fetch_images(&file, at, &[row]).await {
                        Ok(found) => Ok(found.into_iter().next().flatten()),
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

    async fn fetch_images(
        &self,
        file: &ShardFile,
        at: &At<'_>,
        rows: &[u32],
    ) -> Result<Vec<Option<Bytes>>, ShardError> {
        let batches = file.read(at.inner, Some(rows), |leaf| leaf == IMAGE_BYTES).await?;
        let only = Columns { image: true, ..Columns::default() };
        let mut found = Vec::with_capacity(rows.len());
        for batch in batches {
            found.extend(decode::rows(&at.file.path, batch, only)?.into_iter().map(|d| d.row.image.bytes));
        }
        found.resize(rows.len(), None);
        let bytes = found.iter().flatten().map(Bytes::len).sum();
        self.keep(at.row_group, bytes, |g| g.images.extend(rows.iter().copied().zip(found.iter().cloned())));
        Ok(found)
    }

    async fn vectors(&self, at: &At<'_>, rows: &[u32], key: &str) -> Result<HashMap<u32, Arc<RowVectors>>, ShardError> {
        let mut out: HashMap<u32, Arc<RowVectors>> = self.with_group(at.row_group, |g| {
            rows.iter().filter_map(|r| Some((*r, Arc::clone(g.vectors.get(r)?)))).collect()
        });
        let missing = missing(rows, |r| out.contains_key(&r));
        if missing.is_empty() {
            return Ok(out);
        }
        let kept = self.state.lock().unwrap_or_else(PoisonError::into_inner).vectors.get(&at.file.path).cloned();
        let file = match kept {
            Some(file) => file,
            None => {
                let file = text_vectors::open(&self.location, key, at.file, &self.fetched).await?;
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.vectors.insert(at.file.path.clone(), file.clone());
                file
            }
        };
        let found = text_vectors::read(&file, &at.file.path, at.inner, Some(&missing)).await?;
        let found: Vec<Arc<RowVectors>> = found.into_iter().map(Arc::new).collect();
        let bytes = found.iter().map(|v| v.weight()).sum();
        self.keep(at.row_group, bytes, |g| g.vectors.extend(missing.iter().copied().zip(found.iter().cloned())));
        out.extend(missing.into_iter().zip(found));
        Ok(out)
    }

    async fn open(&self, file: &FileIndex) -> Result<ShardFile, ShardError> {
        let kept = self.state.lock().unwrap_or_else(PoisonError::into_inner).data.get(&file.path).cloned();
        if let Some(opened) = kept {
            return Ok(opened);
        }
        let opened = open(&self.location, file, &self.fetched).await?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.data.insert(file.path.clone(), opened.clone());
        Ok(opened)
    }

    fn with_group<T: Default>(&self, row_group: u32, look: impl FnOnce(&Group) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        let Some(group) = state.groups.get_mut(&row_group) else { return T::default() };
        group.used = now;
        look(group)
    }

    /// Keeps something of `bytes` with a row group; others leave while there are too many bytes.
    fn keep(&self, row_group: u32, bytes: usize, put: impl FnOnce(&mut Group)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        let group = state.groups.entry(row_group).or_default();
        group.used = now;
        group.bytes += bytes;
        put(group);
        state.bytes += bytes;
        while state.bytes > self.cache_bytes {
            let Some((&oldest, _)) = state.groups.iter().min_by_key(|(_, g)| g.used) else { break };
            let gone = state.groups.remove(&oldest).map_or(0, |g| g.bytes);
            state.bytes -= gone;
        }
    }
}

/// A row group of a file.
struct At<'a> {
    file: &'a FileIndex,
    /// Within the file.
    inner: u32,
    /// Within the split.
    row_group: u32,
}

/// A data file with its schema checked.
pub(crate) async fn open(
    location: &Location,
    file: &FileIndex,
    fetched: &Arc<Fetched>,
) -> Result<ShardFile, ShardError> {
    let opened = ShardFile::open(location, file, fetched).await?;
    check_version(&opened)?;
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

/// About how many bytes a decoded row takes.
fn weight(decoded: &Decoded) -> usize {
    let row = &decoded.row;
    let text = |t: &Option<String>| t.as_ref().map_or(0, String::len);
    let region = |r: &Region| {
        size_of::<Region>()
            + r.mask.as_ref().map_or(0, |m| 4 * m.counts.len())
            + [&r.category, &r.caption_object, &r.caption_context, &r.caption_merged, &r.short_expr, &r.long_expr]
                .into_iter()
                .map(text)
                .sum::<usize>()
            + r.hard_negs.iter().map(|t| t.len() + size_of::<String>()).sum::<usize>()
            + r.hard_neg_kinds.len()
            + r.text_emb.as_ref().map_or(0, |v| 4 * v.len())
    };
    size_of::<Decoded>()
        + row.image.bytes.as_ref().map_or(0, Bytes::len)
        + text(&row.caption_long)
        + text(&row.caption_short)
        + [&row.caption_long_emb, &row.caption_short_emb].into_iter().flatten().map(|v| 4 * v.len()).sum::<usize>()
        + row.regions.iter().map(region).sum::<usize>()
}
