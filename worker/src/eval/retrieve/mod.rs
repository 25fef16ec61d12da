//! Retrieval as arithmetic: places of the right answer in rows of similarities, recall at k, the choice within an
//! image, and what chance would reach. Pure: no tensor, no file.
//!
//! Ties are shared fairly: a query whose right answer ties with others counts as the share of orders of the tied
//! answers in which it is found. So a model that gives every region the same embedding scores exactly chance, not
//! 0 and not 1.

use serde::Serialize;
use std::ops::Range;

#[cfg(test)]
mod tests;

/// Where the right answer stands in one query's row of similarities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnswerRank {
    /// Answers that are strictly more similar than the right one.
    pub(crate) above: usize,
    /// Other answers that are exactly as similar.
    pub(crate) ties: usize,
}

impl AnswerRank {
    /// The place of `own` in `row`. A similarity that is not a number loses against every number.
    pub(crate) fn of(row: &[f32], own: usize) -> Self {
        let right = row[own];
        let mut place = Self { above: 0, ties: 0 };
        for (i, &other) in row.iter().enumerate() {
            if i == own {
                continue;
            }
            match other.partial_cmp(&right) {
                Some(std::cmp::Ordering::Greater) => place.above += 1,
                Some(std::cmp::Ordering::Equal) => place.ties += 1,
                Some(std::cmp::Ordering::Less) => {}
                None if right.is_nan() && other.is_nan() => place.ties += 1,
                None if right.is_nan() => place.above += 1,
                None => {}
            }
        }
        place
    }

    /// Probability, over the orders of the tied answers, that the right one is among the first `k`: 0, 1 or between.
    pub(crate) fn hit(self, k: usize) -> f64 {
        let free = k.saturating_sub(self.above) as f64;
        (free / (self.ties + 1) as f64).min(1.0)
    }

    /// The mean rank over the orders of the tied answers, 1 for the best.
    pub(crate) fn rank(self) -> f64 {
        1.0 + self.above as f64 + self.ties as f64 / 2.0
    }
}

/// Recall of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Recall {
    /// Share of queries whose right answer is the first.
    pub(crate) r1: f64,
    /// Share of queries whose right answer is among the first five.
    pub(crate) r5: f64,
    /// Share of queries whose right answer is among the first ten.
    pub(crate) r10: f64,
    /// Median rank of the right answer, 1 for the best.
    pub(crate) median_rank: f64,
}

impl Recall {
    /// Recall over all queries; zeros for none.
    pub(crate) fn of(places: &[AnswerRank]) -> Self {
        let mut ranks: Vec<f64> = places.iter().map(|p| p.rank()).collect();
        ranks.sort_by(f64::total_cmp);
        let at = |k| mean(places.iter().map(|p| p.hit(k)));
        Self { r1: at(1), r5: at(5), r10: at(10), median_rank: ranks.get(ranks.len() / 2).copied().unwrap_or(0.0) }
    }

    /// What drawing answers at random from `n` reaches.
    pub(crate) fn chance(n: usize) -> Self {
        let at = |k: usize| if n == 0 { 0.0 } else { (k as f64 / n as f64).min(1.0) };
        Self { r1: at(1), r5: at(5), r10: at(10), median_rank: (n as f64 + 1.0) / 2.0 }
    }
}

/// The places of one direction, filled block by block.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Among all answers, one per query in order.
    pub(crate) all: Vec<AnswerRank>,
    /// Among the answers of the query's own image, one per query in order.
    pub(crate) in_image: Vec<AnswerRank>,
}

impl Places {
    /// Takes the similarities of the next queries, row-major `[block, n]`. Query `i` belongs to answer `i`.
    /// `image_of(i)` is the range of answers from query `i`'s image, which holds `i`.
    pub(crate) fn add_block(&mut self, sims: &[f32], n: usize, image_of: impl Fn(usize) -> Range<usize>) {
        for row in sims.chunks_exact(n) {
            let query = self.all.len();
            self.all.push(AnswerRank::of(row, query));
            let group = image_of(query);
            self.in_image.push(AnswerRank::of(&row[group.clone()], query - group.start));
        }
    }
}

/// Share of texts that choose their own region among those of its image, over images of at least two regions: a
/// choice of one is none.
pub(crate) fn choice_in_image(places: &Places, image_of: impl Fn(usize) -> Range<usize>) -> f64 {
    let real = places.in_image.iter().enumerate().filter(|(i, _)| image_of(*i).len() > 1);
    mean(real.map(|(_, p)| p.hit(1)))
}

/// What choosing at random reaches in [`choice_in_image`]: the mean of 1/k over the same regions.
pub(crate) fn chance_in_image(n: usize, image_of: impl Fn(usize) -> Range<usize>) -> f64 {
    mean((0..n).map(|i| image_of(i).len()).filter(|&k| k > 1).map(|k| 1.0 / k as f64))
}

/// The indices of the `k` most similar answers, best first; equal ones by index.
pub(crate) fn top(row: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).filter(|&i| !row[i].is_nan()).collect();
    let by_similarity = |a: &usize, b: &usize| row[*b].total_cmp(&row[*a]).then(a.cmp(b));
    if order.len() > k && k > 0 {
        order.select_nth_unstable_by(k - 1, by_similarity);
    }
    order.truncate(k);
    order.sort_by(by_similarity);
    order
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), v| (sum + v, n + 1));
    if n == 0 { 0.0 } else { sum / n as f64 }
}
