//! Vectors in LLM2CLIP's tar files, as its extraction writes them by webdataset's `TarWriter`: members
//! `<key>.shortSV_captions` and `<key>.longSV_captions`, each the little-endian float32 bytes of one vector.

use crate::cell::Wrong;
use crate::error::IngestError;
use crate::input::{Counted, Input};
use crate::records::groups::split;
use crate::records::tar::{Tar, TarFile};
use crate::reject::{Reject, RejectKind, Spot};
use bytes::Bytes;
use half::f16;
use half::vec::HalfFloatVecExt;
use pixfleet_shards::ImageRow;
use std::io::BufReader;
use std::sync::Arc;

/// Vectors that are looked at before all others, to tell the width.
const LOOKED_AT: usize = 64;
/// Numbers of a vector at most.
const WIDTH_MAX: usize = 1 << 16;

/// Which caption of an image a vector is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caption {
    Short,
    Long,
}

impl Caption {
    /// The one that the row's image vector is of.
    pub(super) fn of_row(row: &ImageRow) -> Option<Self> {
        match (&row.caption_long, &row.caption_short) {
            (Some(_), _) => Some(Self::Long),
            (None, Some(_)) => Some(Self::Short),
            (None, None) => None,
        }
    }

    /// What the name of a member ends with.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::Short => "shortSV_captions",
            Self::Long => "longSV_captions",
        }
    }

    /// The caption in our rows.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Short => "caption_short",
            Self::Long => "caption_long",
        }
    }

    /// By what a name ends with; the case does not matter, as to webdataset.
    fn of_ending(ending: &str) -> Option<Self> {
        [Self::Short, Self::Long].into_iter().find(|caption| ending.eq_ignore_ascii_case(caption.ending()))
    }
}

/// What stands in the tar files.
#[derive(Debug, PartialEq)]
pub(super) enum Met {
    /// The bytes of a vector, of this key and caption.
    Vector { spot: Spot, key: String, caption: Caption, bytes: Bytes },
    /// A file of another kind.
    Other,
    /// A tar file ended early.
    Cut(Reject),
}

/// Goes through the tar files in the order of their names.
pub(super) struct Members<'a> {
    input: &'a Input,
    next_file: usize,
    current: Option<(Arc<str>, Tar<BufReader<Counted>>)>,
    record: u64,
}

impl<'a> Members<'a> {
    pub(super) fn new(input: &'a Input) -> Self {
        Self { input, next_file: 0, current: None, record: 0 }
    }

    /// The next member; `None` at the end of the last file.
    pub(super) fn next(&mut self) -> Result<Option<Met>, IngestError> {
        loop {
            let (name, tar) = match &mut self.current {
                Some(current) => current,
                None => {
                    let Some(file) = self.input.files.get(self.next_file) else { return Ok(None) };
                    let tar = Tar::new(file.name.as_ref(), self.input.read(file)?);
                    (self.next_file, self.record) = (self.next_file + 1, 0);
                    self.current.insert((Arc::clone(&file.name), tar))
                }
            };
            let spot = Spot::new(name, self.record);
            let found = match tar.next() {
                Ok(Some(file)) => {
                    self.record += 1;
                    return Ok(Some(met(spot, file)));
                }
                Ok(None) if tar.has_end() => None,
                // webdataset writes it, so a file without one was cut where a member ends.
                Ok(None) => Some("the file ends without a block of zeros".to_owned()),
                Err(IngestError::Cut { offset, found, .. }) => Some(format!("{found}, at byte {offset}")),
                Err(error) => return Err(error),
            };
            self.current = None;
            if let Some(found) = found {
                let wrong = Wrong::new(RejectKind::Cut, "", found, "a whole tar file");
                return Ok(Some(Met::Cut(spot.reject(wrong))));
            }
        }
    }
}

fn met(spot: Spot, TarFile { name, bytes }: TarFile) -> Met {
    let of_name = || split(&name).and_then(|(key, ending)| Some((key, Caption::of_ending(ending)?)));
    match of_name() {
        Some((key, caption)) => Met::Vector { spot: spot.keyed(key), key: key.to_owned(), caption, bytes },
        None => Met::Other,
    }
}

