//! Whose turn it is: sources by their weights, as a pure function of (seed, weights, rows).

use pixfleet_cluster::rng::{Draws, Use};

/// When a mix ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// With the first source of which no row is left: the weights hold throughout.
    First,
    /// When no row of any source is left: those that are left share the turns by their weights.
    All,
}

/// The turns of a mix. Turn `t` is drawn from (seed, t) alone, among the sources that have rows left.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    seed: u64,
    weights: Vec<f64>,
    left: Vec<u64>,
    until: Until,
    /// Turns that may still be taken, where there is a limit.
    room: u64,
    turn: u64,
    /// The first source that ended, and after how many turns.
    first_ended: Option<(usize, u64)>,
}

impl Turns {
    /// `sources` are weights, positive and finite, and rows.
    pub(crate) fn new(seed: u64, sources: &[(f64, u64)], until: Until, limit: Option<u64>) -> Self {
        let (weights, left): (Vec<f64>, Vec<u64>) = sources.iter().copied().unzip();
        let room = limit.unwrap_or(u64::MAX);
        let mut turns = Self { seed, weights, left, until, room, turn: 0, first_ended: None };
        turns.note_end();
        turns
    }

    /// Turns from here on if nothing changes: known ahead for [`Until::All`] and by the limit, a bound otherwise.
    pub(crate) fn most(&self) -> u64 {
        let rows: u64 = self.left.iter().sum();
        let total: f64 = self.weights.iter().sum();
        // With the first source's end, as many as its rows stand for on average.
        let until_first = self.left.iter().zip(&self.weights).map(|(&rows, w)| (rows as f64 * total / w) as u64).min();
        let most = match self.until {
            Until::First => until_first.unwrap_or(0).min(rows),
            Until::All => rows,
        };
        most.min(self.room)
    }

    /// The first source of which no row is left, and how many turns there had been.
    pub(crate) fn first_ended(&self) -> Option<(usize, u64)> {
        self.first_ended
    }

    fn note_end(&mut self) {
        if self.first_ended.is_none() {
            self.first_ended = self.left.iter().position(|&rows| rows == 0).map(|source| (source, self.turn));
        }
    }
}

impl Iterator for Turns {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let over = self.until == Until::First && self.first_ended.is_some();
        if self.room == 0 || over {
            return None;
        }
        let weight = |(left, weight): (&u64, &f64)| if *left > 0 { *weight } else { 0.0 };
        let total: f64 = self.left.iter().zip(&self.weights).map(weight).sum();
        let mut at = Draws::new(self.seed, 0, self.turn, Use::Mix).unit() * total;
        let left = &self.left;
        let with_rows = || (0..left.len()).filter(move |&source| left[source] > 0);
        let drawn = with_rows().find(|&source| {
            at -= self.weights[source];
            at < 0.0
        });
        // Rounding may leave a little of the last one's weight.
        let source = drawn.or_else(|| with_rows().last())?;
        self.left[source] -= 1;
        self.room -= 1;
        self.turn += 1;
        self.note_end();
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(turns: impl Iterator<Item = usize>, sources: usize) -> Vec<u64> {
        let mut counts = vec![0; sources];
        turns.for_each(|source| counts[source] += 1);
        counts
    }

    proptest! {
        #[test]
        fn every_row_has_one_turn(seed: u64, sources in prop::collection::vec((0.01f64..10.0, 0u64..40), 1..5)) {
            let rows: Vec<u64> = sources.iter().map(|(_, rows)| *rows).collect();
            let turns = Turns::new(seed, &sources, Until::All, None);
            prop_assert_eq!(turns.most(), rows.iter().sum::<u64>());
            prop_assert_eq!(counts(turns, rows.len()), rows.clone());

            let mut turns = Turns::new(seed, &sources, Until::First, None);
            let found = counts(turns.by_ref(), rows.len());
            prop_assert!(found.iter().zip(&rows).all(|(found, rows)| found <= rows));
            let (ended, after) = turns.first_ended().expect("a source ends it");
            prop_assert_eq!((found[ended], after), (rows[ended], found.iter().sum::<u64>()));
        }
    }

    #[test]
    fn turns_follow_weights_and_the_seed() {
        let sources = [(3.0, 100_000), (1.0, 100_000)];
        let turns = |seed| Turns::new(seed, &sources, Until::First, Some(20_000));
        assert_eq!(turns(7).most(), 20_000);
        let found = counts(turns(7), 2);
        assert_eq!(found.iter().sum::<u64>(), 20_000);
        // Six standard deviations of a binomial are 6 * sqrt(20000 * 3/16) = 368.
        assert!(found[0].abs_diff(15_000) < 368, "{found:?}");
        assert!(turns(7).eq(turns(7)) && !turns(7).eq(turns(8)));
    }

    #[test]
    fn a_source_without_rows_ends_a_mix_before_it_begins() {
        let mut turns = Turns::new(1, &[(1.0, 5), (1.0, 0)], Until::First, None);
        assert_eq!((turns.first_ended(), turns.next()), (Some((1, 0)), None));
    }
}
