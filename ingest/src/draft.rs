//! A row on its way: what a record says, before its picture was looked at and its boxes became fractions of it.

use crate::cell::{Cell, Wrong};
use crate::geometry::{self, BoxForm};
use crate::reject::{Reject, RejectKind, Spot};
use bytes::Bytes;
use pixfleet_shards::pixels::decode;
use pixfleet_shards::{ImageRow, Region};
use sha2::{Digest, Sha256};

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    /// The row without picture and regions; width and height are 0 where the record does not tell them.
    pub(crate) row: ImageRow,
    pub(crate) picture: Picture,
    pub(crate) spot: Spot,
    pub(crate) regions: Vec<DraftRegion>,
    pub(crate) boxes: BoxForm,
    /// Whether the picture must have the size that the record tells; else its own size counts.
    pub(crate) is_size_fixed: bool,
    /// Parts that were refused.
    pub(crate) rejects: Vec<Reject>,
    /// Records of the source that are in the row, regions aside.
    pub(crate) records: u64,
    /// Parts that are not asked for.
    pub(crate) passed_over: u64,
}

/// Where the picture is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Picture {
    /// Its bytes.
    Here(Bytes),
    /// A path among the pictures, or an address; both in the row.
    Elsewhere,
}

/// A region on its way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DraftRegion {
    /// Without box and mask.
    pub(crate) region: Region,
    pub(crate) bbox: Vec<f64>,
    /// Polygons or runs.
    pub(crate) mask: Option<Cell>,
    /// Where it stands.
    pub(crate) spot: Spot,
    /// Names of its fields `bbox` and `mask`, for messages.
    pub(crate) fields: [String; 2],
}

/// What became of a record.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) row: Option<ImageRow>,
    pub(crate) rejects: Vec<Reject>,
    /// Records that were looked at: the image and its parts.
    pub(crate) records: u64,
    /// Records that are not asked for: crowds, images that nobody refers to.
    pub(crate) passed_over: u64,
}

/// How closely pictures are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PictureCheck {
    /// All pixels are decoded.
    #[default]
    Whole,
    /// The header alone.
    Header,
}

impl Draft {
    pub(crate) fn new(spot: Spot, row: ImageRow) -> Self {
        Self {
            row,
            picture: Picture::Elsewhere,
            spot,
            regions: Vec::new(),
            boxes: BoxForm::Fractions,
            is_size_fixed: false,
            rejects: Vec::new(),
            records: 1,
            passed_over: 0,
        }
    }

    /// The row with its picture's size and hash, boxes as fractions, masks decoded; refused if the row itself is bad, and
    /// without the regions that are.
    pub(crate) fn finish(mut self, check: PictureCheck) -> Outcome {
        let records = self.records + self.regions.len() as u64 + self.rejects.len() as u64;
        let row = self.picture(check).and_then(|()| {
            let (width, height) = (self.row.width, self.row.height);
            for region in std::mem::take(&mut self.regions) {
                let spot = region.spot.clone();
                match region.finish(self.boxes, width, height) {
                    Ok(region) => self.row.regions.push(region),
                    Err(wrong) => self.rejects.push(spot.reject(wrong)),
                }
            }
            rule(&self.row)
        });
        if let Err(wrong) = &row {
            self.rejects.push(self.spot.reject(wrong.clone()));
        }
        let (rejects, passed_over) = (self.rejects, self.passed_over);
        Outcome { row: row.is_ok().then_some(self.row), rejects, records: records + passed_over, passed_over }
    }

    fn picture(&mut self, check: PictureCheck) -> Result<(), Wrong> {
        let Picture::Here(bytes) = &self.picture else {
            // A row may go without its picture; its size must then be known.
            return Ok(());
        };
        let damaged = |e: decode::DecodeError| {
            let source = std::error::Error::source(&e).map(|s| format!(": {s}")).unwrap_or_default();
            let expected = "a whole JPEG, PNG or WebP image";
            Wrong::new(RejectKind::PictureDamaged, "image", format!("{e}{source}"), expected)
        };
        let (width, height) = match check {
            PictureCheck::Whole => decode::rgb(bytes).map(|image| (image.width, image.height)),
            PictureCheck::Header => decode::dimensions(bytes),
        }
        .map_err(damaged)?;
        if is_cut(bytes) {
            let found = format!("a JPEG whose {} bytes end before its end marker", bytes.len());
            return Err(Wrong::new(RejectKind::PictureDamaged, "image", found, "a whole JPEG, PNG or WebP image"));
        }
        let told = (self.row.width, self.row.height);
        if self.is_size_fixed && told != (0, 0) && told != (width, height) {
            let found = format!("a picture of {width} x {height}");
            let expected = format!("{} x {} pixels, as the record says", told.0, told.1);
            return Err(Wrong::new(RejectKind::PictureSize, "image", found, expected));
        }
        (self.row.width, self.row.height) = (width, height);
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(told) = self.row.image.sha256.filter(|told| *told != hash) {
            let expected = format!("SHA-256 {}, as the record says", hex(&told));
            return Err(Wrong::new(RejectKind::PictureHash, "image", format!("SHA-256 {}", hex(&hash)), expected));
        }
        self.row.image.sha256 = Some(hash);
        self.row.image.bytes = Some(bytes.clone());
        Ok(())
    }
}

