//! Makes, opens and checks the index of a dataset (the types are in `pixfleet_cluster::index`).
//!
//! An index is an immutable object `index/<digest>.json`; `index/latest.json` names the newest.

use crate::access::Access;
use crate::error::{Change, ShardError};
use crate::file::ShardFile;
use crate::reader;
use crate::schema::{CONTENT_KEY, IMAGE_BYTES, REGIONS_KEY, VERSION, leaf_name};
use crate::store::Location;
use arrow_array::cast::AsArray;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};
pub use pixfleet_cluster::index::{DatasetIndex, FileIndex, LATEST, Latest, RowGroupIndex, SplitIndex};
use std::collections::BTreeMap;

/// Footers that are read at the same time.
const PARALLEL: usize = 16;

/// Reads the footer of every `<split>/*.parquet` and writes the index; of files without our footer keys, which another
/// program wrote, also all bytes once, for their hash. `progress` gets files done and files in all.
///
/// # Errors
/// Those of the store, of truncated files and of foreign schemas; [`ShardError::NoFiles`].
pub async fn build(
    location: &Location,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<DatasetIndex, ShardError> {
    let found = data_files(location).await?;
    if found.is_empty() {
        return Err(ShardError::NoFiles { url: location.url().into() });
    }
    let total = found.len() as u64;
    let mut splits: BTreeMap<String, SplitIndex> = BTreeMap::new();
    let mut indexed = futures::stream::iter(found).map(|bare| file(location, bare)).buffered(PARALLEL);
    let mut done = 0;
    while let Some(file) = indexed.try_next().await? {
        let split = file.path.split('/').next().unwrap_or_default().to_owned();
        splits.entry(split).or_default().files.push(file);
        done += 1;
        progress(done, total);
    }
    let index = DatasetIndex::new(VERSION, splits);
    let json = |value: Result<Vec<u8>, serde_json::Error>| {
        value.map_err(|source| ShardError::IndexFormat { file: LATEST.into(), source })
    };
    // Equal data at other times has the same digest but other etags: the newest etags are the useful ones.
    location.put(&index.path(), json(serde_json::to_vec_pretty(&index))?).await?;
    location.put(LATEST, json(serde_json::to_vec(&index.latest()))?).await?;
    Ok(index)
}

/// The newest index.
///
/// # Errors
/// [`ShardError::NoIndex`], [`ShardError::IndexFormat`], [`ShardError::Version`], and those of the store.
pub async fn open(location: &Location) -> Result<DatasetIndex, ShardError> {
    let absent = |error| match error {
        ShardError::NotFound { .. } => ShardError::NoIndex { url: location.url().into() },
        other => other,
    };
    let latest = location.get(LATEST).await.map_err(absent)?;
    let latest: Latest =
        serde_json::from_slice(&latest).map_err(|source| ShardError::IndexFormat { file: LATEST.into(), source })?;
    let bytes = location.get(&latest.path).await.map_err(absent)?;
    let index: DatasetIndex = serde_json::from_slice(&bytes)
        .map_err(|source| ShardError::IndexFormat { file: latest.path.clone(), source })?;
    if index.schema_version != VERSION {
        return Err(ShardError::Version { file: latest.path, found: index.schema_version, expected: VERSION });
    }
    Ok(index)
}

/// Holds sizes and versions of the files against the index, by listing only.
///
/// # Errors
/// [`ShardError::Stale`], and those of the store.
pub async fn check_fresh(location: &Location, index: &DatasetIndex) -> Result<(), ShardError> {
    let mut now: BTreeMap<String, ObjectMeta> = files(location).await?.into_iter().collect();
    let mut list = Vec::new();
    for indexed in index.splits.values().flat_map(|s| &s.files) {
        let file = indexed.path.clone();
        match now.remove(&indexed.path) {
            None => list.push(Change::Gone { file }),
            Some(meta) if meta.size != indexed.size => {
                list.push(Change::Size { file, indexed: indexed.size, now: meta.size });
            }
            Some(meta) if other_version(indexed.etag.as_deref(), &meta) => list.push(Change::Version { file }),
            Some(_) => {}
        }
    }
    list.extend(now.into_keys().map(|file| Change::New { file }));
    if list.is_empty() { Ok(()) } else { Err(ShardError::Stale { url: location.url().into(), list }) }
}

/// Whether an object is another version than the one that was indexed; a store without versions cannot tell.
pub(crate) fn other_version(indexed: Option<&str>, now: &ObjectMeta) -> bool {
    matches!((indexed, now.e_tag.as_deref()), (Some(indexed), Some(now)) if indexed != now)
}

/// Data files by path: Parquet files exactly one folder down, that of their split.
async fn files(location: &Location) -> Result<Vec<(String, ObjectMeta)>, ShardError> {
    let failed = |source| ShardError::store(location.url().into(), "list", source);
    let root = location.path("");
    let store = location.store();
    let mut found: Vec<(String, ObjectMeta)> = store
        .list(Some(&root))
        .try_filter_map(|meta| {
            let path = location.relative(&meta.location).filter(|p| is_data(p));
            futures::future::ready(Ok(path.map(|path| (path, meta))))
        })
        .try_collect()
        .await
        .map_err(failed)?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn is_data(path: &str) -> bool {
    let mut parts = path.split('/');
    let split = parts.next().unwrap_or_default();
    let file = parts.next().unwrap_or_default();
    parts.next().is_none() && file.ends_with(".parquet") && split != "index" && split != "vectors"
}

/// Data files as they are now; their footers are not read yet.
pub(crate) async fn data_files(location: &Location) -> Result<Vec<FileIndex>, ShardError> {
    let bare = |(path, meta): (String, ObjectMeta)| FileIndex {
        path,
        size: meta.size,
        etag: meta.e_tag,
        content: None,
        row_groups: Vec::new(),
    };
    Ok(files(location).await?.into_iter().map(bare).collect())
}

/// Whether there are data files of a split, indexed or not.
///
/// # Errors
/// Those of the store.
pub async fn has_split(location: &Location, split: &str) -> Result<bool, ShardError> {
    Ok(files(location).await?.iter().any(|(path, _)| path.split('/').next() == Some(split)))
}

async fn file(location: &Location, mut index: FileIndex) -> Result<FileIndex, ShardError> {
    let opened = reader::open(&Access::new(location.clone()), &index).await?;
    if !describe(&opened, &mut index) {
        for i in 0..index.row_groups.len() {
            index.row_groups[i].regions = count_regions(&opened, i as u32).await?;
        }
    }
    if index.content.is_none() {
        index.content = Some(opened.content().await?);
    }
    Ok(index)
}

/// Content and row groups by the footer; `false` if it does not say how many regions there are.
pub(crate) fn describe(file: &ShardFile, index: &mut FileIndex) -> bool {
    index.content = file.key(CONTENT_KEY).map(Into::into);
    let counted: Option<Vec<u32>> = file.key(REGIONS_KEY).and_then(|json| serde_json::from_str(json).ok());
    let counted = counted.filter(|c| c.len() == file.footer().num_row_groups());
    index.row_groups.clear();
    for (i, group) in file.footer().row_groups().iter().enumerate() {
        let ranges = group.columns().iter().map(|c| c.byte_range());
        let start = ranges.clone().map(|(start, _)| start).min().unwrap_or_default();
        let end = ranges.map(|(start, length)| start + length).max().unwrap_or_default();
        let image = group.columns().iter().find(|c| leaf_name(c.column_path().parts()) == IMAGE_BYTES);
        let rows = u32::try_from(group.num_rows()).unwrap_or(u32::MAX);
        let regions = counted.as_ref().map_or(0, |c| c[i]);
        let image_bytes = image.map_or(0, |c| c.byte_range().1);
        index.row_groups.push(RowGroupIndex { rows, regions, start, end, image_bytes });
    }
    counted.is_some()
}

/// Counts the regions of a row group that another program wrote, by the one of their columns that takes the fewest bytes:
/// each of them says where lists begin and end.
async fn count_regions(file: &ShardFile, row_group: u32) -> Result<u32, ShardError> {
    let Some(narrowest) = file.narrowest(row_group, "regions.") else { return Ok(0) };
    let count = |batches: Vec<arrow_array::RecordBatch>, _| {
        let lists = batches.iter().filter_map(|batch| batch.column_by_name("regions")?.as_list_opt::<i32>());
        Ok(lists.map(|list| list.values().len() as u32).sum())
    };
    file.read(row_group, None, |leaf| leaf == narrowest, count).await
}
