//! One row of a shard as plain owned values: an image and its regions.
//!
//! Invariant: [`ImageRow::faults`] is the one list of rules a row must keep; writer, reader and `verify` all use it.

use crate::error::FieldFault;
use crate::hard_neg::HardNegKind;
use crate::pixels::rle::Rle;
use bytes::Bytes;
use pixfleet_cluster::evidence::Origins;

/// Longest side of an image that a row may claim, in pixels.
pub const SIDE_MAX: u32 = 32_768;

/// Where the picture is: its bytes, or where they may be found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageSource {
    /// JPEG, PNG or WebP as it was ingested.
    pub bytes: Option<Bytes>,
    /// Path within the set the row was ingested from.
    pub path: Option<String>,
    /// Where it was downloaded from.
    pub url: Option<String>,
    /// SHA-256 of the bytes.
    pub sha256: Option<[u8; 32]>,
}

/// One image and its regions. What was not read, or is not known, is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageRow {
    /// Key of the image within its source (GRIT key, coyo id, file path).
    pub image_id: String,
    /// The set that the row is from: `longgrit`, `grit`, `coco`, `mini`, `custom` and others.
    pub source: String,
    /// The picture.
    pub image: ImageSource,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Language of the captions (`en`, `zh`).
    pub lang: Option<String>,
    /// Long caption of the whole image.
    pub caption_long: Option<String>,
    /// Short caption of the whole image.
    pub caption_short: Option<String>,
    /// All captions that people wrote for the whole image (COCO: five).
    pub captions: Vec<String>,
    /// Vector of `caption_long` that was ingested with the row.
    pub caption_long_emb: Option<Vec<f32>>,
    /// Vector of `caption_short` that was ingested with the row.
    pub caption_short_emb: Option<Vec<f32>>,
    /// Who wrote which field, as JSON.
    pub provenance: Option<String>,
    /// Similarity of image and caption by CLIP ViT-B/32.
    pub clip_sim_b32: Option<f32>,
    /// Similarity of image and caption by CLIP ViT-L/14.
    pub clip_sim_l14: Option<f32>,
    /// The regions, in the order of the file.
    pub regions: Vec<Region>,
    /// Vector of [`ImageRow::image_text`], from the vectors beside the rows (`Columns::vectors`).
    pub image_vector: Option<Vec<f32>>,
    /// Where its parts were found.
    pub whence: Whence,
}

/// Where the parts of a row were found, if it was read. No part of what the row is: two rows that hold the same are equal,
/// wherever they lie.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whence(pub Option<Origins>);

impl PartialEq for Whence {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// One region of an image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Region {
    /// x1, y1, x2, y2, each a fraction of the image's width or height in `0..=1`, with x1 < x2 and y1 < y2.
    pub bbox: [f32; 4],
    /// Confidence of the detector.
    pub score: Option<f32>,
    /// Characters `start..end` of the image's caption that name the region (GRIT).
    pub span: Option<[i32; 2]>,
    /// The region's mask; its height and width may differ from the image's.
    pub mask: Option<Rle>,
    /// Category name.
    pub category: Option<String>,
    /// LongGRIT stage 1: what the object is and looks like.
    pub caption_object: Option<String>,
    /// LongGRIT stage 2: where it is and what surrounds it.
    pub caption_context: Option<String>,
    /// LongGRIT stage 3: both in one; the long training text.
    pub caption_merged: Option<String>,
    /// Whether the captions passed LongGRIT's check.
    pub check_ok: Option<bool>,
    /// FineHARD: short referring expression.
    pub short_expr: Option<String>,
    /// FineHARD: long referring expression.
    pub long_expr: Option<String>,
    /// All expressions that people refer to the region by (RefCOCO: about three).
    pub expressions: Vec<String>,
    /// Hard negatives: `short_expr` with one attribute changed (none or ten in FineHARD).
    pub hard_negs: Vec<String>,
    /// What each of [`Region::hard_negs`] changes; empty where it is not known.
    pub hard_neg_kinds: Vec<HardNegKind>,
    /// Vector of the training text that was ingested with the row.
    pub text_emb: Option<Vec<f32>>,
    /// Vector of [`Region::short_text`], from the vectors beside the rows (`Columns::vectors`).
    pub short_vector: Option<Vec<f32>>,
    /// Vector of [`Region::long_text`], from the vectors beside the rows (`Columns::vectors`).
    pub long_vector: Option<Vec<f32>>,
}

impl Region {
    /// The short training text: `caption_object`, else `short_expr`.
    #[must_use]
    pub fn short_text(&self) -> Option<&str> {
        self.caption_object.as_deref().or(self.short_expr.as_deref())
    }

    /// The long training text: `caption_merged`, else `long_expr`.
    #[must_use]
    pub fn long_text(&self) -> Option<&str> {
        self.caption_merged.as_deref().or(self.long_expr.as_deref())
    }

    /// The share of the picture that it covers: the mask's pixels inside where it has a mask of any size, else its box.
    #[must_use]
    pub fn area(&self) -> f32 {
        let [x1, y1, x2, y2] = self.bbox;
        let of_mask = self.mask.as_ref().and_then(|mask| {
            let pixels = u64::from(mask.height) * u64::from(mask.width);
            (pixels > 0).then(|| (mask.area() as f64 / pixels as f64) as f32)
        });
        of_mask.unwrap_or((x2 - x1) * (y2 - y1))
    }

