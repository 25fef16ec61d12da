//! The draws of one scene: a stream keyed by (seed, split, scene), so scenes can be made anywhere and in any order.

use super::splits::Split;
use pixfleet_cluster::rng::{Draws, Use};

/// An indexable stream of choices.
pub(crate) struct Dice(Draws);

impl Dice {
    /// The stream of scene `i` of `split`.
    pub(crate) fn new(seed: u64, split: Split, i: u64) -> Self {
        Self(Draws::new(seed, split as u64, i, Use::Scene))
    }

    /// Uniform in `0..n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0.below(n.max(1) as u64) as usize
    }

    /// Uniform in `0..1`.
    pub(crate) fn unit(&mut self) -> f32 {
        self.0.unit() as f32
    }

    /// Leaves `n` draws out.
    pub(crate) fn skip(&mut self, n: usize) {
        (0..n).for_each(|_| {
            self.0.bits();
        });
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// Uniform between `low` and `high`.
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// One of `items`, which must not be empty.
    pub(crate) fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }

    /// A random order (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