/// Numbers of a vector: as most of the first ones have.
pub(super) fn width(input: &Input) -> Result<usize, IngestError> {
    let mut members = Members::new(input);
    let mut widths: Vec<usize> = Vec::new();
    while let Some(met) = members.next()?.filter(|_| widths.len() < LOOKED_AT) {
        match met {
            Met::Vector { bytes, .. } if bytes.len().is_multiple_of(4) => widths.push(bytes.len() / 4),
            Met::Vector { .. } | Met::Other | Met::Cut(_) => {}
        }
    }
    widths.retain(|width| (1..=WIDTH_MAX).contains(width));
    let count = |width: &usize| widths.iter().filter(|w| *w == width).count();
    widths.iter().rev().copied().max_by_key(count).ok_or_else(|| IngestError::NoFiles {
        source_url: input.url.clone(),
        expected: format!(
            "no vector of 1 to {WIDTH_MAX} numbers in it; expected members named <key>.{} and <key>.{} in its tar files",
            Caption::Short.ending(),
            Caption::Long.ending()
        ),
    })
}

/// The numbers of a vector, as they are stored.
pub(super) fn numbers(bytes: &[u8], caption: Caption, width: usize) -> Result<Vec<f16>, Wrong> {
    if bytes.len() != 4 * width {
        let found = match bytes.len() % 4 {
            0 => format!("{} numbers", bytes.len() / 4),
            _ => format!("{} bytes, which are no whole number of float32", bytes.len()),
        };
        let expected = format!("{width} numbers of 4 bytes, as the others have");
        return Err(Wrong::new(RejectKind::VectorWidth, caption.ending(), found, expected));
    }
    let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let rounded: Vec<f16> = Vec::from_f32_slice(&values);
    match rounded.iter().position(|x| !x.is_finite()) {
        None => Ok(rounded),
        Some(index) => {
            let expected = "finite numbers that f16 holds, 65504 at most";
            let found = format!("{} at index {index}", values[index]);
            Err(Wrong::new(RejectKind::VectorValue, caption.ending(), found, expected))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn numbers_are_rounded_once_and_what_is_wrong_is_named() {
        let good = numbers(&bytes(&[0.1, -3.0]), Caption::Long, 2).expect("two numbers");
        assert_eq!(good, [f16::from_f32(0.1), f16::from_f32(-3.0)]);
        let told = |bytes: &[u8]| {
            let wrong = numbers(bytes, Caption::Short, 2).expect_err("bad");
            assert_eq!(wrong.field, "shortSV_captions");
            (wrong.kind, wrong.found)
        };
        let (width, value) = (RejectKind::VectorWidth, RejectKind::VectorValue);
        assert_eq!(told(&[0; 7]), (width, "7 bytes, which are no whole number of float32".into()));
        assert_eq!(told(&bytes(&[1.0; 3])), (width, "3 numbers".into()));
        assert_eq!(told(&[]), (width, "0 numbers".into()));
        assert_eq!(told(&bytes(&[1.0, f32::NAN])), (value, "NaN at index 1".into()));
        assert_eq!(told(&bytes(&[f32::NEG_INFINITY, 1.0])), (value, "-inf at index 0".into()));
        assert_eq!(told(&bytes(&[1.0, 70000.0])), (value, "70000 at index 1".into()));
    }

    #[test]
    fn members_are_told_by_their_endings_as_webdataset_reads_them() {
        let of = |name: &str| met(Spot::new(&"x".into(), 3), TarFile { name: name.into(), bytes: Bytes::new() });
        let vector = |caption| Met::Vector {
            spot: Spot::new(&"x".into(), 3).keyed("00/a"),
            key: "00/a".into(),
            caption,
            bytes: Bytes::new(),
        };
        assert_eq!(of("00/a.shortSV_captions"), vector(Caption::Short));
        assert_eq!(of("00/a.longsv_captions"), vector(Caption::Long));
        assert_eq!(
            (of("00/a.json"), of("longSV_captions"), of("a.b.longSV_captions")),
            (Met::Other, Met::Other, Met::Other)
        );
    }
}
