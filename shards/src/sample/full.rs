//! One row with all that it holds, as evaluation sees it: nothing is drawn, and a text that is not there is no fault.

use super::draw::TextLength;
use super::texts::Texts;
use super::{Sample, SampleConfig, SampleError, SampleRegion, assembled, render};
use crate::pixels::fit;
use crate::row::{ImageRow, Region};
use pixfleet_cluster::spec::terms::Set;

/// The image of `row` with the captions that it has, and every region that passed its check, each with its short expression
/// (the long one where there is no other) and its choice among hard negatives. Pixels, boxes and ids are those of the
/// training sample; sets that `config` does not need stay empty.
///
/// # Errors
/// The first thing that is wrong with the row, by column: as in training, but for texts that are missing.
pub fn full_sample(row: &ImageRow, config: &SampleConfig) -> Result<Sample, SampleError> {
    let mut texts = Texts::new(config);
    let wanted = |set, there: bool| there && config.needs.has(set);
    let long_text = if wanted(Set::LongText, row.caption_long.is_some()) { texts.long_caption(row)? } else { None };
    let short_text = if wanted(Set::ShortText, row.caption_short.is_some()) { texts.short_caption(row)? } else { None };
    let image = render::decoded(row)?;
    let mut regions = Vec::new();
    for (index, region) in (0u32..).zip(&row.regions).filter(|(_, r)| r.check_ok != Some(false)) {
        let bbox = render::checked_box(region, index)?;
        let named = wanted(Set::RegionText, has_expression(region));
        let text = named.then(|| texts.expression(region, index, TextLength::Short)).transpose()?;
        let choice = if wanted(Set::HardText, true) { texts.choice(region, index)? } else { Vec::new() };
        let box_xyxy = fit::fit_box(bbox, config.data.fit, image.width, image.height);
        regions.push(SampleRegion { region: Some(index), box_xyxy, text, choice });
    }
    let planes = render::image_planes(&image, config);
    Ok(Sample { long_text, short_text, ..assembled(planes, regions, texts) })
}

fn has_expression(region: &Region) -> bool {
    region.short_expr.is_some() || region.long_expr.is_some()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{captions, described, key};
    use super::super::{Text, make_sample};
    use super::*;

    #[test]
    fn it_is_the_training_sample_with_every_region_and_its_short_text() {
        let mut config = captions();
        config.data.text = pixfleet_cluster::spec::TextChoice::Short;
        let row = described();
        assert_eq!(full_sample(&row, &config).expect("good"), make_sample(&row, key(0), &config).expect("good"));
        config.needs.regions = 1;
        let all = full_sample(&row, &config).expect("good").regions;
        assert_eq!(all.iter().map(|r| r.region).collect::<Vec<_>>(), [Some(0), Some(1)]);
    }

    #[test]
    fn texts_that_are_not_there_are_no_fault_and_bad_ones_are() {
        let mut row = described();
        (row.caption_long, row.caption_short) = (None, None);
        (row.regions[1].short_expr, row.regions[1].long_expr) = (None, Some("the long one".into()));
        let sample = full_sample(&row, &captions()).expect("good");
        assert_eq!((sample.long_text, sample.short_text), (None, None));
        assert!(matches!(&sample.regions[1].text, Some(Text::Tokens(_))), "the long expression stands in");
        row.regions[1].long_expr = None;
        let bare = full_sample(&row, &captions()).expect("good").regions.remove(1);
        assert_eq!((bare.text, bare.choice.len()), (None, 0), "a box with a category alone can be classified");
        row.regions[0].check_ok = Some(false);
        assert_eq!(full_sample(&row, &captions()).expect("good").regions.len(), 1, "as in training");
        row.regions[1].hard_negs = vec!["a kite".into()];
        assert!(full_sample(&row, &captions()).expect_err("no positive").to_string().contains("regions[1].hard_negs"));
    }
}
