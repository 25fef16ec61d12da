//! Boxes and masks of other formats -> ours: boxes as fractions of the image, masks as COCO runs.

use crate::cell::{Cell, Wrong};
use crate::reject::RejectKind;
use pixfleet_shards::pixels::polygon;
use pixfleet_shards::pixels::rle::Rle;

/// How far a box in pixels may leave the image, as annotators' tools round.
const PIXELS_OVER: f64 = 1.0;
/// How far a box in fractions may.
const FRACTION_OVER: f64 = 0.002;

/// In which form boxes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BoxForm {
    /// x1, y1, x2, y2 in 0..1 of the image.
    #[default]
    Fractions,
    /// x1, y1, x2, y2 in pixels.
    Pixels,
    /// x, y, width, height in pixels.
    SizedPixels,
}

impl BoxForm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fractions, Self::Pixels, Self::SizedPixels];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fractions => "fractions",
            Self::Pixels => "pixels",
            Self::SizedPixels => "xywh",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Fractions => "x1, y1, x2, y2 in 0..1 with x1 < x2 and y1 < y2",
            Self::Pixels => "x1, y1, x2, y2 in pixels within the image, with x1 < x2 and y1 < y2",
            Self::SizedPixels => "x, y, width, height in pixels within the image, with width and height above 0",
        }
    }

    /// The box as fractions of an image of `width` x `height`; what leaves the image by no more than rounding is cut.
    pub(crate) fn fractions(self, field: &str, numbers: &[f64], width: u32, height: u32) -> Result<[f32; 4], Wrong> {
        let wrong = || {
            let numbers: Vec<String> = numbers.iter().map(f64::to_string).collect();
            let image = format!("[{}] in an image of {width} x {height}", numbers.join(", "));
            Wrong::new(RejectKind::Box, field, image, self.expected())
        };
        let &[a, b, c, d] = numbers else { return Err(wrong()) };
        let (w, h) = (f64::from(width), f64::from(height));
        let (corners, over) = match self {
            Self::Fractions => ([a, b, c, d], [FRACTION_OVER; 2]),
            Self::Pixels => ([a / w, b / h, c / w, d / h], [PIXELS_OVER / w, PIXELS_OVER / h]),
            Self::SizedPixels => ([a / w, b / h, (a + c) / w, (b + d) / h], [PIXELS_OVER / w, PIXELS_OVER / h]),
        };
        let near = |v: f64, over: f64| v.is_finite() && v >= -over && v <= 1.0 + over;
        if !corners.iter().zip([over[0], over[1], over[0], over[1]]).all(|(v, over)| near(*v, over)) {
            return Err(wrong());
        }
        let [x1, y1, x2, y2] = corners.map(|v| v.clamp(0.0, 1.0) as f32);
        if x1 < x2 && y1 < y2 { Ok([x1, y1, x2, y2]) } else { Err(wrong()) }
    }
}

/// The mask in a cell: polygons (lists of x, y, ...), or runs `{size: [height, width], counts}` with counts as COCO's
/// compressed text or as numbers. `None` for an empty list. Polygons are drawn at `height` x `width`; runs must be of
/// that shape, though they may be of another scale.
pub(crate) fn mask(field: &str, cell: &Cell, height: u32, width: u32) -> Result<Option<Rle>, Wrong> {
    let found = match cell {
        Cell::List(rings) if rings.is_empty() => return Ok(None),
        Cell::List(rings) => {
            let rings = rings.iter().enumerate().map(|(i, ring)| ring.as_numbers(&format!("{field}[{i}]")));
            let rings = rings.collect::<Result<Vec<_>, _>>()?;
            polygon::rasterize(&rings, height, width).map_err(|e| wrong(field, e.to_string()))?
        }
        Cell::Map(_) => runs(cell).map_err(|w| w.within(field))?,
        Cell::Null | Cell::Bool(_) | Cell::Whole(_) | Cell::Number(_) | Cell::Text(_) | Cell::Bytes(_) => {
            return Err(wrong(field, cell.told()));
        }
    };
    let (h, w) = (u64::from(found.height), u64::from(found.width));
    // One pixel of rounding at any scale.
    if (h * u64::from(width)).abs_diff(w * u64::from(height)) > u64::from(width.max(height)) + h.max(w) {
        let of = format!("a mask of {w} x {h} for an image of {width} x {height}");
        return Err(Wrong::new(RejectKind::Mask, field, of, "a mask of the image's shape (not one turned by EXIF)"));
    }
    if found.area() == 0 {
        return Err(wrong(field, "a mask without a pixel inside".into()));
    }
    Ok(Some(found))
}

