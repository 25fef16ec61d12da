//! The metrics of the benchmarks as functions of feature matrices, [n, D] fp32 on the host: similarities are dot products,
//! a block of queries at a time. Pure: no model, no file. Formulas are those of the scripts that published each protocol.

use crate::eval::retrieve::AnswerRank;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{IndexOp, Tensor};

#[cfg(test)]
mod tests;

/// Queries whose similarities are held at once.
const BLOCK: i64 = 256;

/// Over what a share is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Average {
    /// The mean over classes of each class's share; classes without an item do not count (AlphaCLIP, PixCLIP).
    Class,
    /// All items alike (FG-CLIP).
    Micro,
}

/// What an answer counts that is exactly as similar as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ties {
    /// The share of orders of the tied answers in which it is found: a model that tells nothing apart scores chance.
    Share,
    /// All, as if it stood first (FG-OVD of FG-CLIP: right where no other is strictly better).
    Right,
}

/// One number: a share between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Score {
    /// Its key in `report.json`.
    pub(crate) key: &'static str,
    /// As people call it.
    pub(crate) name: &'static str,
    /// The number.
    pub(crate) value: f64,
    /// What chance would reach.
    pub(crate) chance: f64,
}

impl Ties {
    /// Probability that the right answer is among the first `k`: 0, 1 or between.
    fn hit(self, rank: AnswerRank, k: usize) -> f64 {
        match self {
            Self::Share => rank.hit(k),
            Self::Right => f64::from(u8::from(rank.above < k)),
        }
    }
}

/// Zero-shot classification: item i [n, D] is of class `own[i]`, one of `classes` [C, D]. Top-1 and top-5.
///
/// # Errors
/// libtorch's.
pub(crate) fn classify(
    items: &Tensor,
    classes: &Tensor,
    own: &[usize],
    (average, ties): (Average, Ties),
) -> Result<[Score; 2]> {
    // By class: items, those with it first, those with it among the first five.
    let mut counts: BTreeMap<usize, [f64; 3]> = BTreeMap::new();
    each_row(items, classes, |i, row| {
        let rank = AnswerRank::of(row, own[i]);
        let count = counts.entry(own[i]).or_default();
        *count = [count[0] + 1.0, count[1] + ties.hit(rank, 1), count[2] + ties.hit(rank, 5)];
    })?;
    let share = |k: usize| match average {
        Average::Class => mean(counts.values().map(|count| count[k] / count[0])),
        Average::Micro => {
            counts.values().map(|count| count[k]).sum::<f64>() / counts.values().map(|count| count[0]).sum::<f64>()
        }
    };
    let names = classes.size2()?.0 as f64;
    Ok([
        Score { key: "top1", name: "top-1", value: share(1), chance: 1.0 / names },
        Score { key: "top5", name: "top-5", value: share(2), chance: (5.0 / names).min(1.0) },
    ])
}

/// The choice of a region's true text among its negatives (FG-OVD): text j belongs to region `owners[j]`, the texts of a
/// region stand side by side, the true one first. Regions [n, D], texts [T, D].
///
/// # Errors
/// libtorch's.
pub(crate) fn choose(regions: &Tensor, texts: &Tensor, owners: &[usize], ties: Ties) -> Result<[Score; 1]> {
    let own = regions.index_select(0, &index(owners));
    // [T]: each text's similarity to its own region.
    let sims = Vec::<f32>::try_from((own * texts).f_sum_dim_intlist([1i64].as_slice(), false, tch::Kind::Float)?)?;
    let groups = groups(owners);
    let value = mean(groups.iter().map(|g| ties.hit(AnswerRank::of(&sims[g.clone()], 0), 1)));
    let chance = mean(groups.iter().map(|g| 1.0 / g.len() as f64));
    Ok([Score { key: "top1", name: "the true text", value, chance }])
}

/// The choice of the region that an expression means among those of its picture (RefCOCO from given boxes): expression j is of
/// region `owners[j]`, region i lies in picture `pictures[i]`, and the regions of a picture stand side by side.
///
/// # Errors
/// libtorch's.
pub(crate) fn refer(
    (regions, pictures): (&Tensor, &[usize]),
    (texts, owners): (&Tensor, &[usize]),
    ties: Ties,
) -> Result<[Score; 1]> {
    let groups = groups(pictures);
    let of_region: Vec<&Range<usize>> = groups.iter().flat_map(|g| std::iter::repeat_n(g, g.len())).collect();
    let (mut value, mut chance) = (Vec::with_capacity(owners.len()), Vec::with_capacity(owners.len()));
    for (j, &owner) in owners.iter().enumerate() {
        let group = of_region[owner];
        let candidates = regions.i(group.start as i64..group.end as i64);
        let sims = Vec::<f32>::try_from(candidates.f_mv(&texts.i(j as i64))?)?;
        value.push(ties.hit(AnswerRank::of(&sims, owner - group.start), 1));
        chance.push(1.0 / group.len() as f64);
    }
    let (value, chance) = (mean(value.into_iter()), mean(chance.into_iter()));
    Ok([Score { key: "accuracy", name: "the right region", value, chance }])
}

