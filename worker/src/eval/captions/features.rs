//! A split through the towers of FG-CLIP: images, regions pooled from the patch map, captions, expressions, and the
//! similarities of regions to their hard negatives. Rows become samples, batches and features by the functions that
//! training uses.

use super::hard::Choice;
use crate::eval::benchmarks::Part;
use crate::eval::features::{ImageFeatures, RegionFeatures, Text, rows_of};
use crate::eval::feed::{SplitFeed, SplitRow};
use crate::eval::subject::Subject;
use crate::train::inputs::Staged;
use anyhow::{Context, Result};
use pixfleet_cluster::SampleId;
use pixfleet_cluster::spec::Needs;
use pixfleet_cluster::spec::terms::{HARD_TEXTS, Set};
use pixfleet_model::{Compute, Features};
use pixfleet_shards::Columns;
use pixfleet_shards::batch::assemble;
use pixfleet_shards::sample::{Sample, SampleConfig, full_sample};
use pixfleet_shards::tokens::Cuts;
use tch::{IndexOp, Kind, Tensor};

/// Regions that are encoded together, as long as a row does not have more: each may bring eleven texts and more.
const REGIONS_AT_ONCE: usize = 128;

/// An image of the split.
#[derive(Debug, Clone)]
pub(crate) struct ImagePlace {
    /// Key of the image within its source.
    pub(crate) image_id: String,
    /// Row group over all files of the split, and row within it.
    pub(crate) at: (u32, u32),
}

/// A region of the split.
#[derive(Debug, Clone)]
pub(crate) struct RegionPlace {
    /// Number of its image.
    pub(crate) image: usize,
    /// Its number within its image's row.
    pub(crate) index: u32,
    /// Its category, if it is known.
    pub(crate) category: Option<String>,
    /// Its choice among hard negatives, if it has any.
    pub(crate) choice: Option<Choice>,
}

/// Unit vectors of `D` numbers, one after the other, each with the number of the image or region that it belongs to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vectors {
    /// The numbers.
    pub(crate) values: Vec<f32>,
    /// Image or region of each vector, ascending.
    pub(crate) owners: Vec<usize>,
}

impl Vectors {
    /// [n, D].
    pub(crate) fn tensor(&self) -> Tensor {
        Tensor::from_slice(&self.values).reshape([self.owners.len() as i64, -1])
    }

    /// Those of `wanted`, [wanted, D].
    pub(crate) fn pick(&self, wanted: &[usize]) -> Tensor {
        let wanted: Vec<i64> = wanted.iter().map(|&i| i as i64).collect();
        self.tensor().index_select(0, &Tensor::from_slice(&wanted))
    }

    /// Vector number `at`.
    fn row(&self, at: usize) -> &[f32] {
        let d = self.values.len() / self.owners.len();
        &self.values[at * d..(at + 1) * d]
    }

    fn push(&mut self, features: &Tensor, owners: impl IntoIterator<Item = usize>) -> Result<()> {
        self.values.extend(rows_of(features)?.into_iter().flatten());
        self.owners.extend(owners);
        Ok(())
    }
}

/// A split as one model sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SplitFeatures {
    /// The images.
    pub(crate) images: Vec<ImagePlace>,
    /// The regions, image by image.
    pub(crate) regions: Vec<RegionPlace>,
    /// Of every image.
    pub(crate) image: Vectors,
    /// Of the images that have a long caption.
    pub(crate) long: Vectors,
    /// Of the images that have a short one.
    pub(crate) short: Vectors,
    /// Of every region; owners are images.
    pub(crate) region: Vectors,
    /// Of the regions that have an expression; owners are regions.
    pub(crate) region_text: Vectors,
    /// Texts that were cut.
    pub(crate) cuts: Cuts,
    /// Rows that were left out.
    pub(crate) bad: u64,
}

/// What evaluation looks at, whatever the run learned from.
pub(crate) fn needs(subject: &Subject) -> Needs {
    [Set::Region, Set::LongText, Set::ShortText, Set::RegionText, Set::HardText]
        .into_iter()
        .fold(subject.needs.clone(), Needs::with)
}

/// Encodes the split of `subject`.
///
/// # Errors
/// A store that cannot be read, a model that does not fit.
pub(crate) fn encode_split(subject: &Subject, config: &SampleConfig, limit: Option<u64>) -> Result<SplitFeatures> {
    // Categories are among the details.
    let columns = Columns { details: true, ..config.columns() };
    let feed = SplitFeed { reader: &subject.reader, columns, limit, first: None, part: Part::WHOLE };
    let mut features = SplitFeatures::default();
    features.bad = feed.each(
        |row| full_sample(row, config),
        |rows| {
            let mut rows = rows.into_iter().peekable();
            while rows.peek().is_some() {
                let (mut part, mut regions) = (Vec::new(), 0);
                while let Some(row) =
                    rows.next_if(|r| regions == 0 || regions + r.seen.regions.len() <= REGIONS_AT_ONCE)
                {
                    regions += row.seen.regions.len();
                    part.push(row);
                }
                tch::no_grad(|| features.add(subject, &config.needs, part))?;
            }
            Ok(())
        },
    )?;
    Ok(features)
}

