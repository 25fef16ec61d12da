//! Features of a split -> numbers, each with its name, its key in `report.json` and what chance would reach.

use super::classes::BoxScore;
use super::features::{SplitFeatures, Vectors};
use super::hard::{ChoiceScore, HardScores};
use crate::eval::measure::places;
use crate::eval::retrieve::{Places, Recall, chance_in_image, choice_in_image};
use anyhow::Result;
use serde_json::{Map, Value};
use std::ops::Range;
use tch::Tensor;

/// One number of an evaluation: a share between 0 and 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measure {
    /// What stands above it: the task, and on how much of the split.
    pub(crate) task: String,
    /// What it is called within its task.
    pub(crate) name: String,
    /// Its key in `report.json`.
    pub(crate) key: String,
    /// The number.
    pub(crate) value: f64,
    /// What chance would reach, and the key of that.
    pub(crate) chance: (String, f64),
}

/// One evaluation in full.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Measures {
    /// The numbers, task by task.
    pub(crate) all: Vec<Measure>,
    /// On how much of the split, by key.
    pub(crate) counts: Vec<(String, usize)>,
}

impl Measures {
    /// Of a split's features, with the scores of its boxes.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn of(split: &SplitFeatures, boxes: &[BoxScore]) -> Result<Self> {
        let mut measures = Self::default();
        measures.count("test_images", split.images.len());
        measures.count("test_regions", split.regions.len());
        measures.hard_choice(split);
        measures.captions(split, "long", &split.long)?;
        measures.captions(split, "short", &split.short)?;
        measures.regions(split)?;
        measures.boxes(boxes);
        Ok(measures)
    }

    /// The number under `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&Measure> {
        self.all.iter().find(|m| m.key == key)
    }

    /// The keys of `report.json`.
    pub(crate) fn keys(&self, into: &mut Map<String, Value>) {
        for measure in &self.all {
            into.insert(measure.key.clone(), rounded(measure.value));
            into.insert(measure.chance.0.clone(), rounded(measure.chance.1));
        }
        into.extend(self.counts.iter().map(|(key, n)| (key.clone(), Value::from(*n))));
    }

    /// The keys of the numbers alone, each with `_` and `label` behind it.
    pub(crate) fn keys_of(&self, label: &str, into: &mut Map<String, Value>) {
        into.extend(self.all.iter().map(|m| (format!("{}_{label}", m.key), rounded(m.value))));
    }

    fn count(&mut self, key: &str, n: usize) {
        self.counts.push((key.into(), n));
    }

    fn put(&mut self, task: &str, name: &str, (key, value): (String, f64), chance: (&str, f64)) {
        let chance = (chance.0.to_owned(), chance.1);
        self.all.push(Measure { task: task.into(), name: name.into(), key, value, chance });
    }

    /// Recall of both directions between `texts` and `others`, two words as keys have them.
    fn recalls(&mut self, task: &str, prefix: &str, (texts, others): (&str, &str), found: [Recall; 2], n: usize) {
        let chance = Recall::chance(n);
        for ((from, to), recall) in [(texts, others), (others, texts)].into_iter().zip(found) {
            let at = [(1, recall.r1, chance.r1), (5, recall.r5, chance.r5), (10, recall.r10, chance.r10)];
            for (k, value, chance) in at {
                // The long captions' chance has the plain name: a split's images have one each.
                let chance_key = match (prefix, others) {
                    ("long_", _) => format!("chance_r{k}"),
                    (_, "region") => format!("chance_region_r{k}"),
                    (prefix, _) => format!("{prefix}chance_r{k}"),
                };
                let key = format!("{prefix}{from}_to_{to}_r{k}");
                self.put(task, &format!("{from} → {to} R@{k}"), (key, value), (&chance_key, chance));
            }
        }
    }

    fn captions(&mut self, split: &SplitFeatures, length: &str, texts: &Vectors) -> Result<()> {
        let n = texts.owners.len();
        self.count(&format!("{length}_captions"), n);
        if n == 0 {
            return Ok(());
        }
        let (by_text, by_image) = both(&texts.tensor(), &split.image.pick(&texts.owners), |i| i..i + 1)?;
        let found = [Recall::of(&by_text.all), Recall::of(&by_image.all)];
        self.recalls(&format!("{length} captions, {n} images"), &format!("{length}_"), ("text", "image"), found, n);
        Ok(())
    }

    fn regions(&mut self, split: &SplitFeatures) -> Result<()> {
        let owners = &split.region_text.owners;
        let n = owners.len();
        self.count("region_texts", n);
        if n == 0 {
            return Ok(());
        }
        let images: Vec<usize> = owners.iter().map(|&region| split.regions[region].image).collect();
        let groups = groups(&images);
        let image_of = |i: usize| groups[i].clone();
        let (by_text, by_region) = both(&split.region_text.tensor(), &split.region.pick(owners), image_of)?;
        let task = format!("expressions, {n} regions");
        let found = [Recall::of(&by_text.all), Recall::of(&by_region.all)];
        self.recalls(&task, "", ("text", "region"), found, n);
        if groups.iter().any(|group| group.len() > 1) {
            let value = ("in_image_region".into(), choice_in_image(&by_text, image_of));
            self.put(&task, "own region in its image", value, ("chance_in_image", chance_in_image(n, image_of)));
        }
        Ok(())
    }

    fn hard_choice(&mut self, split: &SplitFeatures) {
        let choices: Vec<_> = split.regions.iter().filter_map(|r| r.choice.as_ref()).collect();
        self.count("hard_regions", choices.len());
        let Some(HardScores { all, kinds }) = HardScores::of(&choices) else {
            return;
        };
        let task = format!("true text among hard negatives, {} regions", all.regions);
        self.put(&task, "of eleven", ("hard_choice".into(), all.right), ("chance_hard", all.chance));
        for (kind, ChoiceScore { regions, right, chance }) in kinds {
            self.count(&format!("hard_regions_{kind}"), regions);
            let name = format!("against another {kind} ({regions})");
            self.put(&task, &name, (format!("hard_choice_{kind}"), right), (&format!("chance_hard_{kind}"), chance));
        }
    }

    fn boxes(&mut self, scores: &[BoxScore]) {
        let Some(BoxScore { boxes, classes, .. }) = scores.first() else {
            return;
        };
        self.count("boxes", *boxes);
        self.count("box_classes", *classes);
        let task = format!("categories of boxes, {boxes} boxes, {classes} categories");
        let chance = Recall::chance(*classes);
        for score in scores {
            let templates = &score.templates;
            for (k, value, chance) in [(1, score.top1, chance.r1), (5, score.top5, chance.r5)] {
                let (name, key) = (format!("top-{k}, {templates} prompts"), format!("box_top{k}_{templates}"));
                self.put(&task, &name, (key, value), (&format!("chance_box_top{k}"), chance));
            }
        }
    }
}

/// The places of texts among others, and of others among texts.
fn both(texts: &Tensor, others: &Tensor, image_of: impl Fn(usize) -> Range<usize> + Copy) -> Result<(Places, Places)> {
    Ok((places(texts, others, image_of)?, places(others, texts, image_of)?))
}

/// The items of each item's image; items of an image stand side by side.
fn groups(images: &[usize]) -> Vec<Range<usize>> {
    let mut groups = Vec::with_capacity(images.len());
    for group in images.chunk_by(|a, b| a == b) {
        let start = groups.len();
        groups.extend(std::iter::repeat_n(start..start + group.len(), group.len()));
    }
    groups
}

/// Six decimals: what a reader of the file can use.
pub(crate) fn rounded(value: f64) -> Value {
    Value::from((value * 1e6).round() / 1e6)
}
