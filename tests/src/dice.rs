//! Choices of a harness, from a seed: which worker, which moment.

use pixfleet_cluster::rng;

/// An endless stream of choices; the same for the same seed.
#[derive(Debug, Clone)]
pub struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, thrown: 0 }
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        self.thrown += 1;
        (rng::key(&[self.seed, self.thrown]) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `[from, to)`.
    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        from + self.unit() * (to - from)
    }

    /// One of `choices`; `None` of nothing.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let at = (self.unit() * choices.len() as f64) as usize;
        choices.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_stream_and_every_choice_comes() {
        let throw = |seed| {
            let mut dice = Dice::new(seed);
            (0..40).filter_map(|_| dice.pick(&[0, 1, 2]).copied()).collect::<Vec<_>>()
        };
        assert_eq!(throw(1), throw(1));
        assert_ne!(throw(1), throw(2));
        assert_eq!(throw(1).len(), 40);
        assert!((0..3).all(|face| throw(1).contains(&face)), "{:?}", throw(1));
        assert_eq!(Dice::new(1).pick::<u8>(&[]), None);
    }
}