impl SplitFeatures {
    /// Image by image: a region's vector is the one pooled from the patch map, its short text its expression, its long text
    /// the image's long caption.
    pub(crate) fn by_image(&self) -> Vec<ImageFeatures> {
        let text = |vectors: &Vectors, owner: usize| {
            let at = vectors.owners.binary_search(&owner).ok()?;
            Some(Text { text: String::new(), embedding: vectors.row(at).to_vec() })
        };
        let image = |(number, place): (usize, &ImagePlace)| {
            let first = self.regions.partition_point(|region| region.image < number);
            let end = self.regions.partition_point(|region| region.image <= number);
            let regions = (first..end).map(|at| RegionFeatures {
                index: self.regions[at].index,
                mask: self.region.row(at).to_vec(),
                boxed: Vec::new(),
                short: text(&self.region_text, at),
                long: text(&self.long, number),
            });
            ImageFeatures {
                image_id: place.image_id.clone(),
                row_group: place.at.0,
                row: place.at.1,
                full: self.image.row(number).to_vec(),
                regions: regions.collect(),
            }
        };
        self.images.iter().enumerate().map(image).collect()
    }

    /// Encodes some rows and appends them.
    fn add(&mut self, subject: &Subject, needs: &Needs, rows: Vec<SplitRow<Sample>>) -> Result<()> {
        let (first_image, first_region) = (self.images.len(), self.regions.len());
        let most = rows.iter().map(|r| r.seen.regions.len()).max().unwrap_or(0).max(1);
        let mut needs = needs.clone();
        needs.regions = most as u32;
        let mut samples = Vec::with_capacity(rows.len());
        for SplitRow { row_group, row, source, seen } in rows {
            for region in &seen.regions {
                let index = region.region.context("a region of a row has a number")?;
                let of = &source.regions[index as usize];
                let choice =
                    (!region.choice.is_empty()).then(|| Choice { sims: Vec::new(), kinds: of.hard_neg_kinds.clone() });
                let image = self.images.len();
                self.regions.push(RegionPlace { image, index, category: of.category.clone(), choice });
            }
            self.images.push(ImagePlace { image_id: source.image_id, at: (row_group, row) });
            self.cuts.merge(&seen.cuts);
            samples.push((SampleId { epoch: 0, row_group, row }, seen));
        }
        let mut batch = assemble(&samples, &needs, Vec::new())?;
        let inputs = Staged::of(&mut batch, &needs, subject.device)?.inputs()?;
        let lane = subject.model.encode(&inputs, &needs, Compute::FP32)?;
        self.append(&lane, (first_image, first_region))
    }

    /// Appends the features of a lane whose first image and region have these numbers.
    pub(super) fn append(&mut self, lane: &Features, (image, region): (usize, usize)) -> Result<()> {
        let of = |set: Set| lane.sets.get(set).with_context(|| format!("no features of set `{}`", set.name()));
        let rows =
            |set: Set| Ok::<_, anyhow::Error>(of(set)?.slots.owners().into_iter().map(move |r| image + r as usize));
        let (images, regions) = (of(Set::Image)?, of(Set::Region)?);
        self.image.push(&images.features, image..image + lane.rows as usize)?;
        self.long.push(&of(Set::LongText)?.features, rows(Set::LongText)?)?;
        self.short.push(&of(Set::ShortText)?.features, rows(Set::ShortText)?)?;
        self.region.push(&regions.features, rows(Set::Region)?)?;
        // Every region has a slot, so a slot's place among the valid ones is its region.
        let place = |slot: &i64| regions.slots.valid().partition_point(|valid| valid < slot);
        let texts = of(Set::RegionText)?;
        self.region_text.push(&texts.features, texts.slots.valid().iter().map(|slot| region + place(slot)))?;
        let hard = of(Set::HardText)?;
        let places: Vec<usize> = hard.slots.valid().iter().map(place).collect();
        for (sims, place) in similarities(&hard.features, &regions.features, &places)?.into_iter().zip(places) {
            self.regions[region + place].choice.as_mut().context("negatives of a region that has none")?.sims = sims;
        }
        Ok(())
    }
}

/// Of each region in `places` to its eleven texts, `hard` [11 x places, D].
fn similarities(hard: &Tensor, regions: &Tensor, places: &[usize]) -> Result<Vec<Vec<f32>>> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let (width, d) = (i64::from(HARD_TEXTS), regions.size2()?.1);
    let index: Vec<i64> = places.iter().map(|&p| p as i64).collect();
    let own = regions.f_index_select(0, &Tensor::from_slice(&index).to_device(regions.device()))?;
    let sims = hard.f_reshape([-1, width, d])?.f_matmul(&own.f_unsqueeze(-1)?)?.i((.., .., 0));
    rows_of(&sims.to_kind(Kind::Float))
}
