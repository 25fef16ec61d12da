//! The vectors file of one data file, once all vectors were joined to their rows.

use super::join::Join;
use super::rows::Mark;
use super::source::Caption;
use crate::cell::Wrong;
use crate::error::IngestError;
use crate::reject::{Reject, RejectKind, Spot};
use bytes::Bytes;
use pixfleet_shards::index::FileIndex;
use pixfleet_shards::text_vectors::{RowVectors, TextVector, VectorsWriter, text_hash};
use pixfleet_shards::{Columns, ImageRow, RowGroupReader};
use std::sync::Arc;

/// Where the next data file begins.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Begin {
    /// Row groups of the split before it.
    group: u32,
    /// Rows of the split before it.
    row: usize,
}

impl Begin {
    /// Where the file after `file` begins.
    pub(super) fn after(self, file: &FileIndex) -> Self {
        let rows: usize = file.row_groups.iter().map(|group| group.rows as usize).sum();
        Self { group: self.group + file.row_groups.len() as u32, row: self.row + rows }
    }
}

/// What was made of a data file.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Rows with a vector.
    pub(super) rows: u64,
    /// Rows that no member of the source spoke of, and those that can have none.
    pub(super) rejects: Vec<Reject>,
    /// Path within the dataset and bytes of the vectors file; `None` where nothing is written.
    pub(super) file: Option<(String, Bytes)>,
}

impl Made {
    /// The vectors of `file`, row group by row group.
    pub(super) async fn of(
        file: &FileIndex,
        begin: Begin,
        key: &str,
        reader: &RowGroupReader,
        join: &Join,
    ) -> Result<Self, IngestError> {
        let mut made = Self::default();
        let mut writer = match &join.shelf {
            Some(_) => Some(VectorsWriter::new(key, file, join.width)?),
            None => None,
        };
        let name: Arc<str> = file.path.as_str().into();
        let mut number = 0;
        for (group, index) in (begin.group..).zip(&file.row_groups) {
            let asked: Vec<u32> = (0..index.rows).collect();
            let mut vectors = Vec::with_capacity(asked.len());
            for row in reader.read(group, &asked, Columns::CAPTIONS).await? {
                let mark = join.rows.marks[begin.row + number];
                if let Some(wrong) = missing(&row, mark) {
                    made.rejects.push(Spot::new(&name, number as u64).keyed(row.image_id.as_str()).reject(wrong));
                }
                made.rows += u64::from(mark.slot.is_some());
                if let Some(shelf) = &join.shelf {
                    let values = mark.slot.map(|slot| shelf.get(slot)).transpose()?;
                    vectors.push(beside(&row, values));
                }
                number += 1;
            }
            if let Some(writer) = &mut writer {
                writer.push_row_group(&vectors)?;
            }
        }
        made.file = writer.map(VectorsWriter::finish).transpose()?;
        Ok(made)
    }
}

/// Why a row has no vector, unless the vector itself was refused and is named already.
fn missing(row: &ImageRow, mark: Mark) -> Option<Wrong> {
    if mark.is_twin {
        let found = format!("another row with the image_id `{}`", row.image_id);
        return Some(Wrong::new(RejectKind::Duplicate, "image_id", found, "an id of its own, to join vectors by"));
    }
    let Some(caption) = mark.wants else {
        let fields = format!("{} or {}", Caption::Long.field(), Caption::Short.field());
        return Some(Wrong::new(RejectKind::Field, fields, "no caption", "the caption that was encoded"));
    };
    if mark.slot.is_some() || mark.has_seen(caption) {
        return None;
    }
    let expected = format!("a member <key>.{} whose key is the row's image_id", caption.ending());
    Some(Wrong::new(RejectKind::VectorMissing, caption.field(), "no vector of this caption", expected))
}

/// A row of the vectors file. Hashes are there without their vectors too: they say which text has none.
fn beside(row: &ImageRow, values: Option<Vec<f32>>) -> RowVectors {
    let bare = |text: Option<&str>| TextVector { hash: text.map(text_hash), values: None };
    RowVectors {
        short: row.regions.iter().map(|region| bare(region.short_text())).collect(),
        long: row.regions.iter().map(|region| bare(region.long_text())).collect(),
        image: TextVector { values, ..bare(row.image_text()) },
    }
}
