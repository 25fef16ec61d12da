//! Pictures that are there twice, by their difference hashes.

use super::dhash::dhash;
use super::near::{Groups, groups};
use crate::pixels::decode;
use image::codecs::jpeg::JpegEncoder;

/// Pictures whose hashes are kept, 256 MiB; further ones are counted and not compared.
pub const HASHES_MAX: usize = 16 << 20;
/// Groups that are kept of each kind, the largest first.
const GROUPS_KEPT: usize = 100;
/// Pictures that are kept of a group.
const MEMBERS_KEPT: usize = 8;
const JPEG_QUALITY: u8 = 80;

/// Row group within the split, and row.
type At = (u32, u32);

/// A group of pictures that are the same, or nearly.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Duplicate {
    /// Pictures in it.
    pub pictures: u64,
    /// The first of them: row group within the split, and row.
    pub first: Vec<At>,
}

/// Pictures that are there twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Duplicates {
    /// Pictures that were compared.
    pub compared: u64,
    /// Pictures too flat for a hash.
    pub flat: u64,
    /// Pictures that cannot be decoded.
    pub undecoded: u64,
    /// Rows without a picture.
    pub absent: u64,
    /// Whether there were too many to compare each with all others, in all or within one part of the hashes.
    pub cut: bool,
    /// Groups of equal hashes.
    pub equal_groups: u64,
    /// Pictures beyond the first of each of them.
    pub equal_pictures: u64,
    /// Groups of hashes that lead to each other by steps of at most [`BITS`](super::BITS) bits, and are not all equal.
    pub near_groups: u64,
    /// Pictures in them.
    pub near_pictures: u64,
    /// The largest groups of equal ones.
    pub equal: Vec<Duplicate>,
    /// The largest groups of nearly equal ones.
    pub near: Vec<Duplicate>,
}

/// Hashes so far.
#[derive(Debug, Default)]
pub(crate) struct Hashes {
    places: Vec<At>,
    hashes: Vec<u64>,
    flat: u64,
    undecoded: u64,
    absent: u64,
    cut: bool,
}

impl Hashes {
    pub(crate) fn add(&mut self, at: At, bytes: Option<&[u8]>) {
        match bytes.map(decode::rgb) {
            None => self.absent += 1,
            Some(Err(_)) => self.undecoded += 1,
            Some(Ok(picture)) => match dhash(&picture) {
                None => self.flat += 1,
                Some(hash) => {
                    self.places.push(at);
                    self.hashes.push(hash);
                }
            },
        }
    }

    pub(crate) fn merge(&mut self, later: Self) {
        let room = HASHES_MAX - self.hashes.len();
        self.cut |= later.cut || later.hashes.len() > room;
        self.places.extend(later.places.into_iter().take(room));
        self.hashes.extend(later.hashes.into_iter().take(room));
        self.flat += later.flat;
        self.undecoded += later.undecoded;
        self.absent += later.absent;
    }

    /// Compares all with all.
    pub(crate) fn duplicates(self) -> Duplicates {
        let Groups { equal, near, cut } = groups(&self.hashes);
        let pictures = |groups: &[Vec<u32>]| groups.iter().map(|g| g.len() as u64).sum::<u64>();
        let largest = |mut groups: Vec<Vec<u32>>| {
            groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
            groups.truncate(GROUPS_KEPT);
            let duplicate = |group: Vec<u32>| Duplicate {
                pictures: group.len() as u64,
                first: group.iter().take(MEMBERS_KEPT).map(|&i| self.places[i as usize]).collect(),
            };
            groups.into_iter().map(duplicate).collect()
        };
        Duplicates {
            compared: self.hashes.len() as u64,
            flat: self.flat,
            undecoded: self.undecoded,
            absent: self.absent,
            cut: cut || self.cut,
            equal_groups: equal.len() as u64,
            equal_pictures: pictures(&equal) - equal.len() as u64,
            near_groups: near.len() as u64,
            near_pictures: pictures(&near),
            equal: largest(equal),
            near: largest(near),
        }
    }
}

/// A picture as a JPEG whose longer side is `side` at most; `None` for one that cannot be decoded.
#[must_use]
pub fn thumbnail(bytes: &[u8], side: u32) -> Option<Vec<u8>> {
    let picture = decode::rgb(bytes).ok()?;
    let (width, height) = (picture.width, picture.height);
    let longest = width.max(height).max(side);
    let shrink = |of: u32| (u64::from(of) * u64::from(side) / u64::from(longest)).max(1) as u32;
    let picture = image::RgbImage::from_raw(width, height, picture.data)?;
    let small = image::imageops::thumbnail(&picture, shrink(width), shrink(height));
    let mut jpeg = Vec::new();
    small.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY)).ok()?;
    Some(jpeg)
}