fn runs(cell: &Cell) -> Result<Rle, Wrong> {
    let size = cell.at("size").map(|size| size.as_numbers("size")).transpose()?;
    let side = |v: f64| (v.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&v)).then_some(v as u32);
    let size = size.as_deref().and_then(|s| <[f64; 2]>::try_from(s).ok()).map(|s| s.map(side));
    let Some([Some(height), Some(width)]) = size else {
        let found = cell.at("size").map_or_else(|| "nothing".into(), Cell::told);
        return Err(Wrong::new(RejectKind::Mask, "size", found, "height, width in pixels"));
    };
    let compressed = match cell.at("counts") {
        Some(Cell::Text(text)) => text.clone().into_bytes(),
        Some(Cell::Bytes(bytes)) => bytes.to_vec(),
        Some(counts @ Cell::List(_)) => {
            let counts = counts.as_numbers("counts")?.into_iter();
            let counts =
                counts.map(|v| (v.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&v)).then_some(v as u32));
            let Some(counts) = counts.collect() else {
                return Err(wrong("counts", "a count that is no whole number".into()));
            };
            // Through the string, whose reader holds runs against the size.
            Rle { height, width, counts }.to_coco_string()
        }
        Some(Cell::Null | Cell::Bool(_) | Cell::Whole(_) | Cell::Number(_) | Cell::Map(_)) | None => {
            return Err(wrong("counts", cell.get("counts").map_or_else(|| "nothing".into(), Cell::told)));
        }
    };
    Rle::from_coco_string(&compressed, height, width).map_err(|e| wrong("counts", e.to_string()))
}

fn wrong(field: &str, found: String) -> Wrong {
    Wrong::new(RejectKind::Mask, field, found, "polygons of x, y pairs, or COCO's runs {size: [height, width], counts}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_all_forms_are_one_box() {
        let expected = Ok([0.25, 0.5, 0.75, 1.0]);
        assert_eq!(BoxForm::Fractions.fractions("b", &[0.25, 0.5, 0.75, 1.0], 40, 20), expected);
        assert_eq!(BoxForm::Pixels.fractions("b", &[10.0, 10.0, 30.0, 20.0], 40, 20), expected);
        assert_eq!(BoxForm::SizedPixels.fractions("b", &[10.0, 10.0, 20.0, 10.6], 40, 20), expected, "rounding is cut");
    }

    #[test]
    fn boxes_that_are_none_are_refused() {
        for numbers in [&[1.0, 2.0, 3.0][..], &[0.0, 0.0, 50.0, 9.0], &[5.0, 5.0, 0.0, 3.0], &[f64::NAN, 0.0, 1.0, 1.0]]
        {
            let error = BoxForm::SizedPixels.fractions("bbox", numbers, 40, 20).expect_err("no box");
            assert_eq!((error.kind, error.field.as_str()), (RejectKind::Box, "bbox"));
        }
        assert!(BoxForm::Fractions.fractions("b", &[0.1, 0.1, 1.2, 0.3], 9, 9).is_err());
    }

    #[test]
    fn masks_are_polygons_runs_as_text_and_runs_as_numbers() {
        let square = Cell::parse(br#"{"m": [[1, 1, 4, 1, 4, 3, 1, 3]]}"#).expect("JSON");
        let drawn = mask("m", square.get("m").expect("there"), 6, 6).expect("a polygon").expect("not empty");
        let string = String::from_utf8(drawn.to_coco_string()).expect("ASCII");
        let as_text = Cell::parse(format!(r#"{{"size": [6, 6], "counts": {}}}"#, serde_json::json!(string)).as_bytes());
        let as_numbers = Cell::parse(format!(r#"{{"size": [6, 6], "counts": {:?}}}"#, drawn.counts).as_bytes());
        for cell in [as_text, as_numbers] {
            assert_eq!(mask("m", &cell.expect("JSON"), 6, 6), Ok(Some(drawn.clone())));
        }
        assert_eq!(mask("m", &Cell::List(Vec::new()), 6, 6), Ok(None));
    }

    #[test]
    fn masks_that_are_none_are_refused() {
        let refused = |json: &[u8]| mask("m", &Cell::parse(json).expect("JSON"), 4, 8).expect_err("no mask");
        assert_eq!(refused(br#"{"counts": [32]}"#).field, "m.size");
        assert!(refused(br#"{"size": [4, 8], "counts": [3, 20]}"#).found.contains("cover 23 pixels"));
        assert!(refused(br#"{"size": [8, 4], "counts": [3, 29]}"#).found.contains("4 x 8 for an image of 8 x 4"));
        assert!(refused(br#"{"size": [4, 8], "counts": [32]}"#).found.contains("without a pixel"));
        let odd = Cell::List(vec![Cell::List(vec![Cell::Whole(1); 7])]);
        assert!(mask("m", &odd, 4, 8).expect_err("odd").found.contains("7 numbers"));
    }
}
