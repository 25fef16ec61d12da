//! mini-LongGRIT: scenes composed from real drawings, with exact masks and captions that are true of the pixels.
//!
//! Invariant: a row is a pure function of (drawings, seed, split, number): any machine can make any part of it.

pub mod caption;
pub mod catalogue;
pub mod colour;
pub mod error;
pub mod scene;
pub mod splits;
pub mod sprite;
pub mod words;

mod background;
mod description;
mod dice;
mod expression;
mod facts;
mod image_caption;
mod kin;
mod negatives;
mod templates;

pub use caption::Captions;
pub use catalogue::Catalogue;
pub use error::MiniError;
pub use negatives::PER_REGION;
pub use scene::Scene;
pub use splits::Split;

use crate::hard_neg::HardNegCounts;
use crate::index;
use crate::pixels::Rgb;
use crate::pixels::rle::Rle;
use crate::row::{ImageRow, ImageSource, Region};
use crate::store::Location;
use crate::writer::{ShardWriter, WriterOptions, Written};
use dice::Dice;
use facts::Facts;
use image::ExtendedColorType::Rgb8;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;
use std::path::PathBuf;

/// Scenes composed in parallel before they are written.
const CHUNK: u64 = 256;
/// Quality of the scenes' JPEGs.
const QUALITY: u8 = 90;

/// What to compose.
#[derive(Debug, Clone, PartialEq)]
pub struct MiniConfig {
    /// Scenes of the training split.
    pub scenes: u64,
    /// Seed of all scenes.
    pub seed: u64,
    /// Side of a scene in pixels, 64 to 1024.
    pub size: u32,
    /// Scenes of the test split; `None` for a tenth of `scenes`, at least 400 (more than 1,000 regions).
    pub test_scenes: Option<u64>,
    /// Scenes of each of the two held-out splits; `None` for a quarter of the test split.
    pub heldout_scenes: Option<u64>,
    /// Concepts at most, held-out ones included.
    pub concepts: usize,
    /// Styles, by the folders of their drawings.
    pub styles: Vec<String>,
    /// The folder that holds one folder of drawings a style.
    pub drawings: PathBuf,
    /// Sizes of row groups and files.
    pub writer: WriterOptions,
}

impl Default for MiniConfig {
    fn default() -> Self {
        Self {
            scenes: 4000,
            seed: 0,
            size: 192,
            test_scenes: None,
            heldout_scenes: None,
            concepts: 400,
            styles: ["openmoji", "twemoji"].map(str::to_string).to_vec(),
            drawings: PathBuf::from(".cache/drawings"),
            writer: WriterOptions::default(),
        }
    }
}

impl MiniConfig {
    /// Scenes of `split`.
    #[must_use]
    pub fn scenes_of(&self, split: Split) -> u64 {
        let test = self.test_scenes.unwrap_or_else(|| (self.scenes / 10).max(400));
        match split {
            Split::Train => self.scenes,
            Split::Test => test,
            Split::HeldoutPairs | Split::HeldoutConcepts => self.heldout_scenes.unwrap_or(test / 4),
        }
    }

    fn check(&self) -> Result<(), MiniError> {
        let within = |key, found: u64, low, high| {
            if (low..=high).contains(&found) { Ok(()) } else { Err(MiniError::Config { key, found, low, high }) }
        };
        within("scenes", self.scenes, 1, 1 << 32)?;
        within("size", u64::from(self.size), 64, 1024)?;
        within("concepts", self.concepts as u64, 8, 1 << 16)
    }
}

/// What was composed.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Concepts in use.
    pub concepts: usize,
    /// Drawings in use.
    pub drawings: usize,
    /// Each split and what was written of it.
    pub splits: Vec<(Split, Written)>,
    /// Hard negatives of all splits.
    pub hard_negatives: HardNegCounts,
    /// Digest of the dataset's index.
    pub digest: String,
}