impl DraftRegion {
    fn finish(self, boxes: BoxForm, width: u32, height: u32) -> Result<Region, Wrong> {
        let mut region = self.region;
        region.bbox = boxes.fractions(&self.fields[0], &self.bbox, width, height)?;
        if let Some(cell) = &self.mask {
            region.mask = geometry::mask(&self.fields[1], cell, height, width)?;
        }
        // The rules of a row, for this region alone: a bad one does not take its image along.
        let alone =
            ImageRow { image_id: "x".into(), width: 1, height: 1, regions: vec![region], ..ImageRow::default() };
        rule(&alone).map_err(|mut wrong| {
            let prefix = self.fields[0].rsplit_once('.').map_or("", |(prefix, _)| prefix);
            wrong.field = wrong.field.trim_start_matches("regions[0].").to_owned();
            if prefix.is_empty() { wrong } else { wrong.within(prefix) }
        })?;
        Ok(alone.regions.into_iter().next().expect("it was put there"))
    }
}

/// Whether a JPEG ends before its end marker: decoders make grey of what is missing and say nothing (ITU-T T.81, B.1.1).
/// Within a scan no other marker can look like it; before the first scan, thumbnails have their own.
fn is_cut(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(&[0xff, 0xd8]) else { return false };
    while let [0xff, marker, after @ ..] = rest {
        match (marker, after) {
            (0xff, _) => rest = &rest[1..],
            (0xda, scan) => return !scan.windows(2).rev().any(|pair| pair == [0xff, 0xd9]),
            (_, [high, low, ..]) => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                rest = after.get(length..).unwrap_or_default();
            }
            (_, _) => break,
        }
    }
    true
}

/// The first rule of rows that `row` breaks.
fn rule(row: &ImageRow) -> Result<(), Wrong> {
    match row.faults().into_iter().next() {
        None => Ok(()),
        Some((field, fault)) => {
            let told = fault.to_string();
            let (found, expected) = told.split_once("; ").unwrap_or((&told, "a value that rows may have"));
            let expected = expected.trim_start_matches("expected ");
            Err(Wrong::new(RejectKind::Rule, field, found, expected))
        }
    }
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The 32 bytes of 64 hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg() -> Vec<u8> {
        let mut bytes = Vec::new();
        let noise: Vec<u8> = (0..64 * 64 * 3).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        image::codecs::jpeg::JpegEncoder::new(&mut bytes)
            .encode(&noise, 64, 64, image::ExtendedColorType::Rgb8)
            .expect("encodes");
        bytes
    }

    fn finished(bytes: Vec<u8>, told: [u32; 2], check: PictureCheck) -> Outcome {
        let row = ImageRow { image_id: "a".into(), width: told[0], height: told[1], ..ImageRow::default() };
        let picture = Picture::Here(bytes.into());
        Draft { picture, is_size_fixed: true, ..Draft::new(Spot::new(&"x".into(), 0), row) }.finish(check)
    }

    #[test]
    fn a_jpeg_that_was_cut_is_damaged_though_decoders_take_it() {
        let whole = jpeg();
        let cut = whole[..whole.len() / 2].to_vec();
        assert!(decode::rgb(&cut).is_ok(), "grey is made of what is missing");
        for check in [PictureCheck::Whole, PictureCheck::Header] {
            let outcome = finished(cut.clone(), [64, 64], check);
            assert_eq!((outcome.row, outcome.rejects[0].kind), (None, RejectKind::PictureDamaged));
            // What follows the end marker is let be.
            let longer = [whole.clone(), vec![0; 100]].concat();
            assert!(finished(longer, [64, 64], check).row.is_some());
        }
    }

    #[test]
    fn another_size_than_the_record_s_is_refused_where_boxes_depend_on_it() {
        let outcome = finished(jpeg(), [64, 48], PictureCheck::Header);
        assert_eq!(
            outcome.rejects[0].to_string(),
            "x, record 0, field image: a picture of 64 x 64; expected 64 x 48 pixels, as the record says"
        );
    }

    #[test]
    fn a_hash_is_kept_and_held_against_the_record_s() {
        let bytes = jpeg();
        let row = finished(bytes.clone(), [0, 0], PictureCheck::Header).row.expect("good");
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!((row.image.sha256, row.width), (Some(hash), 64));
        assert_eq!((unhex(&hex(&hash)), unhex("zz")), (Some(hash), None));
        let mut draft = Draft::new(Spot::new(&"x".into(), 0), ImageRow { image_id: "a".into(), ..ImageRow::default() });
        (draft.row.image.sha256, draft.picture) = (Some([0; 32]), Picture::Here(bytes.into()));
        assert_eq!(draft.finish(PictureCheck::Header).rejects[0].kind, RejectKind::PictureHash);
    }
}
