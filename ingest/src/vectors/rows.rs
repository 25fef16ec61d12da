//! The rows that vectors are joined to: which key is which row, whose caption's vector it takes, and what came for it.
//!
//! A row takes the vector of the caption that [`ImageRow::image_text`] is of. In memory are some 60 bytes a row.

use super::source::Caption;
use crate::error::IngestError;
use pixfleet_shards::text_vectors::{TextHash, text_hash};
use pixfleet_shards::{Columns, ImageRow, RowGroupReader};
use std::collections::HashMap;

/// What is known of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The caption whose vector it takes; `None` without captions.
    pub(super) wants: Option<Caption>,
    /// Whether other rows have its key.
    pub(super) is_twin: bool,
    /// Whether a vector of its short, its long caption came, good or bad.
    seen: [bool; 2],
    /// Where the vector that it takes was put aside.
    pub(super) slot: Option<u32>,
}

impl Mark {
    /// Whether a vector of this caption came before; it has from now on.
    pub(super) fn see(&mut self, caption: Caption) -> bool {
        std::mem::replace(&mut self.seen[caption as usize], true)
    }

    /// Whether a vector of this caption came.
    pub(super) fn has_seen(&self, caption: Caption) -> bool {
        self.seen[caption as usize]
    }
}

/// All rows of a split.
#[derive(Debug, Default)]
pub(super) struct KeyedRows {
    by_key: HashMap<TextHash, u32>,
    /// In the order of the split.
    pub(super) marks: Vec<Mark>,
}

impl KeyedRows {
    /// Reads ids and captions of the split, row group by row group.
    pub(super) async fn read(reader: &RowGroupReader) -> Result<Self, IngestError> {
        let counts: Vec<u32> = reader.split().row_groups().map(|group| group.rows).collect();
        let all: u64 = counts.iter().map(|&rows| u64::from(rows)).sum();
        if all > u64::from(u32::MAX) {
            let text = format!("a split of {all} rows; expected {} at most: spread them over several splits", u32::MAX);
            return Err(IngestError::Options(text));
        }
        let mut rows = Self::default();
        for (group, count) in (0..).zip(counts) {
            let asked: Vec<u32> = (0..count).collect();
            for row in reader.read(group, &asked, Columns::default().with_image_captions()).await? {
                rows.push(&row);
            }
        }
        Ok(rows)
    }

    fn push(&mut self, row: &ImageRow) {
        let number = self.marks.len() as u32;
        let first = *self.by_key.entry(text_hash(&row.image_id)).or_insert(number);
        let is_twin = first != number;
        if is_twin {
            self.marks[first as usize].is_twin = true;
        }
        self.marks.push(Mark { wants: Caption::of_row(row), is_twin, ..Mark::default() });
    }

    /// The row of a key of a tar: the one whose `image_id` is the key, else its last part, as the ingest of webdataset names
    /// rows. The first one of twins.
    pub(super) fn find(&mut self, key: &str) -> Option<&mut Mark> {
        let last = key.rsplit('/').next().unwrap_or(key);
        let number = self.by_key.get(&text_hash(key)).or_else(|| self.by_key.get(&text_hash(last)))?;
        self.marks.get_mut(*number as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_an_id_or_ends_with_one() {
        let mut rows = KeyedRows::default();
        for (id, long, short) in [("a", None, Some("s")), ("00/a", Some("l"), Some("s")), ("b", None, None)] {
            let text = |text: Option<&str>| text.map(str::to_owned);
            rows.push(&ImageRow {
                image_id: id.into(),
                caption_long: text(long),
                caption_short: text(short),
                ..ImageRow::default()
            });
        }
        rows.push(&ImageRow { image_id: "b".into(), ..ImageRow::default() });
        let mut wants = |key: &str| rows.find(key).map(|mark| (mark.wants, mark.is_twin));
        assert_eq!(wants("00/a"), Some((Some(Caption::Long), false)));
        assert_eq!(wants("01/a"), Some((Some(Caption::Short), false)));
        assert_eq!((wants("x/b"), wants("c")), (Some((None, true)), None));
        assert!(rows.marks[3].is_twin && size_of::<Mark>() <= 12);
    }
}
