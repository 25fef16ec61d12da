//! The index of a dataset as JSON: which files it has, their versions, and the rows of each row group.
//!
//! Pure data: `shards` writes and checks it, the coordinator only reads it. An index is immutable and lies at
//! [`DatasetIndex::path`]; [`LATEST`] names the newest one. Its digest is the dataset's version: it covers splits,
//! files, row counts and each file's content, not the times at which files were written.

use crate::evidence::{FileId, Origin};
use crate::order::DatasetShape;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Path, within the dataset, of the object that names the newest index: a JSON [`Latest`].
pub const LATEST: &str = "index/latest.json";

/// The newest index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    /// Its digest.
    pub digest: String,
    /// Its path within the dataset.
    pub path: String,
}

/// A dataset: its version and its splits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetIndex {
    /// The dataset's version: 32 hexadecimal digits of a blake3 hash.
    pub digest: String,
    /// Version of the Parquet schema.
    pub schema_version: String,
    /// Splits by name.
    pub splits: BTreeMap<String, SplitIndex>,
}

/// The files of one split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitIndex {
    /// Files by path.
    pub files: Vec<FileIndex>,
}

/// One Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIndex {
    /// Path within the dataset.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// The store's version of the object.
    pub etag: Option<String>,
    /// Hash of the content, where the writer left one in the footer.
    pub content: Option<String>,
    /// Row groups in file order.
    pub row_groups: Vec<RowGroupIndex>,
}

/// One row group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowGroupIndex {
    /// Rows: images.
    pub rows: u32,
    /// Regions of all its rows.
    pub regions: u32,
    /// First byte in the file.
    pub start: u64,
    /// One past its last byte.
    pub end: u64,
    /// Bytes of these that are pictures.
    pub image_bytes: u64,
}

impl DatasetIndex {
    /// An index of `splits` with its digest.
    #[must_use]
    pub fn new(schema_version: &str, splits: BTreeMap<String, SplitIndex>) -> Self {
        let mut index = Self { digest: String::new(), schema_version: schema_version.into(), splits };
        index.digest = index.version();
        index
    }

    /// The split called `name`.
    #[must_use]
    pub fn split(&self, name: &str) -> Option<&SplitIndex> {
        self.splits.get(name)
    }

    /// Path of this index within the dataset.
    #[must_use]
    pub fn path(&self) -> String {
        format!("index/{}.json", self.digest)
    }

    /// What [`LATEST`] says when this index is the newest.
    #[must_use]
    pub fn latest(&self) -> Latest {
        Latest { digest: self.digest.clone(), path: self.path() }
    }

    fn version(&self) -> String {
        let mut hash = blake3::Hasher::new();
        let mut put = |text: &str| {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        put(&self.schema_version);
        for (name, split) in &self.splits {
            put(name);
            for file in &split.files {
                put(&file.path);
                put(&file.size.to_string());
                put(file.version());
                for group in &file.row_groups {
                    put(&group.rows.to_string());
                }
            }
        }
        hash.finalize().to_hex()[..32].to_owned()
    }
}

impl FileIndex {
    /// What its bytes are known by: the digest of its content, or the store's version of the object.
    #[must_use]
    pub fn version(&self) -> &str {
        self.content.as_deref().or(self.etag.as_deref()).unwrap_or_default()
    }

    /// This version of the file, as evidence names it.
    #[must_use]
    pub fn id(&self) -> FileId {
        FileId::of(&self.path, self.version())
    }
}

impl SplitIndex {
    /// Where the first row of each row group lies, file after file.
    #[must_use]
    pub fn origins(&self) -> Vec<Origin> {
        let of_file = |file: &FileIndex| {
            let (id, mut row) = (file.id(), 0);
            let groups = file.row_groups.iter().map(move |group| {
                row += u64::from(group.rows);
                Origin { file: id, row: row - u64::from(group.rows) }
            });
            groups.collect::<Vec<_>>()
        };
        self.files.iter().flat_map(of_file).collect()
    }

    /// Rows of each row group, file after file: what the order of samples is made from.
    #[must_use]
    pub fn shape(&self) -> DatasetShape {
        DatasetShape { rows: self.row_groups().map(|g| g.rows).collect() }
    }

    /// Rows in all.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.row_groups().map(|g| u64::from(g.rows)).sum()
    }

    /// Regions in all.
    #[must_use]
    pub fn regions(&self) -> u64 {
        self.row_groups().map(|g| u64::from(g.regions)).sum()
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// Row groups, file after file.
    pub fn row_groups(&self) -> impl Iterator<Item = &RowGroupIndex> {
        self.files.iter().flat_map(|f| &f.row_groups)
    }

    /// The file of a row group and the row group's number within it; `row_group` counts over all files.
    #[must_use]
    pub fn locate_row_group(&self, row_group: u32) -> Option<(&FileIndex, u32)> {
        let mut rest = row_group as usize;
        for file in &self.files {
            if rest < file.row_groups.len() {
                return Some((file, rest as u32));
            }
            rest -= file.row_groups.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(etag: &str, content: Option<&str>) -> DatasetIndex {
        let group = |rows| RowGroupIndex { rows, regions: 2 * rows, start: 4, end: 40, image_bytes: 30 };
        let file = |path: &str, groups: &[u32]| FileIndex {
            path: path.into(),
            size: 100,
            etag: Some(etag.into()),
            content: content.map(Into::into),
            row_groups: groups.iter().map(|&r| group(r)).collect(),
        };
        let split = SplitIndex { files: vec![file("train/a.parquet", &[3, 5]), file("train/b.parquet", &[2])] };
        DatasetIndex::new("1", BTreeMap::from([("train".to_owned(), split)]))
    }

    #[test]
    fn row_groups_are_counted_over_all_files() {
        let index = index("x", None);
        let train = index.split("train").expect("is there");
        assert_eq!(train.shape().rows, vec![3, 5, 2]);
        assert_eq!((train.rows(), train.regions(), train.bytes()), (10, 20, 200));
        let at = |g| train.locate_row_group(g).map(|(f, rg)| (f.path.as_str(), rg));
        assert_eq!(at(1), Some(("train/a.parquet", 1)));
        assert_eq!(at(2), Some(("train/b.parquet", 0)));
        assert_eq!(at(3), None);
        let [a, b] = [&train.files[0], &train.files[1]].map(FileIndex::id);
        assert_ne!(a, b);
        let origins: Vec<_> = train.origins().iter().map(|o| (o.file, o.row)).collect();
        assert_eq!(origins, [(a, 0), (a, 3), (b, 0)]);
    }

    #[test]
    fn the_digest_is_of_the_content_where_it_is_known() {
        assert_eq!(index("x", Some("c")).digest, index("y", Some("c")).digest);
        assert_ne!(index("x", Some("c")).digest, index("x", Some("d")).digest);
        assert_ne!(index("x", None).digest, index("y", None).digest);
        assert_eq!(index("x", None).digest.len(), 32);
    }
}
