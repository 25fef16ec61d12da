//! Joins the vectors of a source to the rows of a split, in the order of the source, on a thread that may block.

use super::rows::KeyedRows;
use super::shelf::Shelf;
use super::source::{Caption, Members, Met, numbers};
use crate::cell::Wrong;
use crate::error::IngestError;
use crate::input::Input;
use crate::reject::{Reject, RejectKind};
use tokio::sync::mpsc;

/// Members between two tellings.
const TOLD_EVERY: u64 = 64;

/// What became of some members of the source.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) records: u64,
    /// Those that no row asks for.
    pub(super) passed_over: u64,
    pub(super) rejects: Vec<Reject>,
}

/// Rows and their vectors.
pub(super) struct Join {
    pub(super) rows: KeyedRows,
    /// `None`: vectors are looked at and let go.
    pub(super) shelf: Option<Shelf>,
    pub(super) width: usize,
}

/// What became of a good vector.
enum Fate {
    Taken,
    PassedOver,
}

impl Join {
    /// Takes what `input` holds, and tells of it; ends early if nobody listens.
    pub(super) fn all(mut self, input: &Input, tell: &mpsc::Sender<Told>) -> Result<Self, IngestError> {
        let mut members = Members::new(input);
        let mut told = Told::default();
        while let Some(met) = members.next()? {
            told.records += 1;
            match met {
                Met::Vector { spot, key, caption, bytes } => match self.take(&key, caption, &bytes)? {
                    Ok(Fate::Taken) => {}
                    Ok(Fate::PassedOver) => told.passed_over += 1,
                    Err(wrong) => told.rejects.push(spot.reject(wrong)),
                },
                Met::Other => told.passed_over += 1,
                Met::Cut(reject) => told.rejects.push(reject),
            }
            if told.records >= TOLD_EVERY && tell.blocking_send(std::mem::take(&mut told)).is_err() {
                return Ok(self);
            }
        }
        // Whoever listened has ended if this cannot be sent.
        let _ = tell.blocking_send(told);
        if let Some(shelf) = &mut self.shelf {
            shelf.finish()?;
        }
        Ok(self)
    }

    fn take(&mut self, key: &str, caption: Caption, bytes: &[u8]) -> Result<Result<Fate, Wrong>, IngestError> {
        let Some(mark) = self.rows.find(key) else {
            let expected = "the image_id of a row of the split, or an id behind the last `/`";
            return Ok(Err(Wrong::new(RejectKind::Orphan, "", format!("a vector of the key `{key}`"), expected)));
        };
        if mark.is_twin {
            // The rows are refused, each by its place.
            return Ok(Ok(Fate::PassedOver));
        }
        if mark.see(caption) {
            let found = format!("a vector of the key `{key}` once more");
            return Ok(Err(Wrong::new(RejectKind::Duplicate, caption.ending(), found, "one vector of each caption")));
        }
        let numbers = match numbers(bytes, caption, self.width) {
            Ok(numbers) => numbers,
            Err(wrong) => return Ok(Err(wrong)),
        };
        if mark.wants != Some(caption) {
            return Ok(Ok(Fate::PassedOver));
        }
        mark.slot = Some(match &mut self.shelf {
            Some(shelf) => shelf.put(&numbers)?,
            None => 0,
        });
        Ok(Ok(Fate::Taken))
    }
}
