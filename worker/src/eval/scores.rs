//! What one evaluation found, and its names in `report.json`.

use super::retrieve::Recall;
use serde::Serialize;
use serde_json::{Map, Value};

/// Which caption of a region is the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TextKind {
    /// The short caption: the object alone.
    Short,
    /// The merged long caption: object, context, surroundings.
    Long,
}

impl TextKind {
    /// What its keys in `report.json` begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Short => "",
            Self::Long => "long_",
        }
    }

    /// As a word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
        }
    }
}

/// One way of showing the region to the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Scores {
    /// Texts choose among all regions of the split.
    pub(crate) text_to_region: Recall,
    /// Regions choose among all texts of the split.
    pub(crate) region_to_text: Recall,
    /// Texts choose among the regions of their own image; share of right choices.
    pub(crate) in_image: f64,
}

/// One kind of text over a split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Evaluated {
    /// The queries.
    pub(crate) text: TextKind,
    /// Regions with such a text: as many queries, as many answers.
    pub(crate) regions: usize,
    /// Images they lie in.
    pub(crate) images: usize,
    /// Recall by drawing at random.
    pub(crate) chance: Recall,
    /// Choice within the image at random.
    pub(crate) chance_in_image: f64,
    /// The region shown by its mask.
    pub(crate) mask: Scores,
    /// The region shown by its box, as if the box were the mask.
    #[serde(rename = "box")]
    pub(crate) boxed: Scores,
    /// The region not shown at all: an all-ones mask, one embedding per image.
    pub(crate) full: Scores,
}

impl Evaluated {
    /// The three ways of showing a region, by name.
    pub(crate) fn modes(&self) -> [(&'static str, &Scores); 3] {
        [("mask", &self.mask), ("box", &self.boxed), ("full", &self.full)]
    }

    /// The keys of `report.json`: retrieval with the mask under the plain names, with box and all-ones mask under
    /// names that end in `_box` and `_full`; `long_` before those of long texts.
    pub(crate) fn keys(&self, into: &mut Map<String, Value>) {
        let p = self.text.prefix();
        let mut put = |name: String, value: f64| into.insert(name, Value::from(round(value)));
        if self.text == TextKind::Short {
            put("chance_r1".into(), self.chance.r1);
            put("chance_r5".into(), self.chance.r5);
            put("chance_r10".into(), self.chance.r10);
            put("chance_in_image".into(), self.chance_in_image);
        } else {
            put("long_chance_r10".into(), self.chance.r10);
            put("long_chance_in_image".into(), self.chance_in_image);
        }
        for (mode, scores) in self.modes() {
            let suffix = if mode == "mask" { String::new() } else { format!("_{mode}") };
            for (direction, recall) in
                [("text_to_region", scores.text_to_region), ("region_to_text", scores.region_to_text)]
            {
                put(format!("{p}{direction}_r1{suffix}"), recall.r1);
                put(format!("{p}{direction}_r5{suffix}"), recall.r5);
                put(format!("{p}{direction}_r10{suffix}"), recall.r10);
                put(format!("{p}{direction}_median_rank{suffix}"), recall.median_rank);
            }
            put(format!("{p}in_image_{mode}"), scores.in_image);
        }
        into.insert(format!("{p}test_regions"), Value::from(self.regions));
        into.insert(format!("{p}test_images"), Value::from(self.images));
    }
}

/// Six decimals: what a reader of the file can use.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
