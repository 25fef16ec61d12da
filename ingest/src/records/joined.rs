//! Images of COCO's layout with what other lists say of them, however the lists are ordered.
//!
//! The files are read twice: once for images and categories, once for what belongs to them. Parts are put aside on local
//! disk by ranges of images, then range after range is read back. In memory are a number for each image (about 50 bytes)
//! and one range, which is [`RANGE_BYTES`] of JSON where parts are spread evenly: not the files.

use super::json::{JsonLists, Piece};
use super::spill::{Aside, Asides, Spill};
use super::{Body, Categories, Found, Joined, Part, PartKind, Position, Records};
use crate::cell::{Cell, Wrong, needed, text, whole};
use crate::error::IngestError;
use crate::input::{Input, InputFile};
use crate::reject::{Reject, RejectKind, Spot};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of JSON that a range of images is meant to have.
const RANGE_BYTES: u64 = 32 << 20;
/// Ranges at most: each is an open file.
const RANGES_MAX: u64 = 256;

/// A file whose lists speak of images.
#[derive(Clone)]
pub(crate) struct Speaker {
    pub(crate) kind: PartKind,
    pub(crate) input: Input,
    pub(crate) file: InputFile,
}

impl Speaker {
    /// Where messages say that its list `name` is.
    fn place(&self, name: &str) -> Arc<str> {
        let file = &self.file.name;
        if name.is_empty() { Arc::clone(file) } else { format!("{file}: {name}").into() }
    }
}

/// Images in the order of their file, each with its parts in the order of theirs; last, what was refused on the way.
pub(crate) struct Images {
    places: Vec<(PartKind, Arc<str>)>,
    images: Asides,
    images_place: Arc<str>,
    ranges: std::vec::IntoIter<Asides>,
    per_range: u64,
    refused: Asides,
    categories: Arc<Categories>,
    /// Parts of the range at hand, by image.
    parts: HashMap<u64, Vec<Part>>,
    next_range: u64,
}

impl Images {
    /// Sorts what `instances` and `others` say by image. Images and categories are those of `instances`.
    pub(crate) fn open(instances: &Speaker, others: &[Speaker]) -> Result<Self, IngestError> {
        let mut sorter = Sorter::new()?;
        sorter.images(instances)?;
        let speakers = || std::iter::once(instances).chain(others);
        let bytes: u64 = speakers().map(|s| s.file.size).sum();
        let ranges = (bytes / RANGE_BYTES + 1).min(RANGES_MAX);
        let per_range = (sorter.ids.len() as u64).div_ceil(ranges).max(1);
        let mut spills = (0..ranges).map(|_| Spill::new()).collect::<Result<Vec<_>, _>>()?;
        let mut places = Vec::new();
        for speaker in speakers() {
            sorter.parts(speaker, &mut spills, per_range, &mut places)?;
        }
        Ok(Self {
            places,
            images: sorter.images.into_reader()?,
            images_place: instances.place("images"),
            ranges: spills.into_iter().map(Spill::into_reader).collect::<Result<Vec<_>, _>>()?.into_iter(),
            per_range,
            refused: sorter.refused.into_reader()?,
            categories: Arc::new(sorter.categories),
            parts: HashMap::new(),
            next_range: 0,
        })
    }

    fn range_of(&mut self, image: u64) -> Result<(), IngestError> {
        while self.next_range <= image / self.per_range {
            self.parts.clear();
            if let Some(mut range) = self.ranges.next() {
                while let Some(Aside { numbers: [image, place, record], text: json }) = range.next()? {
                    let (kind, file) = &self.places[place as usize];
                    let part = Part { kind: *kind, spot: Spot::new(file, record), json };
                    self.parts.entry(image).or_default().push(part);
                }
            }
            self.next_range += 1;
        }
        Ok(())
    }
}

impl Records for Images {
    fn next(&mut self) -> Result<Option<Found>, IngestError> {
        if let Some(Aside { numbers: [image, record, _], text }) = self.images.next()? {
            self.range_of(image)?;
            let parts = self.parts.remove(&image).unwrap_or_default();
            let joined = Joined { image: text, parts, categories: Arc::clone(&self.categories) };
            let spot = Spot::new(&self.images_place, record);
            return Ok(Some(Found { spot, body: Body::Joined(joined), after: Position::default() }));
        }
        let Some(aside) = self.refused.next()? else { return Ok(None) };
        let reject: Reject = serde_json::from_slice(&aside.text).expect("we wrote it");
        let spot = Spot::new(&reject.file.as_str().into(), reject.record);
        Ok(Some(Found { spot, body: Body::Refused(reject), after: Position::default() }))
    }
}

