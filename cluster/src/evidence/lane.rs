//! What a rank fed of one lane, row by row, as it stands in a worker's log of what it fed: whoever looks for the row of a step
//! that is not as planned reads it there.

use super::{FedRow, FileId, Origin, Origins};
use crate::ids::{Generation, Lane, Rank, Step};
use serde::{Deserialize, Serialize};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedLane {
    /// Which step.
    pub step: Step,
    /// The membership that ran it.
    pub generation: Generation,
    /// Whose word this is.
    pub rank: Rank,
    /// Which lane.
    pub lane: Lane,
    /// The rows, in the order of their positions.
    pub rows: Vec<LoggedRow>,
}

/// One row. Hashes and words are hexadecimal, for JSON has no 64-bit numbers that every program reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedRow {
    /// File and row of the narrow columns, then of the picture and the vectors where they are from elsewhere.
    pub from: Vec<(String, u64)>,
    /// What its draws were keyed by.
    pub keyed: String,
    /// What was drawn.
    pub drawn: String,
}

impl LoggedLane {
    /// A line without its line feed.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("a lane has only JSON types")
    }
}

impl From<&FedRow> for LoggedRow {
    fn from(fed: &FedRow) -> Self {
        let Origins { narrow, picture, vectors } = fed.origins;
        let elsewhere = [picture, vectors].into_iter().flatten().filter(|part| *part != narrow);
        let from = std::iter::once(narrow).chain(elsewhere).map(|part| (part.file.to_string(), part.row));
        Self { from: from.collect(), keyed: format!("{:016x}", fed.keyed), drawn: format!("{:016x}", fed.drawn) }
    }
}

impl LoggedRow {
    /// Where each part was found; `None` for what is no file's hash.
    pub(crate) fn origins(&self) -> impl Iterator<Item = Option<Origin>> {
        self.from.iter().map(|(file, row)| Some(Origin { file: file.parse::<FileId>().ok()?, row: *row }))
    }
}
