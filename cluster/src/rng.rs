//! Counter-based randomness: a value is a pure function of (seed, epoch, sample, use). There is no generator state
//! to save, to broadcast or to lose, and a sample's draws do not depend on which rank makes them.

/// What a draw is for. The number is part of the result: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Use {
    /// Which region of the image is trained on.
    Region = 1,
    /// Which of the region's captions is trained on.
    Caption = 2,
    /// Whether the sample becomes a whole-image pair (`common_pair`).
    CommonPair = 3,
    /// Mask augmentation.
    MaskAugment = 4,
    /// The order of row groups within an epoch.
    RowGroups = 5,
    /// The order of rows within a window.
    Rows = 6,
    /// A deterministic substitute for a bad row.
    Substitute = 7,
    /// The model's initial weights.
    Init = 8,
    /// A composed scene of mini-LongGRIT.
    Scene = 9,
    /// Which dataset of a mix has the next turn.
    Mix = 10,
}

/// SplitMix64's finalizer (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
#[must_use]
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Folds a list of words into one well-mixed key.
#[must_use]
pub fn key(words: &[u64]) -> u64 {
    words.iter().fold(0x9E37_79B9_7F4A_7C15, |acc, &w| {
        mix(acc.wrapping_add(0x9E37_79B9_7F4A_7C15) ^ mix(w.wrapping_add(0xD1B5_4A32_D192_ED03)))
    })
}

/// The draws of one (seed, epoch, sample, use): an indexable stream.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    key: u64,
    next: u64,
}

impl Draws {
    /// The stream of `sample` in `epoch` for `purpose`.
    #[must_use]
    pub fn new(seed: u64, epoch: u64, sample: u64, purpose: Use) -> Self {
        Self { key: key(&[seed, epoch, sample, purpose as u64]), next: 0 }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.next += 1;
        mix(self.key.wrapping_add(self.next.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// Uniform in `0..n` (`n > 0`), by multiply-shift; the bias is below `n / 2^64`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform in `[0, 1)` with 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}