/// Composes all splits to `location` and indexes them. `progress` gets the scenes done and the scenes in all.
///
/// # Errors
/// No or broken drawings, a configuration that makes no scenes, the store's refusals.
pub async fn build(
    config: &MiniConfig,
    location: &Location,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Summary, MiniError> {
    config.check()?;
    let catalogue = Catalogue::load(&config.drawings, &config.styles, config.concepts)?;
    let total: u64 = Split::ALL.iter().map(|&s| config.scenes_of(s)).sum();
    let (mut done, mut splits, mut hard_negatives) = (0, Vec::new(), HardNegCounts::default());
    for split in Split::ALL {
        let mut writer = ShardWriter::new(location.clone(), split.name(), config.writer);
        let scenes = config.scenes_of(split);
        for start in (0..scenes).step_by(CHUNK as usize) {
            let end = (start + CHUNK).min(scenes);
            // The caller's runtime does nothing else meanwhile: composing is the program's work here.
            let rows: Vec<ImageRow> =
                (start..end).into_par_iter().map(|i| row(&catalogue, config, split, i)).collect::<Result<_, _>>()?;
            for row in rows {
                row.regions.iter().for_each(|r| hard_negatives.add(r));
                writer.push(row).await?;
            }
            done += end - start;
            progress(done, total);
        }
        if scenes > 0 {
            splits.push((split, writer.finish().await?));
        }
    }
    let index = index::build(location, &mut |_, _| ()).await?;
    let drawings = catalogue.concepts.iter().map(|c| c.looks.len()).sum();
    Ok(Summary { concepts: catalogue.concepts.len(), drawings, splits, hard_negatives, digest: index.digest })
}

/// Composes scene `i` of `split`: the picture with all its objects, before captions.
#[must_use]
pub fn compose(catalogue: &Catalogue, config: &MiniConfig, split: Split, i: u64) -> Scene {
    scene::compose(catalogue, config.size, split, &mut Dice::new(config.seed, split, i))
}

/// Row `i` of `split`: a scene, encoded, with its captions. Scenes without a region are composed again.
///
/// # Errors
/// A picture that cannot be encoded.
pub fn row(catalogue: &Catalogue, config: &MiniConfig, split: Split, i: u64) -> Result<ImageRow, MiniError> {
    let mut dice = Dice::new(config.seed, split, i);
    let mut scene = scene::compose(catalogue, config.size, split, &mut dice);
    while !scene.objects.iter().any(scene::Object::is_region) {
        scene = scene::compose(catalogue, config.size, split, &mut dice);
    }
    let facts = Facts { catalogue, scene: &scene };
    let spoken = facts.spoken();
    let captions: Vec<Captions> = spoken.iter().map(|&me| caption::region(&facts, me, &mut dice)).collect();
    let image_caption::ImageCaptions { short, long } = image_caption::of(&facts, &mut dice);
    let regions = spoken.into_iter().zip(captions).map(|(me, said)| region(&facts, me, said, &mut dice)).collect();
    let bytes = jpeg(&scene.image)?;
    Ok(ImageRow {
        image_id: format!("mini-{}-{}-{i}", config.seed, split.name()),
        source: "mini".into(),
        image: ImageSource { bytes: Some(bytes.into()), ..ImageSource::default() },
        width: config.size,
        height: config.size,
        lang: Some("en".into()),
        caption_long: Some(long),
        caption_short: Some(short),
        regions,
        ..ImageRow::default()
    })
}

fn region(facts: &Facts<'_>, me: usize, captions: Captions, dice: &mut Dice) -> Region {
    let object = facts.object(me);
    let told = expression::short(facts, me, dice);
    let long_expr = expression::long(facts, me, dice);
    let negatives = negatives::ten(facts, me, &told, &captions.swaps, dice);
    let (hard_neg_kinds, hard_negs) = negatives.into_iter().unzip();
    Region {
        bbox: object.bbox,
        mask: Some(Rle::encode(&object.mask)),
        category: Some(facts.concept(me).name.clone()),
        caption_object: Some(captions.short),
        caption_context: Some(captions.context),
        caption_merged: Some(captions.long),
        check_ok: Some(true),
        short_expr: Some(told.text(facts)),
        long_expr: Some(long_expr),
        hard_negs,
        hard_neg_kinds,
        ..Region::default()
    }
}

fn jpeg(image: &Rgb) -> Result<Vec<u8>, MiniError> {
    let mut bytes = Vec::with_capacity(image.data.len() / 8);
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(&image.data, image.width, image.height, Rgb8)
        .map_err(MiniError::Encode)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
