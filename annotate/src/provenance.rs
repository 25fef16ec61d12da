//! Where the words of a row come from: a list of notes in the row's column `provenance`, as JSON.

use pixfleet_shards::ImageRow;
use serde::{Deserialize, Serialize};

/// What one stage, or one person, did to a row or to one of its regions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The stage's name; `review` for a person's verdict.
    pub stage: String,
    /// The field that was written.
    pub field: String,
    /// The region, by its place in the row; `None` for the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<u32>,
    /// The model that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The digest of the template that it was asked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// When it was answered, in seconds of Unix time.
    pub at: u64,
    /// What it gave as its reason, where it was asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What came of it.
    pub kind: NoteKind,
}

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// The field was written.
    Written,
    /// There is no usable answer; the reason says why.
    Rejected,
    /// A person looked and agreed.
    Accepted,
    /// A person looked and did not.
    Refused,
}

/// The notes of a row; none where it has no such column or it does not read.
#[must_use]
pub fn notes(row: &ImageRow) -> Vec<Note> {
    row.provenance.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// Puts the notes into the row.
pub(crate) fn keep(row: &mut ImageRow, notes: &[Note]) {
    row.provenance = (!notes.is_empty()).then(|| serde_json::to_string(notes).expect("notes are JSON"));
}
