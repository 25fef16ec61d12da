//! Plugs for models that are no chat: a segmenter and a detector behind one POST each. `docs/annotate.md` has both for whoever
//! writes one.
//!
//! | | request | answer |
//! |---|---|---|
//! | `POST URL/segment` | `image` (a data URL), `boxes` ([x1, y1, x2, y2] in pixels) | `masks`: one `{"size": [h, w], "counts": RLE}` per box |
//! | `POST URL/detect` | `image`, `phrases` | `detections`: per phrase a list of `{"box": [...], "score": f}` |

use crate::shape::Expression;
use pixfleet_shards::Region;
use pixfleet_shards::pixels::rle::Rle;
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) const SEGMENT: &str = "segment";
pub(crate) const DETECT: &str = "detect";

#[derive(Deserialize)]
struct Masks {
    masks: Vec<MaskJson>,
}

#[derive(Deserialize)]
struct MaskJson {
    size: [u32; 2],
    counts: String,
}

#[derive(Deserialize)]
struct Detections {
    detections: Vec<Vec<Detection>>,
}

#[derive(Deserialize, Clone, Copy)]
struct Detection {
    #[serde(rename = "box")]
    bbox: [f32; 4],
    score: f32,
}

/// The request for the masks of `boxes` (fractions of a picture of `width` x `height`).
pub(crate) fn segment_body(model: &str, image: &str, boxes: &[[f32; 4]], (width, height): (u32, u32)) -> Value {
    let scale = [width, height, width, height];
    let pixels = |bbox: &[f32; 4]| -> Vec<f32> { bbox.iter().zip(scale).map(|(v, side)| v * side as f32).collect() };
    json!({"model": model, "image": image, "boxes": boxes.iter().map(pixels).collect::<Vec<_>>()})
}

/// The masks of an answer; in words what is wrong with it.
pub(crate) fn masks(text: &str, expected: usize) -> Result<Vec<Rle>, String> {
    let Masks { masks } = serde_json::from_str(text).map_err(|e| format!("no answer of a segmenter: {e}"))?;
    if masks.len() != expected {
        return Err(format!("{} masks for {expected} boxes", masks.len()));
    }
    let read = |(i, mask): (usize, MaskJson)| {
        let [height, width] = mask.size;
        Rle::from_coco_string(mask.counts.as_bytes(), height, width).map_err(|e| format!("masks[{i}]: {e}"))
    };
    masks.into_iter().enumerate().map(read).collect()
}

/// The request for the boxes of phrases.
pub(crate) fn detect_body(model: &str, image: &str, phrases: &[Expression]) -> Value {
    json!({"model": model, "image": image, "phrases": phrases.iter().map(|e| &e.short).collect::<Vec<_>>()})
}

/// The regions of an answer, best first, without those below `score_min` and those that overlap a better one by more than
/// `overlap_max`.
pub(crate) fn regions(
    text: &str,
    phrases: &[Expression],
    (width, height): (u32, u32),
    (score_min, overlap_max): (f32, f32),
) -> Result<Vec<Region>, String> {
    let Detections { detections } = serde_json::from_str(text).map_err(|e| format!("no answer of a detector: {e}"))?;
    if detections.len() != phrases.len() {
        return Err(format!("{} lists of boxes for {} phrases", detections.len(), phrases.len()));
    }
    let scale = [width, height, width, height];
    let mut found: Vec<Region> = Vec::new();
    for (phrase, boxes) in phrases.iter().zip(detections) {
        for Detection { bbox, score } in boxes.into_iter().filter(|d| d.score >= score_min) {
            let mut fraction = bbox;
            for (v, side) in fraction.iter_mut().zip(scale) {
                *v = (*v / side as f32).clamp(0.0, 1.0);
            }
            if fraction[0] < fraction[2] && fraction[1] < fraction[3] {
                found.push(Region {
                    bbox: fraction,
                    score: Some(score),
                    short_expr: Some(phrase.short.clone()),
                    long_expr: Some(phrase.long.clone()),
                    ..Region::default()
                });
            }
        }
    }
    found.sort_by(|a, b| b.score.unwrap_or(0.0).total_cmp(&a.score.unwrap_or(0.0)));
    let mut kept: Vec<Region> = Vec::new();
    for region in found {
        if kept.iter().all(|k| overlap(k.bbox, region.bbox) <= overlap_max) {
            kept.push(region);
        }
    }
    Ok(kept)
}

/// Intersection over union.
fn overlap(a: [f32; 4], b: [f32; 4]) -> f32 {
    let area = |c: [f32; 4]| (c[2] - c[0]).max(0.0) * (c[3] - c[1]).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    both / (area(a) + area(b) - both).max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phrase(short: &str) -> Expression {
        Expression { short: short.into(), long: format!("{short}, long") }
    }

    #[test]
    fn of_overlapping_boxes_the_better_one_stays() {
        let answer = json!({"detections": [
            [{"box": [0, 0, 50, 50], "score": 0.9}, {"box": [0, 0, 40, 40], "score": 0.3}],
            [{"box": [2, 2, 52, 52], "score": 0.6}, {"box": [60, 60, 120, 90], "score": 0.5}],
        ]});
        let phrases = [phrase("a kite"), phrase("a dog")];
        let found = regions(&answer.to_string(), &phrases, (100, 100), (0.4, 0.5)).expect("regions");
        let told: Vec<_> = found.iter().map(|r| (r.short_expr.as_deref().unwrap_or(""), r.bbox)).collect();
        assert_eq!(told, [("a kite", [0.0, 0.0, 0.5, 0.5]), ("a dog", [0.6, 0.6, 1.0, 0.9])]);
        assert!(regions(&answer.to_string(), &phrases[..1], (100, 100), (0.4, 0.5)).is_err());
    }

    #[test]
    fn masks_are_one_for_each_box() {
        let answer = json!({"masks": [{"size": [4, 4], "counts": "44800000"}]}).to_string();
        assert!(masks(&answer, 2).expect_err("too few").contains("1 masks for 2 boxes"));
        assert!(masks("{}", 1).is_err());
    }
}
