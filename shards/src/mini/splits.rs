//! The splits of mini-LongGRIT and which drawings each may show.
//!
//! Invariant: a held-out drawing appears in its own split alone, and what is held out depends on names, not on the
//! seed: two datasets hold out the same.

use pixfleet_cluster::rng::mix;

/// One split. The number keys the draws: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Split {
    /// Scenes to train on.
    Train = 1,
    /// New scenes of the training drawings.
    Test = 2,
    /// Drawings whose concept was seen in training, in another style.
    HeldoutPairs = 3,
    /// Concepts never seen in training.
    HeldoutConcepts = 4,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Train, Self::Test, Self::HeldoutPairs, Self::HeldoutConcepts];

    /// Its folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
            Self::HeldoutPairs => "heldout_pairs",
            Self::HeldoutConcepts => "heldout_concepts",
        }
    }
}

/// A number that a name alone decides.
pub(crate) fn name_key(name: &str, salt: u64) -> u64 {
    mix(name.bytes().fold(0xCBF2_9CE4_8422_2325 ^ salt, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3)))
}

/// Whether all drawings of a concept are held out: one concept in sixteen.
pub(crate) fn concept_held_out(name: &str) -> bool {
    name_key(name, 1).is_multiple_of(16)
}

/// Which of a concept's `styles` drawings is held out: one concept in eight lacks one style in training.
pub(crate) fn style_held_out(name: &str, styles: usize) -> Option<usize> {
    let key = name_key(name, 2);
    (styles > 1 && key.is_multiple_of(8)).then(|| (key >> 8) as usize % styles)
}
