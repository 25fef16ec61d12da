//! Records that do not become rows: each is named and counted by kind, none is dropped without a word.

use crate::cell::Wrong;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Why a record, or a part of one, was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectKind {
    /// Text that is no JSON object.
    Syntax,
    /// A field that is missing or of another type.
    Field,
    /// A box that leaves the image or has no area.
    Box,
    /// A mask that cannot be decoded, or of another size.
    Mask,
    /// A part of an image that is not there.
    Orphan,
    /// A key that was there before.
    Duplicate,
    /// A value that breaks a rule of the rows that are written.
    Rule,
    /// A picture that is not where it should be.
    PictureMissing,
    /// Bytes that are no picture, or a damaged one.
    PictureDamaged,
    /// A picture of another size than the record says.
    PictureSize,
    /// A picture of another SHA-256 than the record says.
    PictureHash,
    /// A picture of more bytes than are read.
    PictureLarge,
    /// An address that `robots.txt` keeps programs from.
    Robots,
    /// An answer of a server that is no picture.
    Status,
    /// A server that did not answer.
    Network,
    /// A row that no vector came for.
    VectorMissing,
    /// A vector of another width than the others.
    VectorWidth,
    /// A vector with a number that is not finite, or beyond what is stored.
    VectorValue,
    /// A file that ends early.
    Cut,
}

impl RejectKind {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Field => "field",
            Self::Box => "box",
            Self::Mask => "mask",
            Self::Orphan => "orphan",
            Self::Duplicate => "duplicate",
            Self::Rule => "rule",
            Self::PictureMissing => "picture_missing",
            Self::PictureDamaged => "picture_damaged",
            Self::PictureSize => "picture_size",
            Self::PictureHash => "picture_hash",
            Self::PictureLarge => "picture_large",
            Self::Robots => "robots",
            Self::Status => "status",
            Self::Network => "network",
            Self::VectorMissing => "vector_missing",
            Self::VectorWidth => "vector_width",
            Self::VectorValue => "vector_value",
            Self::Cut => "cut",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Syntax => "write the record again as JSON (NaN and Infinity are none), or take it out",
            Self::Field => "add or correct the field, or name its column with --map",
            Self::Box => "correct the box, or say with --boxes in which form boxes stand",
            Self::Mask => "write the mask again for the picture's height and width",
            Self::Orphan => "add the image, or take out what belongs to it",
            Self::Duplicate => "keep one record of the key",
            Self::Rule => "correct the value",
            Self::PictureMissing => "add the picture, say where pictures are with --images, or fetch it with --fetch",
            Self::PictureDamaged => "fetch the picture again, or take the record out",
            Self::PictureSize => "take the picture that was annotated, not a resized one",
            Self::PictureHash => "fetch the picture again: it is not the one that was annotated",
            Self::PictureLarge => "shrink the picture, or take the record out",
            Self::Robots => "ask the site's owner, or take the record out",
            Self::Status => "take the record out: the address has no picture any more",
            Self::Network => "run the same command later with --restart",
            Self::VectorMissing => "add the row's vector to the source, or train without it",
            Self::VectorWidth => "encode the text again, by the model of the other vectors",
            Self::VectorValue => "encode the text again",
            Self::Cut => "fetch the file again, and run the same command with --restart",
        }
    }
}

impl fmt::Display for RejectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A record that was refused: where it stands, what is there, what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Why.
    pub kind: RejectKind,
    /// Path within the source, and the list within the file if it has several (`instances.json: annotations`).
    pub file: String,
    /// Its number there, from 0.
    pub record: u64,
    /// Its key, if it could be read.
    pub key: Option<String>,
    /// Path of the field; empty: the record.
    pub field: String,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, record {}", self.file, self.record)?;
        if let Some(key) = &self.key {
            write!(f, " ({key})")?;
        }
        if !self.field.is_empty() {
            write!(f, ", field {}", self.field)?;
        }
        write!(f, ": {}; expected {}", self.found, self.expected)
    }
}

/// Where a record stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spot {
    pub(crate) file: Arc<str>,
    pub(crate) record: u64,
    pub(crate) key: Option<String>,
}

impl Spot {
    pub(crate) fn new(file: &Arc<str>, record: u64) -> Self {
        Self { file: Arc::clone(file), record, key: None }
    }

    pub(crate) fn keyed(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    pub(crate) fn reject(&self, wrong: Wrong) -> Reject {
        let Wrong { kind, field, found, expected } = wrong;
        let (file, key) = (self.file.to_string(), self.key.clone());
        Reject { kind, file, record: self.record, key, field, found, expected }
    }
}

/// How many of which kind.
pub type RejectCounts = BTreeMap<RejectKind, u64>;

/// How many rejects end an ingest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RejectLimit {
    /// This many.
    Count(u64),
    /// This share of all records, 0..=1.
    Share(f64),
}

impl RejectLimit {
    /// Reads `100` or `5%`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(percent) => {
                let share = percent.trim().parse::<f64>().ok()? / 100.0;
                (0.0..=1.0).contains(&share).then_some(Self::Share(share))
            }
            None => text.parse().ok().map(Self::Count),
        }
    }

    /// Whether `rejects` of `records` are too many.
    pub(crate) fn is_over(self, rejects: u64, records: u64) -> bool {
        match self {
            Self::Count(most) => rejects > most,
            Self::Share(most) => rejects as f64 > most * records as f64,
        }
    }
}

impl fmt::Display for RejectLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(most) => write!(f, "{most}"),
            Self::Share(most) => write!(f, "{} %", most * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reject_says_where_what_and_what_was_expected() {
        let spot = Spot::new(&"a.json: annotations".into(), 7).keyed("id 12");
        let reject = spot.reject(Wrong::new(RejectKind::Box, "bbox", "3 numbers", "x, y, width, height"));
        assert_eq!(
            reject.to_string(),
            "a.json: annotations, record 7 (id 12), field bbox: 3 numbers; expected x, y, width, height"
        );
        assert_eq!(serde_json::to_value(&reject).expect("JSON")["kind"], "box");
    }

    #[test]
    fn limits_are_counts_or_shares() {
        assert_eq!(RejectLimit::parse("5%"), Some(RejectLimit::Share(0.05)));
        assert_eq!(RejectLimit::parse("12"), Some(RejectLimit::Count(12)));
        assert_eq!((RejectLimit::parse("105%"), RejectLimit::parse("many")), (None, None));
        assert!(RejectLimit::Share(0.05).is_over(6, 100) && !RejectLimit::Share(0.05).is_over(5, 100));
        assert!(RejectLimit::Count(0).is_over(1, 100) && !RejectLimit::Count(0).is_over(0, 100));
    }
}
