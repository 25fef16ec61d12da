//! Verdicts back into the data: `check_ok` of a region that was rejected becomes false, and a note says that a person looked.

use super::Review;
use crate::answers::now;
use crate::error::AnnotateError;
use crate::provenance::{Note, NoteKind, keep, notes};
use pixfleet_shards::index;
use pixfleet_shards::writer::PartWriter;
use pixfleet_shards::{Columns, ImageRow, RowGroupReader, WriterOptions};

/// What went back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Regions that were accepted.
    pub accepted: u64,
    /// Regions that were rejected.
    pub rejected: u64,
    /// Files that were written anew.
    pub files: u64,
}

impl Review {
    /// Writes the files anew that hold a region about which something was said, and the index with them.
    ///
    /// # Errors
    /// Those of the store; each file is replaced whole or not at all.
    pub async fn apply(&self) -> Result<Applied, AnnotateError> {
        let verdicts = self.verdicts().clone();
        let mut applied = Applied::default();
        if verdicts.is_empty() {
            return Ok(applied);
        }
        let index = index::open(&self.location).await?;
        let reader = RowGroupReader::new(self.location.clone(), &index, &self.split, None)?;
        let mut first = 0;
        for file in &reader.split().files {
            let groups = first..first + file.row_groups.len() as u32;
            first = groups.end;
            let said: Vec<_> = verdicts.iter().filter(|(at, _)| groups.contains(&self.seen[**at].row_group)).collect();
            if said.is_empty() {
                continue;
            }
            let rows_per_group = file.row_groups.iter().map(|g| g.rows).max().unwrap_or(1);
            let options = WriterOptions { rows_per_group, image_bytes_per_group: u64::MAX, bytes_per_file: u64::MAX };
            let mut writer = PartWriter::new(&file.path, options)?;
            for (group, indexed) in groups.zip(&file.row_groups) {
                let places: Vec<u32> = (0..indexed.rows).collect();
                for (row, place) in reader.read(group, &places, Columns::ROWS).await?.into_iter().zip(places) {
                    let here = said.iter().filter(|(at, _)| {
                        let seen = &self.seen[**at];
                        (seen.row_group, seen.row) == (group, place)
                    });
                    let row = here.fold(row, |row, (at, ok)| judged(row, self.seen[**at].region, **ok));
                    writer.push(row)?;
                }
            }
            self.location.put(&file.path, writer.finish()?).await?;
            applied.files += 1;
        }
        index::build(&self.location, &mut |_, _| {}).await?;
        applied.accepted = verdicts.values().filter(|ok| **ok).count() as u64;
        applied.rejected = verdicts.len() as u64 - applied.accepted;
        Ok(applied)
    }
}

fn judged(mut row: ImageRow, region: usize, accepted: bool) -> ImageRow {
    let mut notes = notes(&row);
    notes.push(Note {
        stage: "review".into(),
        field: "check_ok".into(),
        region: Some(region as u32),
        model: None,
        template: None,
        at: now(),
        reason: None,
        kind: if accepted { NoteKind::Accepted } else { NoteKind::Refused },
    });
    row.regions[region].check_ok = Some(accepted);
    keep(&mut row, &notes);
    row
}
