//! FineHARD's stages: what is in a picture by its long caption, where it is by a detector, and captions that are wrong in one respect.

use pixfleet_shards::{ImageRow, Region};
use serde_json::{Value, json};
use std::collections::HashMap;

/// What the composer knows of the scenes, by the texts that stages pass on.
#[derive(Default)]
pub(super) struct FineHard {
    /// Regions by their picture's long caption.
    by_caption: HashMap<String, Vec<Region>>,
    /// Short captions by the long ones.
    short: HashMap<String, String>,
    by_expression: HashMap<String, Region>,
}

impl FineHard {
    pub(super) fn learn(&mut self, row: &ImageRow) {
        let Some(long) = &row.caption_long else { return };
        self.by_caption.insert(long.trim().to_owned(), row.regions.clone());
        self.short.insert(long.trim().to_owned(), row.caption_short.clone().unwrap_or_default());
        for region in &row.regions {
            if let Some(short) = &region.short_expr {
                self.by_expression.entry(short.clone()).or_insert_with(|| region.clone());
            }
        }
    }

    /// The answer to a stage that shows no picture; `None` for a question that is none of the recipe's.
    pub(super) fn answer(&self, words: &str) -> Option<String> {
        if let Some((caption, _)) = words.split_once("\nSay what this picture shows") {
            return self.short.get(caption.trim()).cloned();
        }
        if let Some((caption, _)) = words.split_once("\nList each such thing once") {
            let regions = self.by_caption.get(caption.trim())?;
            let pair = |r: &Region| json!({"short": r.short_expr, "long": r.long_expr});
            return Some(json!({"expressions": regions.iter().map(pair).collect::<Vec<_>>()}).to_string());
        }
        let expression = words.split_once("True of a region of a picture: \"")?.1.split('"').next()?;
        if words.contains("meant to be false") {
            return Some(json!({"ok": vec![true; 10]}).to_string());
        }
        let region = self.by_expression.get(expression)?;
        let texts = region.hard_negs.iter().zip(&region.hard_neg_kinds);
        let texts: Vec<Value> = texts.map(|(text, kind)| json!({"text": text, "kind": kind.name()})).collect();
        Some(json!({"negatives": texts}).to_string())
    }

    /// For each phrase the boxes of the picture's regions that it names, in pixels of a picture of `width` x `height`.
    pub(super) fn detect(regions: &[Region], phrases: &[&str], (width, height): (u32, u32)) -> Value {
        let scale = [width, height, width, height];
        let pixels = |r: &Region| r.bbox.iter().zip(scale).map(|(v, side)| v * side as f32).collect::<Vec<f32>>();
        let of = |phrase: &&str| {
            let named = regions.iter().filter(|r| r.short_expr.as_deref() == Some(*phrase));
            named.map(|r| json!({"box": pixels(r), "score": 0.9})).collect::<Vec<_>>()
        };
        json!({"detections": phrases.iter().map(of).collect::<Vec<_>>()})
    }
}
