//! The choice of a region's true text among its hard negatives (FG-OVD's protocol, method.md 5.1), in total and by what
//! the negatives change. Pure: no tensor, no file.

use crate::eval::retrieve::AnswerRank;
use pixfleet_shards::HardNegKind;
use std::collections::BTreeMap;

/// A region's similarities to its true text and to its negatives.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    /// The true text's first.
    pub(crate) sims: Vec<f32>,
    /// What each negative changes; empty where it is not known.
    pub(crate) kinds: Vec<HardNegKind>,
}

impl Choice {
    /// Where the true text stands among all.
    pub(crate) fn rank(&self) -> AnswerRank {
        AnswerRank::of(&self.sims, 0)
    }

    /// The negatives that the model holds at least as true as the true text, best first: their numbers, from 0.
    pub(crate) fn preferred(&self) -> Vec<usize> {
        let mut order = self.by_similarity();
        order.retain(|&k| self.sims[k + 1] >= self.sims[0]);
        order
    }

    /// All negatives, the most similar first.
    pub(crate) fn by_similarity(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.sims.len().saturating_sub(1)).collect();
        order.sort_by(|a, b| self.sims[b + 1].total_cmp(&self.sims[a + 1]).then(a.cmp(b)));
        order
    }

    /// The true text with the negatives of one kind.
    fn among(&self, kind: HardNegKind) -> Vec<f32> {
        let own = self.kinds.iter().zip(&self.sims[1..]).filter(|(k, _)| **k == kind).map(|(_, sim)| *sim);
        std::iter::once(self.sims[0]).chain(own).collect()
    }
}

/// How often the true text is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ChoiceScore {
    /// Regions that had to choose.
    pub(crate) regions: usize,
    /// Share of them that chose the true text; ties count as their share.
    pub(crate) right: f64,
    /// The same by drawing at random: the mean of 1 / number of texts.
    pub(crate) chance: f64,
}

impl ChoiceScore {
    /// Over rows of similarities, the true text's first. `None` without any.
    fn of(rows: &[Vec<f32>]) -> Option<Self> {
        let n = rows.len();
        let mean = |of: &dyn Fn(&Vec<f32>) -> f64| rows.iter().map(of).sum::<f64>() / n as f64;
        (n > 0).then(|| Self {
            regions: n,
            right: mean(&|row| AnswerRank::of(row, 0).hit(1)),
            chance: mean(&|row| 1.0 / row.len() as f64),
        })
    }
}

/// The choices of a split.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HardScores {
    /// Among all negatives of a region.
    pub(crate) all: ChoiceScore,
    /// Among those of one kind.
    pub(crate) kinds: BTreeMap<HardNegKind, ChoiceScore>,
}

impl HardScores {
    /// `None` where no region has hard negatives.
    pub(crate) fn of(choices: &[&Choice]) -> Option<Self> {
        let all = ChoiceScore::of(&choices.iter().map(|c| c.sims.clone()).collect::<Vec<_>>())?;
        let mut rows: BTreeMap<HardNegKind, Vec<Vec<f32>>> = BTreeMap::new();
        for choice in choices {
            let mut kinds = choice.kinds.clone();
            kinds.sort_unstable();
            kinds.dedup();
            for kind in kinds {
                rows.entry(kind).or_default().push(choice.among(kind));
            }
        }
        let kinds = rows.into_iter().filter_map(|(kind, rows)| Some((kind, ChoiceScore::of(&rows)?))).collect();
        Some(Self { all, kinds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(sims: &[f32], kinds: &[HardNegKind]) -> Choice {
        Choice { sims: sims.to_vec(), kinds: kinds.to_vec() }
    }

    #[test]
    fn the_true_text_must_be_the_best_and_ties_count_as_their_share() {
        let choices = [choice(&[0.9, 0.1, 0.2], &[]), choice(&[0.1, 0.9, 0.0], &[]), choice(&[0.5, 0.5, 0.5], &[])];
        let scores = HardScores::of(&choices.iter().collect::<Vec<_>>()).expect("choices");
        assert_eq!(scores.all.regions, 3);
        assert!((scores.all.right - (1.0 + 0.0 + 1.0 / 3.0) / 3.0).abs() < 1e-12);
        assert!((scores.all.chance - 1.0 / 3.0).abs() < 1e-12);
        assert!(scores.kinds.is_empty(), "kinds that are not known are not made up");
        assert_eq!(HardScores::of(&[]), None);
    }

    #[test]
    fn a_kind_is_a_choice_among_its_own_negatives_with_its_own_chance() {
        let choices = [
            choice(&[0.5, 0.6, 0.1, 0.2], &[HardNegKind::Colour, HardNegKind::Size, HardNegKind::Size]),
            choice(&[0.5, 0.1, 0.2, 0.7], &[HardNegKind::Colour, HardNegKind::Colour, HardNegKind::Count]),
        ];
        let scores = HardScores::of(&choices.iter().collect::<Vec<_>>()).expect("choices");
        assert_eq!(scores.all.right, 0.0);
        let found: Vec<_> = scores.kinds.iter().map(|(kind, s)| (*kind, s.regions, s.right)).collect();
        assert_eq!(found, [(HardNegKind::Colour, 2, 0.5), (HardNegKind::Size, 1, 1.0), (HardNegKind::Count, 1, 0.0)]);
        assert!((scores.kinds[&HardNegKind::Colour].chance - (1.0 / 2.0 + 1.0 / 3.0) / 2.0).abs() < 1e-12);
        assert!((scores.kinds[&HardNegKind::Size].chance - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn what_the_model_prefers_is_best_first() {
        let wrong = choice(&[0.5, 0.6, 0.1, 0.9, 0.5], &[]);
        assert_eq!((wrong.preferred(), wrong.rank().above), (vec![2, 0, 3], 2));
        let right = choice(&[0.9, 0.2, 0.3], &[]);
        assert_eq!((right.preferred(), right.by_similarity()), (vec![], vec![1, 0]));
    }
}
