//! What of a row is trained on: drawn by counter-based chance, a pure function of (seed, epoch, row number). No pixel and
//! no text is looked at here.

use super::{SampleConfig, SampleError, SampleKey};
use crate::row::ImageRow;
use pixfleet_cluster::rng::{Draws, Use};
use pixfleet_cluster::spec::TextChoice;
use pixfleet_cluster::spec::terms::Set;

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

/// Draws. `has_caption`: the image has a caption that a whole-image pair can use.
///
/// # Errors
/// [`SampleError::NoRegion`] where a region must be drawn and there is none.
pub(super) fn draw(
    row: &ImageRow,
    has_caption: bool,
    key: SampleKey,
    config: &SampleConfig,
) -> Result<Drawn, SampleError> {
    let choices: Vec<u32> =
        (0u32..).zip(&row.regions).filter(|(_, r)| r.check_ok != Some(false)).map(|(i, _)| i).collect();
    let mut lengths = key.draws(Use::Caption);
    if !config.needs.draws_region() {
        let most = if config.needs.has(Set::Region) { config.needs.regions as usize } else { 0 };
        let regions = choices.into_iter().take(most).map(|region| (region, length(&mut lengths, config)));
        return Ok(Drawn::Image(regions.collect()));
    }
    let common = has_caption && key.draws(Use::CommonPair).unit() < config.data.common_pair;
    if common || (choices.is_empty() && has_caption) {
        return Ok(Drawn::Whole);
    }
    if choices.is_empty() {
        return Err(SampleError::NoRegion);
    }
    let region = choices[key.draws(Use::Region).below(choices.len() as u64) as usize];
    Ok(Drawn::Region(region, length(&mut lengths, config)))
}

fn length(draws: &mut Draws, config: &SampleConfig) -> TextLength {
    match config.data.text {
        TextChoice::Short => TextLength::Short,
        TextChoice::Long => TextLength::Long,
        TextChoice::Mixed if draws.unit() < config.data.long_probability => TextLength::Long,
        TextChoice::Mixed => TextLength::Short,
    }
}