    fn weight(&self) -> usize {
        let texts = [
            &self.category,
            &self.caption_object,
            &self.caption_context,
            &self.caption_merged,
            &self.short_expr,
            &self.long_expr,
        ];
        let vectors = [&self.text_emb, &self.short_vector, &self.long_vector];
        size_of::<Self>()
            + self.mask.as_ref().map_or(0, |m| 4 * m.counts.len())
            + texts.into_iter().flatten().map(String::len).sum::<usize>()
            + weight_of(&self.expressions)
            + weight_of(&self.hard_negs)
            + self.hard_neg_kinds.len()
            + vectors.into_iter().flatten().map(|v| 4 * v.len()).sum::<usize>()
    }

    fn faults(&self, index: usize, out: &mut Vec<(String, FieldFault)>) {
        let name = |field: &str| format!("regions[{index}].{field}");
        let [x1, y1, x2, y2] = self.bbox;
        if !self.bbox.iter().all(|v| (0.0..=1.0).contains(v)) {
            out.push((name("bbox"), FieldFault::BoxOutside { found: self.bbox }));
        } else if x1 >= x2 || y1 >= y2 {
            out.push((name("bbox"), FieldFault::BoxEmpty { found: self.bbox }));
        }
        if let Some([start, end]) = self.span.filter(|[start, end]| *start < 0 || start > end) {
            out.push((name("span"), FieldFault::Span { start, end }));
        }
        let texts = [
            ("caption_object", &self.caption_object),
            ("caption_context", &self.caption_context),
            ("caption_merged", &self.caption_merged),
            ("short_expr", &self.short_expr),
            ("long_expr", &self.long_expr),
        ];
        for (field, text) in texts {
            empty(text.as_deref(), || name(field), out);
        }
        for (field, texts) in [("expressions", &self.expressions), ("hard_negs", &self.hard_negs)] {
            for (i, text) in texts.iter().enumerate() {
                empty(Some(text), || name(&format!("{field}[{i}]")), out);
            }
        }
        let (found, expected) = (self.hard_neg_kinds.len(), self.hard_negs.len());
        if found != 0 && found != expected {
            out.push((name("hard_neg_kinds"), FieldFault::KindCount { found, expected }));
        }
        let vectors =
            [("text_emb", &self.text_emb), ("short_vector", &self.short_vector), ("long_vector", &self.long_vector)];
        for (field, vector) in vectors {
            finite(vector.as_deref(), || name(field), out);
        }
    }
}

impl ImageRow {
    /// The text that the whole image's stored vector is of: the first paragraph of `caption_long` (a summary, where
    /// further paragraphs go from object to object), else `caption_short`.
    #[must_use]
    pub fn image_text(&self) -> Option<&str> {
        let summary = self.caption_long.as_deref().map(|t| t.split_once("\n\n").map_or(t, |(first, _)| first));
        summary.or(self.caption_short.as_deref())
    }

    /// About how many bytes the row takes in memory.
    #[must_use]
    pub fn weight(&self) -> usize {
        let text = |t: &Option<String>| t.as_ref().map_or(0, String::len);
        let vectors = [&self.caption_long_emb, &self.caption_short_emb, &self.image_vector];
        size_of::<Self>()
            + self.image.bytes.as_ref().map_or(0, Bytes::len)
            + text(&self.caption_long)
            + text(&self.caption_short)
            + weight_of(&self.captions)
            + text(&self.provenance)
            + vectors.into_iter().flatten().map(|v| 4 * v.len()).sum::<usize>()
            + self.regions.iter().map(Region::weight).sum::<usize>()
    }

    /// Every broken rule, with the field's path (`regions[2].bbox`). Pixels are not decoded here.
    #[must_use]
    pub fn faults(&self) -> Vec<(String, FieldFault)> {
        let mut out = Vec::new();
        if self.image_id.is_empty() {
            out.push(("image_id".into(), FieldFault::Missing));
        }
        for (field, side) in [("width", self.width), ("height", self.height)] {
            if side == 0 || side > SIDE_MAX {
                out.push((field.into(), FieldFault::Side { found: i64::from(side), limit: SIDE_MAX }));
            }
        }
        empty(self.caption_long.as_deref(), || "caption_long".into(), &mut out);
        empty(self.caption_short.as_deref(), || "caption_short".into(), &mut out);
        for (i, text) in self.captions.iter().enumerate() {
            empty(Some(text), || format!("captions[{i}]"), &mut out);
        }
        finite(self.caption_long_emb.as_deref(), || "caption_long_emb".into(), &mut out);
        finite(self.caption_short_emb.as_deref(), || "caption_short_emb".into(), &mut out);
        finite(self.image_vector.as_deref(), || "image_vector".into(), &mut out);
        for (i, region) in self.regions.iter().enumerate() {
            region.faults(i, &mut out);
        }
        out
    }
}

fn weight_of(texts: &[String]) -> usize {
    texts.iter().map(|t| t.len() + size_of::<String>()).sum()
}

fn empty(text: Option<&str>, name: impl FnOnce() -> String, out: &mut Vec<(String, FieldFault)>) {
    if text.is_some_and(|t| t.trim().is_empty()) {
        out.push((name(), FieldFault::EmptyCaption));
    }
}

fn finite(vector: Option<&[f32]>, name: impl FnOnce() -> String, out: &mut Vec<(String, FieldFault)>) {
    if let Some(index) = vector.and_then(|v| v.iter().position(|x| !x.is_finite())) {
        out.push((name(), FieldFault::NotFinite { index }));
    }
}
