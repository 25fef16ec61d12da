//! One row as evaluation sees it: the image decoded and fitted once, and every asked region's mask and box beside it.

use super::render::{checked_box, decoded, planar, region_mask};
use super::{SampleConfig, SampleError};
use crate::pixels::{Mask, fit};
use crate::row::ImageRow;

/// An image and some of its regions. `S` is [`SampleConfig::size`].
#[derive(Debug, Clone, PartialEq)]
pub struct Views {
    /// `[3, S, S]`.
    pub pixels: Vec<u8>,
    /// In the order asked for.
    pub regions: Vec<RegionView>,
}

/// One region, shown by its mask and by its box.
#[derive(Debug, Clone, PartialEq)]
pub struct RegionView {
    /// `[1, S, S]`: the region's mask (its box where it has none), 255 inside.
    pub mask: Vec<u8>,
    /// `[1, S, S]`: its box, filled.
    pub filled_box: Vec<u8>,
    /// x1, y1, x2, y2 in 0..1 of the fitted square.
    pub box_xyxy: [f32; 4],
}

/// The image of `row` and its `regions`, without augmentation.
///
/// # Errors
/// An image that does not decode or has another size than the row says; a region that is not there, a bad box or
/// mask.
pub fn views(row: &ImageRow, regions: &[u32], config: &SampleConfig) -> Result<Views, SampleError> {
    let image = decoded(row)?;
    let fitted = |mask: &Mask| fit::fit(mask, config.data.fit, config.size).data;
    let view = |&index: &u32| {
        let found = row.regions.len();
        let region = row.regions.get(index as usize).ok_or(SampleError::RegionIndex { wanted: index, found })?;
        let bbox = checked_box(region, index)?;
        Ok(RegionView {
            mask: fitted(&region_mask(region, index, &image)?),
            filled_box: fitted(&Mask::from_box(image.width, image.height, bbox)),
            box_xyxy: fit::fit_box(bbox, config.data.fit, image.width, image.height),
        })
    };
    let regions = regions.iter().map(view).collect::<Result<_, SampleError>>()?;
    Ok(Views { pixels: planar(&fit::fit(&image, config.data.fit, config.size)), regions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::rle::Rle;
    use crate::row::{ImageSource, Region};
    use crate::sample::{SampleKey, TextSource, make_sample};
    use pixfleet_cluster::spec::{DataSpec, LossPreset, LossSpec, Needs};

    fn row() -> ImageRow {
        let (width, height) = (40, 30);
        let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 90]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encodes");
        let mut mask = Mask::filled(width, height, 0);
        for y in 5..20 {
            mask.data[y * 40 + 10..y * 40 + 10 + y].fill(255);
        }
        let with_mask = Region { bbox: [0.25, 0.1, 0.8, 0.7], mask: Some(Rle::encode(&mask)), ..Region::default() };
        let without = Region { bbox: [0.1, 0.2, 0.5, 0.9], ..Region::default() };
        let image = ImageSource { bytes: Some(bytes.into_inner().into()), ..ImageSource::default() };
        let regions = vec![with_mask, without];
        ImageRow { image_id: "x".into(), image, width, height, regions, ..ImageRow::default() }
    }

    #[test]
    fn views_are_the_training_samples_of_each_region() {
        let data = DataSpec { common_pair: 0.0, ..DataSpec::default() };
        let needs = Needs::of(&LossSpec::preset(LossPreset::Alphaclip), &data);
        let config = SampleConfig { data, size: 24, needs, texts: TextSource::None };
        let seen = views(&row(), &[1, 0], &config).expect("a good row");
        for (view, index) in seen.regions.iter().zip([1, 0]) {
            let mut one = row();
            one.regions = vec![one.regions.swap_remove(index)];
            let sample = |row: &ImageRow| {
                make_sample(row, SampleKey { seed: 0, epoch: 0, row_number: 0 }, &config).expect("a good row")
            };
            assert_eq!((&seen.pixels, &view.mask), (&sample(&one).pixels, &sample(&one).mask));
            assert_eq!(view.box_xyxy, sample(&one).regions[0].box_xyxy);
            one.regions[0].mask = None;
            assert_eq!(view.filled_box, sample(&one).mask, "a region without a mask is its box");
        }
        assert_ne!(seen.regions[1].mask, seen.regions[1].filled_box);
        assert!(matches!(views(&row(), &[2], &config), Err(SampleError::RegionIndex { wanted: 2, found: 2 })));
    }
}
