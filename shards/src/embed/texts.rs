//! Which texts a dataset holds, and which of them stand in more than one file.

use super::EmbedJob;
use crate::error::ShardError;
use crate::reader::RowGroupReader;
use crate::row::ImageRow;
use crate::schema::Columns;
use crate::text_vectors::{TextHash, text_hash};
use pixfleet_cluster::index::FileIndex;
use std::collections::{BTreeMap, HashMap};

/// The files of the chosen splits, and how to read them.
pub(super) struct Source {
    readers: Vec<RowGroupReader>,
    pub(super) files: Vec<SourceFile>,
}

/// A data file.
pub(super) struct SourceFile {
    pub(super) index: FileIndex,
    reader: usize,
    /// Its first row group, counted over its split.
    first_group: u32,
}

impl SourceFile {
    pub(super) fn rows(&self) -> u64 {
        self.index.row_groups.iter().map(|g| u64::from(g.rows)).sum()
    }
}

impl Source {
    pub(super) fn open(job: &EmbedJob<'_>) -> Result<Self, ShardError> {
        let mut source = Self { readers: Vec::new(), files: Vec::new() };
        for split in job.splits {
            let reader = RowGroupReader::new(job.location.clone(), job.index, split, None)?.with_cache_bytes(0);
            let mut first_group = 0;
            for file in &reader.split().files {
                let reader = source.readers.len();
                source.files.push(SourceFile { index: file.clone(), reader, first_group });
                first_group += file.row_groups.len() as u32;
            }
            source.readers.push(reader);
        }
        Ok(source)
    }

    /// The captions of a file, row group by row group.
    pub(super) async fn captions(&self, file: &SourceFile) -> Result<Vec<Vec<ImageRow>>, ShardError> {
        let mut groups = Vec::new();
        for (i, group) in file.index.row_groups.iter().enumerate() {
            let rows: Vec<u32> = (0..group.rows).collect();
            let at = file.first_group + i as u32;
            groups.push(self.readers[file.reader].read(at, &rows, Columns::CAPTIONS).await?);
        }
        Ok(groups)
    }
}

/// The texts of rows, as often as they stand there.
pub(super) fn texts(rows: &[ImageRow]) -> impl Iterator<Item = &str> {
    rows.iter().flat_map(|row| {
        let regions = row.regions.iter().flat_map(|r| [r.short_text(), r.long_text()]);
        regions.chain([row.image_text()]).flatten()
    })
}

/// Where a text stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    One(u32),
    Several,
}

/// What reading all captions tells. About 40 bytes of memory for each distinct text.
pub(super) struct Scan {
    holders: HashMap<TextHash, Holder>,
    /// Texts of more than one file, by hash.
    pub(super) shared: BTreeMap<TextHash, String>,
    /// Distinct texts that only this file has, for each file.
    pub(super) own: Vec<u64>,
}

impl Scan {
    pub(super) async fn of(source: &Source) -> Result<Self, ShardError> {
        let mut scan = Self { holders: HashMap::new(), shared: BTreeMap::new(), own: Vec::new() };
        for (i, file) in source.files.iter().enumerate() {
            for rows in source.captions(file).await? {
                texts(&rows).for_each(|text| scan.see(i as u32, text));
            }
        }
        scan.own = vec![0; source.files.len()];
        for holder in scan.holders.values() {
            if let Holder::One(file) = holder {
                scan.own[*file as usize] += 1;
            }
        }
        Ok(scan)
    }

    fn see(&mut self, file: u32, text: &str) {
        let hash = text_hash(text);
        let holder = self.holders.entry(hash).or_insert(Holder::One(file));
        if *holder != Holder::One(file) && *holder != Holder::Several {
            *holder = Holder::Several;
            self.shared.insert(hash, text.to_owned());
        }
    }

    /// Whether any file holds this text.
    pub(super) fn holds(&self, hash: &TextHash) -> bool {
        self.holders.contains_key(hash)
    }
}