struct Sorter {
    /// Number of each image, by id.
    ids: HashMap<i64, u64>,
    images: Spill,
    refused: Spill,
    categories: Categories,
}

/// What is looked at of a part before it is put aside.
#[derive(Deserialize)]
struct Head {
    image_id: Option<Cell>,
}

impl Sorter {
    fn new() -> Result<Self, IngestError> {
        let (images, refused) = (Spill::new()?, Spill::new()?);
        Ok(Self { ids: HashMap::new(), images, refused, categories: Categories::new() })
    }

    fn refuse(&mut self, spot: &Spot, wrong: Wrong) -> Result<(), IngestError> {
        let reject = serde_json::to_vec(&spot.reject(wrong)).expect("texts are JSON");
        self.refused.put([0; 3], &reject)
    }

    /// The images and categories.
    fn images(&mut self, speaker: &Speaker) -> Result<(), IngestError> {
        let input = speaker.input.read(&speaker.file)?;
        let mut lists = JsonLists::new(speaker.file.name.as_ref(), input, |n| n == "images" || n == "categories");
        let (mut list, mut place, mut record) = (String::new(), speaker.place(""), 0);
        while let Some(piece) = lists.next()? {
            let json = match piece {
                Piece::List(name) => {
                    (place, list, record) = (speaker.place(&name), name, 0);
                    continue;
                }
                Piece::Element(json) => json,
            };
            let spot = Spot::new(&place, record);
            record += 1;
            let kept = if list == "images" { self.image(&json, spot.record)? } else { self.category(&json) };
            if let Err(wrong) = kept {
                self.refuse(&spot, wrong)?;
            }
        }
        if self.ids.is_empty() {
            let (file, found) = (speaker.file.name.to_string(), "no image with an id in it".into());
            let expected = "an object with the list `images`, as COCO's instances_*.json";
            return Err(IngestError::Broken { file, offset: 0, found, expected });
        }
        Ok(())
    }

    fn image(&mut self, json: &[u8], record: u64) -> Result<Result<(), Wrong>, IngestError> {
        let id = match Cell::parse(json).and_then(|cell| needed(whole(&cell, "id")?, "id", "a whole number")) {
            Ok(id) => id,
            Err(wrong) => return Ok(Err(wrong)),
        };
        if self.ids.contains_key(&id) {
            return Ok(Err(Wrong::new(RejectKind::Duplicate, "id", format!("{id} once more"), "an id of its own")));
        }
        let number = self.ids.len() as u64;
        self.ids.insert(id, number);
        self.images.put([number, record, 0], json).map(Ok)
    }

    fn category(&mut self, json: &[u8]) -> Result<(), Wrong> {
        let cell = Cell::parse(json)?;
        let id = needed(whole(&cell, "id")?, "id", "a whole number")?;
        let name = needed(text(&cell, "name")?, "name", "a text")?;
        self.categories.insert(id, name);
        Ok(())
    }

    /// Puts aside what a file says of images.
    fn parts(
        &mut self,
        speaker: &Speaker,
        spills: &mut [Spill],
        per_range: u64,
        places: &mut Vec<(PartKind, Arc<str>)>,
    ) -> Result<(), IngestError> {
        let input = speaker.input.read(&speaker.file)?;
        // References come as one list, or as `refs` beside nothing else.
        let wanted = |name: &str| name == "annotations" || name == "refs";
        let mut lists = JsonLists::new(speaker.file.name.as_ref(), input, wanted);
        let mut record = 0;
        while let Some(piece) = lists.next()? {
            let json = match piece {
                Piece::List(name) => {
                    places.push((speaker.kind, speaker.place(&name)));
                    record = 0;
                    continue;
                }
                Piece::Element(json) => json,
            };
            let spot = Spot::new(&places.last().expect("a list begins before its elements").1, record);
            record += 1;
            match self.number(&json) {
                Ok(image) => {
                    let numbers = [image, places.len() as u64 - 1, spot.record];
                    spills[(image / per_range) as usize].put(numbers, &json)?;
                }
                Err(wrong) => self.refuse(&spot, wrong)?,
            }
        }
        Ok(())
    }

    /// The image that a part belongs to.
    fn number(&self, json: &[u8]) -> Result<u64, Wrong> {
        let head: Option<Head> = serde_json::from_slice(json).ok();
        let Some(head) = head else {
            // Says what is wrong with it.
            Cell::parse(json)?;
            return Err(Wrong::new(RejectKind::Syntax, "", "no object", "a JSON object"));
        };
        let id = needed(head.image_id, "image_id", "a whole number")?.as_whole("image_id")?;
        let orphan = || Wrong::new(RejectKind::Orphan, "image_id", id.to_string(), "the id of one of the images");
        self.ids.get(&id).copied().ok_or_else(orphan)
    }
}