/// Retrieval between images [n, D] and texts [T, D], where text j belongs to image `owners[j]` (ascending) and every image has
/// one: R@1, R@5, R@10 of both directions. An image has found a text if any of its own is among the first k; a text is averaged
/// over all texts.
///
/// # Errors
/// An image without a text; libtorch's.
pub(crate) fn retrieve(images: &Tensor, texts: &Tensor, owners: &[usize], ties: Ties) -> Result<[Score; 6]> {
    const KS: [usize; 3] = [1, 5, 10];
    let (n, all) = (images.size2()?.0 as usize, owners.len());
    let groups = groups(owners);
    ensure!(groups.len() == n && owners.is_sorted(), "every image needs a text of its own");
    let mut found = [[0.0; 3]; 2];
    let mut chance = [[0.0; 3]; 2];
    each_row(images, texts, |i, row| {
        for (at, k) in KS.into_iter().enumerate() {
            found[0][at] += any_hit(row, &groups[i], k, ties) / n as f64;
            chance[0][at] += any_by_chance(all, groups[i].len(), k) / n as f64;
        }
    })?;
    each_row(texts, images, |j, row| {
        let rank = AnswerRank::of(row, owners[j]);
        for (at, k) in KS.into_iter().enumerate() {
            found[1][at] += ties.hit(rank, k) / all as f64;
            chance[1][at] = (k as f64 / n as f64).min(1.0);
        }
    })?;
    let names = [
        [("image_to_text_r1", "image → text R@1"), ("image_to_text_r5", "R@5"), ("image_to_text_r10", "R@10")],
        [("text_to_image_r1", "text → image R@1"), ("text_to_image_r5", "R@5"), ("text_to_image_r10", "R@10")],
    ];
    Ok(std::array::from_fn(|i| {
        let ((key, name), value) = (names[i / 3][i % 3], found[i / 3][i % 3]);
        Score { key, name, value, chance: chance[i / 3][i % 3] }
    }))
}

/// Probability that any answer of `own` is among the first `k` of a row of similarities. Only the best of them can be the
/// first to be found; where it ties, all orders of the tied answers are as likely.
fn any_hit(row: &[f32], own: &Range<usize>, k: usize, ties: Ties) -> f64 {
    let Some(best) = own.clone().filter(|&i| !row[i].is_nan()).max_by(|&a, &b| row[a].total_cmp(&row[b])) else {
        return 0.0;
    };
    let value = row[best];
    let above = row.iter().filter(|v| **v > value).count();
    let tied = row.iter().filter(|v| **v == value).count();
    let mine = row[own.clone()].iter().filter(|v| **v == value).count();
    match ties {
        Ties::Right => f64::from(u8::from(above < k)),
        Ties::Share => any_by_chance(tied, mine, k.saturating_sub(above)),
    }
}

/// Probability that `draws` of `all` answers, drawn without putting back, hold one of `own` of them.
fn any_by_chance(all: usize, own: usize, draws: usize) -> f64 {
    let others = all - own;
    if draws > others {
        return 1.0;
    }
    let none = (0..draws).map(|drawn| (others - drawn) as f64 / (all - drawn) as f64).product::<f64>();
    1.0 - none
}

/// `each` gets the number of every query of [n, D] and its similarities to all answers of [m, D].
fn each_row(queries: &Tensor, answers: &Tensor, mut each: impl FnMut(usize, &[f32])) -> Result<()> {
    let (n, m) = (queries.size2()?.0, answers.size2()?.0);
    for from in (0..n).step_by(BLOCK as usize) {
        let block = queries.i(from..(from + BLOCK).min(n)).f_matmul(&answers.tr())?;
        let sims = Vec::<f32>::try_from(block.f_flatten(0, -1)?)?;
        for (i, row) in sims.chunks_exact(m.max(1) as usize).enumerate() {
            each(from as usize + i, row);
        }
    }
    Ok(())
}

/// The runs of equal owners.
fn groups(owners: &[usize]) -> Vec<Range<usize>> {
    let mut start = 0;
    let run = |group: &[usize]| {
        start += group.len();
        start - group.len()..start
    };
    owners.chunk_by(|a, b| a == b).map(run).collect()
}

fn index(of: &[usize]) -> Tensor {
    Tensor::from_slice(&of.iter().map(|&i| i as i64).collect::<Vec<_>>())
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), v| (sum + v, n + 1));
    if n == 0 { 0.0 } else { sum / n as f64 }
}
