//! What of a row is trained on: drawn by counter-based chance, a pure function of (seed, epoch, row number). No pixel and
//! no text is looked at here.

use super::{SampleError, SampleKey};
use crate::row::ImageRow;
use pixfleet_cluster::rng::{Draws, Use, key};
use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::spec::{DataSpec, Needs, TextChoice};

/// Which text of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TextLength {
    /// The short one.
    Short,
    /// The long one.
    Long,
}

/// What a row stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Drawn {
    /// One of its regions.
    Region(u32, TextLength),
    /// The whole image with its caption (AlphaCLIP's `common_pair`).
    Whole,
    /// The image with these of its regions.
    Image(Vec<(u32, TextLength)>),
}

impl Drawn {
    /// It, mixed to a word.
    pub(super) fn word(&self) -> u64 {
        let of = |(region, length): &(u32, TextLength)| match length {
            TextLength::Short => [u64::from(*region), 1],
            TextLength::Long => [u64::from(*region), 2],
        };
        match self {
            Self::Region(region, length) => key(&[&[1], of(&(*region, *length)).as_slice()].concat()),
            Self::Whole => key(&[2]),
            Self::Image(regions) => key(&[&[3], regions.iter().flat_map(of).collect::<Vec<_>>().as_slice()].concat()),
        }
    }
}

/// What of a row can be drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drawable {
    /// Its regions that passed their check, by number.
    pub regions: Vec<u32>,
    /// Whether the image has a caption that a whole-image pair can use.
    pub caption: bool,
}

impl Drawable {
    /// Of a row whose checks were read; `caption` as [`Drawable::caption`].
    #[must_use]
    pub fn of(row: &ImageRow, caption: bool) -> Self {
        let passed = (0u32..).zip(&row.regions).filter(|(_, r)| r.check_ok != Some(false)).map(|(i, _)| i);
        Self { regions: passed.collect(), caption }
    }

    /// What a run draws of them, mixed to a word; `None` where a region must be drawn and there is none.
    #[must_use]
    pub fn drawn_word(&self, key: SampleKey, data: &DataSpec, needs: &Needs) -> Option<u64> {
        Some(draw(self, key, data, needs).ok()?.word())
    }
}

/// Draws.
///
/// # Errors
/// [`SampleError::NoRegion`] where a region must be drawn and there is none.
pub(super) fn draw(choices: &Drawable, key: SampleKey, data: &DataSpec, needs: &Needs) -> Result<Drawn, SampleError> {
    let mut lengths = key.draws(Use::Caption);
    let regions = &choices.regions;
    if !needs.draws_region() {
        let most = if needs.has(Set::Region) { needs.regions as usize } else { 0 };
        let regions = regions.iter().take(most).map(|&region| (region, length(&mut lengths, data)));
        return Ok(Drawn::Image(regions.collect()));
    }
    let common = choices.caption && key.draws(Use::CommonPair).unit() < data.common_pair;
    if common || (regions.is_empty() && choices.caption) {
        return Ok(Drawn::Whole);
    }
    if regions.is_empty() {
        return Err(SampleError::NoRegion);
    }
    let region = regions[key.draws(Use::Region).below(regions.len() as u64) as usize];
    Ok(Drawn::Region(region, length(&mut lengths, data)))
}

fn length(draws: &mut Draws, data: &DataSpec) -> TextLength {
    match data.text {
        TextChoice::Short => TextLength::Short,
        TextChoice::Long => TextLength::Long,
        TextChoice::Mixed if draws.unit() < data.long_probability => TextLength::Long,
        TextChoice::Mixed => TextLength::Short,
    }
}
