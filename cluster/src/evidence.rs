//! Evidence: what a step was fed, as those who fed it found it, in 32 bytes of the ledger.
//!
//! A row is folded where it is used: its position in the stream (the one that it took in the global batch, not the one that
//! it was read for), the file and the row of that file which its bytes came from (as the reader found them, not as they
//! were asked for), what its draws were keyed by, and what was drawn. A step's evidence is the sum over its global batch:
//!
//! | sum | of | whoever computes it again needs |
//! |---|---|---|
//! | `rows` | (position, file, row of the file, key of the draws) | run file, index, recorded substitutions |
//! | `drawn` | (position, regions and texts that were drawn) | these, and which regions and captions the rows have |
//!
//! Each record becomes 128 bits, by rounds of [`mix`] whose inputs are well mixed, and these are added with wrap-around. So the
//! sum knows no order and adds up over lanes and ranks. It guards against mistakes, not against adversaries: two sets of
//! records that are not made for each other have the same sum with a chance of 2^-128, and nobody here gains by making them.
//! A cryptographic hash would cost fifty times as much, and an audit computes a billion of these.

mod lane;
#[cfg(test)]
mod tests;

use crate::rng::{key, mix};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::ops::{AddAssign, SubAssign};

pub use lane::{LoggedLane, LoggedRow};

/// Makes consecutive numbers lie far apart before they are added to a hash.
const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;
/// Sets positions apart from other numbers.
const POSITION: u64 = 0xA076_1D64_78BD_642F;

/// A version of a file, as 128 bits of a blake3 hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId([u64; 2]);

impl FileId {
    /// The file at `path` within its dataset, of this `version`: its content's digest, or the store's version of the object.
    #[must_use]
    pub fn of(path: &str, version: &str) -> Self {
        let mut hash = blake3::Hasher::new();
        for text in [path, version] {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        let mut halves = hash.finalize_xof();
        let mut half = || {
            let mut bytes = [0; 8];
            halves.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        Self([half(), half()])
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}

impl std::str::FromStr for FileId {
    type Err = BadEvidence;

    fn from_str(text: &str) -> Result<Self, BadEvidence> {
        let whole = hex(text)?;
        Ok(Self([(whole >> 64) as u64, whole as u64]))
    }
}

/// Where bytes were found: a version of a file, and the number of the row within it, over all its row groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Which file.
    pub file: FileId,
    /// Which of its rows, from 0.
    pub row: u64,
}

impl Origin {
    /// As well mixed as the file's hash.
    #[inline]
    pub(crate) fn words(self) -> [u64; 2] {
        self.file.0.map(|half| half.wrapping_add(self.row.wrapping_mul(STRIDE)))
    }
}

/// Where the parts of one row came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origins {
    /// Captions, boxes, masks.
    pub narrow: Origin,
    /// The picture, where it was read.
    pub picture: Option<Origin>,
    /// The text vectors, where they were read: the row that they say they are of.
    pub vectors: Option<Origin>,
}

impl Origins {
    /// Of a row whose parts all came from `origin`.
    #[must_use]
    pub fn of(origin: Origin) -> Self {
        Self { narrow: origin, picture: None, vectors: None }
    }

    /// What the row came from; parts that came from several rows are like no row.
    fn words(&self) -> [u64; 2] {
        let others = [self.picture, self.vectors];
        if others.iter().flatten().all(|other| *other == self.narrow) {
            return self.narrow.words();
        }
        let all = [Some(self.narrow), self.picture, self.vectors];
        let words: Vec<u64> = all.into_iter().flat_map(|part| part.map_or([0, 0], Origin::words)).collect();
        [0, 1].map(|half| key(&[&[half], words.as_slice()].concat()))
    }
}

/// One row as it was fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FedRow {
    /// Where it came from.
    pub origins: Origins,
    /// [`Keyed::word`] of its draws.
    pub keyed: u64,
    /// What was drawn, mixed to a word.
    pub drawn: u64,
}

impl FedRow {
    /// The evidence of this row at `position`.
    #[must_use]
    pub fn at(&self, position: u64) -> Evidence {
        let at = mixed(position);
        Evidence { rows: row(at, self.origins.words(), self.keyed), drawn: drawn(at, self.drawn) }
    }
}

/// What the draws of an epoch's rows are keyed by.
#[derive(Debug, Clone, Copy)]
pub struct Keyed(u64);

impl Keyed {
    /// In one epoch of a run.
    #[must_use]
    pub fn new(seed: u64, epoch: u64) -> Self {
        Self(key(&[seed, epoch]))
    }

    /// By one row, as it is numbered in index order.
    #[inline]
    #[must_use]
    pub fn word(self, row_number: u64) -> u64 {
        mix(self.0.wrapping_add(row_number.wrapping_mul(STRIDE)))
    }
}

/// A position, mixed.
#[inline]
pub(crate) fn mixed(position: u64) -> u64 {
    mix(position.wrapping_add(POSITION))
}

/// The record of a row's mixed position, its origin and its key.
#[inline]
pub(crate) fn row(at: u64, from: [u64; 2], keyed: u64) -> u128 {
    let low = mix(from[0].wrapping_add(at) ^ keyed.rotate_left(23));
    let high = mix(from[1].wrapping_add(keyed) ^ at.rotate_left(32));
    u128::from(high) << 64 | u128::from(low)
}

/// The record of what was drawn, at a mixed position.
#[inline]
pub(crate) fn drawn(at: u64, drawn: u64) -> u128 {
    let low = mix(drawn.wrapping_add(at));
    let high = mix(drawn ^ at.rotate_left(32));
    u128::from(high) << 64 | u128::from(low)
}

/// What was fed: the sums over any number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Evidence {
    /// Which rows stood where, and what their draws were keyed by.
    pub rows: u128,
    /// What was drawn of them.
    pub drawn: u128,
}

impl Evidence {
    /// Its length as bytes.
    pub const BYTES: usize = 32;

    /// Little-endian: `rows`, `drawn`.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.rows.to_le_bytes());
        bytes[16..].copy_from_slice(&self.drawn.to_le_bytes());
        bytes
    }

    /// As [`Evidence::to_bytes`] gives them.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let half = |from: usize| {
            let mut half = [0; 16];
            half.copy_from_slice(&bytes[from..from + 16]);
            u128::from_le_bytes(half)
        };
        Self { rows: half(0), drawn: half(16) }
    }
}

impl AddAssign for Evidence {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.rows = self.rows.wrapping_add(other.rows);
        self.drawn = self.drawn.wrapping_add(other.drawn);
    }
}

impl SubAssign for Evidence {
    fn sub_assign(&mut self, other: Self) {
        self.rows = self.rows.wrapping_sub(other.rows);
        self.drawn = self.drawn.wrapping_sub(other.drawn);
    }
}

impl std::iter::Sum for Evidence {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

/// A text that is not evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not written as 32 hexadecimal digits, or two such with `-` between them")]
pub struct BadEvidence;

fn hex(digits: &str) -> Result<u128, BadEvidence> {
    let plain = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    u128::from_str_radix(digits, 16).ok().filter(|_| plain).ok_or(BadEvidence)
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{:032x}", self.rows, self.drawn)
    }
}

impl std::str::FromStr for Evidence {
    type Err = BadEvidence;

    fn from_str(text: &str) -> Result<Self, BadEvidence> {
        let (rows, drawn) = text.split_once('-').ok_or(BadEvidence)?;
        Ok(Self { rows: hex(rows)?, drawn: hex(drawn)? })
    }
}

impl Serialize for Evidence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Evidence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
