//! Places in a dataset, what can be wrong with a field of a row, and how files change after they were indexed.

use crate::hard_neg::HardNegKind;
use std::fmt;

/// A place in a dataset: as much of it as is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Path of the file within the dataset.
    pub file: String,
    /// Row group within the file.
    pub row_group: Option<u32>,
    /// Row within the row group.
    pub row: Option<u32>,
    /// Path of the field within the row (`regions[2].bbox`).
    pub field: Option<String>,
}

impl Place {
    /// A whole file.
    #[must_use]
    pub fn file(file: impl Into<String>) -> Self {
        Self { file: file.into(), ..Self::default() }
    }

    /// The same file, this row group.
    #[must_use]
    pub fn row_group(mut self, row_group: u32) -> Self {
        self.row_group = Some(row_group);
        self
    }

    /// The same row group, this row.
    #[must_use]
    pub fn row(mut self, row: u32) -> Self {
        self.row = Some(row);
        self
    }

    /// The same row, this field.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(n) = self.row_group {
            write!(f, ", row group {n}")?;
        }
        if let Some(n) = self.row {
            write!(f, ", row {n}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", field {field}")?;
        }
        Ok(())
    }
}

/// What is wrong with one field of one row.
#[derive(Debug, thiserror::Error)]
pub enum FieldFault {
    /// A required value is null or empty.
    #[error("missing; every row needs one")]
    Missing,
    /// A null where the schema has none.
    #[error("null; {write}")]
    Null {
        /// What to write instead.
        write: &'static str,
    },
    /// A null among numbers.
    #[error("number {index} of {expected} is null; write {expected} numbers")]
    NullNumber {
        /// Which one.
        index: usize,
        /// Numbers expected.
        expected: usize,
    },
    /// A hash of another length.
    #[error("{found} bytes; expected the 32 bytes of a SHA-256, not its hexadecimal digits")]
    HashBytes {
        /// Bytes found.
        found: usize,
    },
    /// A width or height out of bounds.
    #[error("{found} pixels; expected 1 to {limit}")]
    Side {
        /// The value.
        found: i64,
        /// The largest allowed.
        limit: u32,
    },
    /// A list of the wrong length.
    #[error("{found} numbers; expected {expected}")]
    Count {
        /// Numbers found.
        found: usize,
        /// Numbers expected.
        expected: usize,
    },
    /// A corner of a box outside the image.
    #[error("{found:?} leaves the image; expected x1, y1, x2, y2 in 0..1 (divide pixels by width and height)")]
    BoxOutside {
        /// The box.
        found: [f32; 4],
    },
    /// A box without area.
    #[error("{found:?} has no area; expected x1 < x2 and y1 < y2")]
    BoxEmpty {
        /// The box.
        found: [f32; 4],
    },
    /// A span that ends before it starts.
    #[error("{start}..{end}; expected 0 <= start <= end")]
    Span {
        /// First character.
        start: i32,
        /// One past the last character.
        end: i32,
    },
    /// A caption without a letter in it.
    #[error("empty caption; leave it null or drop the region")]
    EmptyCaption,
    /// A vector with a NaN or an infinity.
    #[error("NaN or infinity at index {index} of the vector; run `pixfleet shards embed` again")]
    NotFinite {
        /// Where in the vector.
        index: usize,
    },
    /// Bytes of a vector that are no whole number of f16.
    #[error("{bytes} bytes; expected a whole number of f16 values")]
    VectorBytes {
        /// Bytes found.
        bytes: usize,
    },
    /// A vector of another text than the row's.
    #[error("the vector of another text; run `pixfleet shards embed` again")]
    OtherText,
    /// A vectors file that has another number of regions than the row.
    #[error("vectors for {found} regions; the row has {expected}; run `pixfleet shards embed` again")]
    Regions {
        /// Regions with vectors.
        found: usize,
        /// Regions of the row.
        expected: usize,
    },
    /// Kinds of hard negatives that do not stand beside them.
    #[error("{found} kinds for {expected} hard negatives; expected one for each, or none at all")]
    KindCount {
        /// Kinds found.
        found: usize,
        /// Hard negatives of the region.
        expected: usize,
    },
    /// A kind of hard negative that is not known.
    #[error("`{found}` is no kind of change; expected one of {}", HardNegKind::names())]
    Kind {
        /// The first characters of what stands there.
        found: String,
    },
    /// A mask without its size, or a size without its mask.
    #[error("mask_rle without mask_size or the reverse; expected both or neither")]
    MaskSize,
    /// A mask that cannot be read.
    #[error("{0}")]
    Mask(#[source] crate::pixels::rle::RleError),
    /// A picture of another size than its row says.
    #[error("the image is {} x {} pixels, the row says width {} and height {}; correct the row", .found[0], .found[1], .expected[0], .expected[1])]
    ImageSize {
        /// Width and height of the image.
        found: [u32; 2],
        /// Width and height of the row.
        expected: [u32; 2],
    },
    /// A picture that cannot be decoded.
    #[error("{0}")]
    Pixels(#[source] crate::pixels::decode::DecodeError),
    /// A text that cannot be tokenized.
    #[error("{0}")]
    Tokens(#[source] crate::tokens::TokenizerError),
}

/// A file that is not as the index says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Its size differs.
    Size {
        /// Path within the dataset.
        file: String,
        /// Bytes in the index.
        indexed: u64,
        /// Bytes now.
        now: u64,
    },
    /// Same size, another version of it.
    Version {
        /// Path within the dataset.
        file: String,
    },
    /// It is gone.
    Gone {
        /// Path within the dataset.
        file: String,
    },
    /// The index does not know it.
    New {
        /// Path within the dataset.
        file: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { file, indexed, now } => write!(f, "{file} ({indexed} bytes in the index, {now} now)"),
            Self::Version { file } => write!(f, "{file} (written again)"),
            Self::Gone { file } => write!(f, "{file} (gone)"),
            Self::New { file } => write!(f, "{file} (new)"),
        }
    }
}

/// The first few changes, and how many more.
pub(crate) fn changes(list: &[Change]) -> String {
    let shown: Vec<String> = list.iter().take(3).map(ToString::to_string).collect();
    let more = list.len().saturating_sub(3);
    shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}
