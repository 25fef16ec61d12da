//! Records as they stand in files of any format, one after the other, with what names them. What they mean is `formats`'.

pub(crate) mod groups;
pub(crate) mod joined;
pub(crate) mod json;
pub(crate) mod parquet;
pub(crate) mod plain;
pub(crate) mod spill;
pub(crate) mod tar;

use crate::cell::Cell;
use crate::error::IngestError;
use crate::reject::{Reject, Spot};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// Where a reader is: what was read of the source before the next record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Files of the source.
    pub(crate) file: u32,
    /// Records of the file at hand.
    pub(crate) record: u64,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) spot: Spot,
    pub(crate) body: Body,
    /// The position after it.
    pub(crate) after: Position,
}

/// What a record is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// A JSON text.
    Json(Vec<u8>),
    /// Several JSON texts of one key, each with its own place.
    Lines(Vec<(Spot, Vec<u8>)>),
    /// Files of one key.
    Group(Vec<Member>),
    /// An image and what was elsewhere said of it.
    Joined(Joined),
    /// Values.
    Cells(Cell),
    /// Refused as it was read.
    Refused(Reject),
}

/// A file of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// What its name ends with after the first dot, in lower case (`jpg`, `mask.png`).
    pub(crate) ending: String,
    /// Its name in the source.
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
}

/// An image with its parts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Joined {
    pub(crate) image: Vec<u8>,
    pub(crate) parts: Vec<Part>,
    pub(crate) categories: Arc<Categories>,
}

/// Names of categories by id.
pub(crate) type Categories = HashMap<i64, String>;

/// Something that was said of an image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) kind: PartKind,
    pub(crate) spot: Spot,
    pub(crate) json: Vec<u8>,
}

/// Which list a part comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartKind {
    Annotation,
    Caption,
    Reference,
}

impl Body {
    /// About how many bytes it takes.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Json(text) => text.len(),
            Self::Lines(lines) => lines.iter().map(|(_, l)| l.len()).sum(),
            Self::Group(members) => members.iter().map(|m| m.bytes.len()).sum(),
            Self::Joined(joined) => joined.image.len() + joined.parts.iter().map(|p| p.json.len()).sum::<usize>(),
            // A row of other writers' Parquet: mostly its picture.
            Self::Cells(cell) => weight(cell),
            Self::Refused(_) => 0,
        }
    }
}

fn weight(cell: &Cell) -> usize {
    match cell {
        Cell::Null | Cell::Bool(_) | Cell::Whole(_) | Cell::Number(_) => 8,
        Cell::Text(text) => text.len(),
        Cell::Bytes(bytes) => bytes.len(),
        Cell::List(cells) => cells.iter().map(weight).sum(),
        Cell::Map(members) => members.iter().map(|(_, c)| weight(c)).sum(),
    }
}

/// Reads one file of a source after the other.
pub(crate) trait Records: Send {
    /// The next record; `None` at the end.
    fn next(&mut self) -> Result<Option<Found>, IngestError>;
}

/// Records of the files in order, each opened when it is its turn.
pub(crate) struct InTurn<F> {
    files: u32,
    at: Position,
    open: F,
    current: Option<Box<dyn Records>>,
}

impl<F> InTurn<F>
where
    F: FnMut(u32) -> Result<Box<dyn Records>, IngestError> + Send,
{
    /// From position `at` on: files before it are not opened, records before it are read and let go.
    pub(crate) fn from(at: Position, files: u32, open: F) -> Result<Self, IngestError> {
        let mut records = Self { files, at: Position { file: at.file, record: 0 }, open, current: None };
        while records.at != at {
            if records.next()?.is_none() || records.at.file > at.file {
                let found = format!("the records end before {} of file {}", at.record, at.file);
                let expected = "the source as it was when the ingest began; begin again with --restart";
                return Err(IngestError::Broken { file: "the source".into(), offset: 0, found, expected });
            }
        }
        Ok(records)
    }
}

impl<F> Records for InTurn<F>
where
    F: FnMut(u32) -> Result<Box<dyn Records>, IngestError> + Send,
{
    fn next(&mut self) -> Result<Option<Found>, IngestError> {
        while self.at.file < self.files {
            let mut current = match self.current.take() {
                Some(current) => current,
                None => (self.open)(self.at.file)?,
            };
            if let Some(mut found) = current.next()? {
                self.at.record += 1;
                found.after = self.at;
                self.current = Some(current);
                return Ok(Some(found));
            }
            self.at = Position { file: self.at.file + 1, record: 0 };
        }
        Ok(None)
    }
}
