//! The regions of mini-LongGRIT, known by what the annotator shows of them.

use super::StandInConfig;
use super::finehard::FineHard;
use anyhow::{Context, Result};
use pixfleet_annotate::{View, picture};
use pixfleet_cluster::rng;
use pixfleet_shards::{ImageRow, Region};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Planted {
    /// What the object is or looks like, in the words made from the object alone.
    Object,
    /// The same in the words made from the whole picture.
    Context,
}

/// An answer to a picture, and where and what it is if it is wrong.
type Seen = (String, Option<((String, usize), Planted)>);

/// See the module.
#[derive(Default)]
pub(super) struct Scenes {
    /// By the hash of the JPEG.
    views: HashMap<[u8; 32], Seen>,
    /// Of a picture, by the hash of its JPEG: each region's box in pixels, and its mask.
    masks: HashMap<[u8; 32], Vec<([f64; 4], Value)>>,
    regions: HashMap<[u8; 32], (Vec<Region>, (u32, u32))>,
    pub(super) finehard: FineHard,
    categories: BTreeSet<String>,
}

impl Scenes {
    pub(super) async fn load(data: &str, split: &str, config: StandInConfig) -> Result<Self> {
        let mut scenes = Self::default();
        for row in super::read(data, split).await? {
            scenes.learn(&row, config).with_context(|| format!("scene {}", row.image_id))?;
        }
        Ok(scenes)
    }

    fn learn(&mut self, row: &ImageRow, config: StandInConfig) -> Result<()> {
        let show = |region: Option<&Region>, view| picture(row, region, view).map_err(anyhow::Error::msg);
        let scale = [row.width, row.height, row.width, row.height].map(f64::from);
        let masks = row.regions.iter().filter_map(|region| {
            let mask = region.mask.as_ref()?;
            let runs =
                json!({"size": [mask.height, mask.width], "counts": String::from_utf8_lossy(&mask.to_coco_string())});
            Some((std::array::from_fn(|i| f64::from(region.bbox[i]) * scale[i]), runs))
        });
        let whole = hash(&show(None, View::Picture)?);
        self.masks.insert(whole, masks.collect());
        self.regions.insert(whole, (row.regions.clone(), (row.width, row.height)));
        self.views.insert(whole, (row.caption_long.clone().unwrap_or_default(), None));
        self.finehard.learn(row);
        for (at, region) in row.regions.iter().enumerate() {
            self.categories.extend(region.category.clone());
            let place = (row.image_id.clone(), at);
            let planted = plant(&place, config);
            let wrong = |kind| (planted == Some(kind)).then(|| (place.clone(), kind));
            let object = match wrong(Planted::Object) {
                Some(_) => lie(region, &place, config),
                None => region.caption_object.clone().unwrap_or_default(),
            };
            let head = match wrong(Planted::Context) {
                Some(_) => lie(region, &place, config),
                None => region.short_expr.clone().unwrap_or_default(),
            };
            let context = format!("It is {head}. {}", region.caption_context.as_deref().unwrap_or_default());
            self.views.insert(hash(&show(Some(region), View::Masked)?), (object, wrong(Planted::Object)));
            self.views.insert(hash(&show(Some(region), View::Boxed)?), (context, wrong(Planted::Context)));
        }
        Ok(())
    }

    /// What it says of a picture.
    pub(super) fn see(&self, data_url: &str) -> Option<Seen> {
        self.views.get(&hash(&jpeg(data_url)?)).cloned()
    }

    /// The masks of what is in `boxes` of a picture ([x1, y1, x2, y2] in pixels), in their order.
    pub(super) fn masks(&self, data_url: &str, boxes: &[Value]) -> Option<Vec<Value>> {
        let known = self.masks.get(&hash(&jpeg(data_url)?))?;
        let masks = boxes.iter().map(|asked| {
            let far = |bbox: &[f64; 4]| -> f64 {
                bbox.iter().enumerate().map(|(i, at)| (at - asked[i].as_f64().unwrap_or(f64::MAX)).abs()).sum()
            };
            known.iter().min_by(|a, b| far(&a.0).total_cmp(&far(&b.0))).map(|(_, mask)| mask.clone())
        });
        masks.collect()
    }

    /// The boxes in a picture of what phrases name.
    pub(super) fn detect(&self, data_url: &str, phrases: &[&str]) -> Option<Value> {
        let (regions, size) = self.regions.get(&hash(&jpeg(data_url)?))?;
        Some(FineHard::detect(regions, phrases, *size))
    }

    /// What things are called.
    pub(super) fn categories(&self) -> Vec<String> {
        self.categories.iter().cloned().collect()
    }
}

/// Whether an answer about a region is to be wrong, and which.
fn plant(place: &(String, usize), config: StandInConfig) -> Option<Planted> {
    let key = rng::key(&[config.seed, 11, super::fold(&place.0), place.1 as u64]);
    let unit = (key >> 11) as f64 / (1u64 << 53) as f64;
    let kind = if key & 1 == 0 { Planted::Object } else { Planted::Context };
    (unit < config.wrong).then_some(kind)
}

/// One of the region's hard negatives: true but for one attribute.
fn lie(region: &Region, place: &(String, usize), config: StandInConfig) -> String {
    let key = rng::key(&[config.seed, 12, super::fold(&place.0), place.1 as u64]);
    let all = &region.hard_negs;
    all.get(key as usize % all.len().max(1)).cloned().unwrap_or_else(|| "a red herring".into())
}

fn jpeg(data_url: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(data_url.split_once("base64,")?.1).ok()
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
