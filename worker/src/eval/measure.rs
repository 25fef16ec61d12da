//! Features of a split -> numbers of one kind of text. Similarities are computed a block of queries at a time, so
//! memory grows with the split and not with its square.

use super::features::{ImageFeatures, RegionFeatures, Text};
use super::retrieve::{Places, Recall, chance_in_image, choice_in_image};
use super::scores::{Evaluated, Scores, TextKind};
use anyhow::{Result, bail};
use std::ops::Range;
use tch::{IndexOp, Kind, Tensor};

/// Queries whose similarities are held at once.
const BLOCK: i64 = 256;

/// The regions that have a text of one kind, in the order of the rows.
pub(crate) struct Pairs<'a> {
    kind: TextKind,
    /// Region `i`, with its image's number.
    pub(crate) regions: Vec<(usize, &'a RegionFeatures, &'a Text)>,
    /// The regions of region `i`'s image.
    groups: Vec<Range<usize>>,
    images: &'a [ImageFeatures],
}

impl<'a> Pairs<'a> {
    /// # Errors
    /// If no region has such a text with a vector.
    pub(crate) fn new(kind: TextKind, images: &'a [ImageFeatures]) -> Result<Self> {
        let mut regions = Vec::new();
        let mut groups = Vec::new();
        for (number, image) in images.iter().enumerate() {
            let start = regions.len();
            let text = |r: &'a RegionFeatures| match kind {
                TextKind::Short => r.short.as_ref(),
                TextKind::Long => r.long.as_ref(),
            };
            regions.extend(image.regions.iter().filter_map(|r| Some((number, r, text(r)?))));
            groups.extend((start..regions.len()).map(|_| start..regions.len()));
        }
        if regions.is_empty() {
            bail!("no region of the split has a {} text with a vector; run `pixfleet shards embed` on it", kind.word());
        }
        Ok(Self { kind, regions, groups, images })
    }

    /// The kind of text.
    pub(crate) fn kind(&self) -> TextKind {
        self.kind
    }

    /// An image by the number that stands beside its regions.
    pub(crate) fn image(&self, number: usize) -> &ImageFeatures {
        &self.images[number]
    }

    fn group(&self, i: usize) -> Range<usize> {
        self.groups[i].clone()
    }

    /// Text embeddings, [n, D].
    pub(crate) fn texts(&self) -> Tensor {
        matrix(self.regions.iter().map(|(_, _, t)| t.embedding.as_slice()))
    }

    /// Region embeddings by mask, [n, D].
    pub(crate) fn masks(&self) -> Tensor {
        matrix(self.regions.iter().map(|(_, r, _)| r.mask.as_slice()))
    }

    /// Measures the three ways of showing a region. The places of the texts among regions shown by mask come along.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn measure(&self) -> Result<(Evaluated, Places)> {
        let n = self.regions.len();
        let texts = self.texts();
        let (mask, places) = self.scores(&texts, &self.masks())?;
        let (boxed, _) = self.scores(&texts, &matrix(self.regions.iter().map(|(_, r, _)| r.boxed.as_slice())))?;
        let full = matrix(self.regions.iter().map(|(image, _, _)| self.images[*image].full.as_slice()));
        let (full, _) = self.scores(&texts, &full)?;
        let images = self.groups.iter().enumerate().filter(|(i, g)| g.start == *i).count();
        let evaluated = Evaluated {
            text: self.kind,
            regions: n,
            images,
            chance: Recall::chance(n),
            chance_in_image: chance_in_image(n, |i| self.group(i)),
            mask,
            boxed,
            full,
        };
        Ok((evaluated, places))
    }

    fn scores(&self, texts: &Tensor, regions: &Tensor) -> Result<(Scores, Places)> {
        let by_text = self.places(texts, regions)?;
        let by_region = self.places(regions, texts)?;
        let scores = Scores {
            text_to_region: Recall::of(&by_text.all),
            region_to_text: Recall::of(&by_region.all),
            in_image: choice_in_image(&by_text, |i| self.group(i)),
        };
        Ok((scores, by_text))
    }

    fn places(&self, queries: &Tensor, answers: &Tensor) -> Result<Places> {
        places(queries, answers, |i| self.group(i))
    }
}

/// The places of the right answers: query i [n, D] belongs to answer i [n, D], and `image_of(i)` are the answers of its
/// image.
///
/// # Errors
/// libtorch's.
pub(crate) fn places(queries: &Tensor, answers: &Tensor, image_of: impl Fn(usize) -> Range<usize>) -> Result<Places> {
    let n = answers.size2()?.0;
    let mut places = Places::default();
    for from in (0..n).step_by(BLOCK as usize) {
        let block = queries.i(from..(from + BLOCK).min(n));
        let sims = Vec::<f32>::try_from(block.f_matmul(&answers.tr())?.f_flatten(0, -1)?)?;
        places.add_block(&sims, n as usize, &image_of);
    }
    Ok(places)
}

fn matrix<'v>(rows: impl Iterator<Item = &'v [f32]>) -> Tensor {
    let rows: Vec<&[f32]> = rows.collect();
    Tensor::from_slice(&rows.concat()).reshape([rows.len() as i64, -1]).to_kind(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(angle: f32) -> Vec<f32> {
        vec![angle.cos(), angle.sin()]
    }

    /// Two images of two and three regions; texts lie at their regions' angles, boxes a little off.
    fn images() -> Vec<ImageFeatures> {
        let image = |number: u32, angles: &[f32]| ImageFeatures {
            image_id: number.to_string(),
            row_group: 0,
            row: number,
            full: unit(0.7),
            regions: (0u32..)
                .zip(angles)
                .map(|(index, &a)| RegionFeatures {
                    index,
                    mask: unit(a),
                    boxed: unit(a + 0.25),
                    short: Some(Text { text: "t".into(), embedding: unit(a + 0.01) }),
                    long: None,
                })
                .collect(),
        };
        vec![image(0, &[0.0, 1.0]), image(1, &[0.2, 1.4, 2.0])]
    }

    #[test]
    fn texts_at_their_regions_are_found() {
        let images = images();
        let (found, places) = Pairs::new(TextKind::Short, &images).expect("has texts").measure().expect("measured");
        assert_eq!((found.regions, found.images), (5, 2));
        assert_eq!((found.mask.text_to_region.r1, found.mask.region_to_text.r1, found.mask.in_image), (1.0, 1.0, 1.0));
        assert!(places.all.iter().all(|p| p.above == 0));
        assert!(found.boxed.text_to_region.r1 < 1.0, "boxes are off by more than the nearest neighbour");
        assert!((found.chance_in_image - 0.4).abs() < 1e-12);
        // One embedding per image: texts cannot tell its regions apart.
        assert!((found.full.in_image - found.chance_in_image).abs() < 1e-12);
    }

    #[test]
    fn a_split_without_such_texts_is_refused() {
        let images = images();
        let error = Pairs::new(TextKind::Long, &images).err().expect("no long texts").to_string();
        assert!(error.contains("no region of the split has a long text"), "{error}");
    }
}
