use super::*;
use crate::pixels::rle::Rle;
use crate::pixels::{Mask, Rgb};
use crate::row::{ImageSource, Region};
use crate::tokens::{END, START, TextField, Tokenizer};
use pixfleet_cluster::spec::{LossPreset, LossSpec};
use std::collections::HashSet;

fn config() -> SampleConfig {
    let data = DataSpec { common_pair: 0.0, ..DataSpec::default() };
    let needs = Needs::of(&LossSpec::preset(LossPreset::Default), &data);
    SampleConfig { data, size: 16, needs, texts: TextSource::Vectors(4) }
}

/// FG-CLIP's second stage.
pub(super) fn captions() -> SampleConfig {
    let data = DataSpec { regions: 2, ..DataSpec::default() };
    let needs = Needs::of(&LossSpec::preset(LossPreset::Fgclip1Stage2), &data);
    SampleConfig { data, size: 16, needs, texts: TextSource::Tokens(Tokenizer::open("clip").expect("built in")) }
}

fn text_of(sample: &Sample) -> f32 {
    match &sample.regions[0].text {
        Some(Text::Vector(vector)) => vector[0],
        other => panic!("a vector: {other:?}"),
    }
}

fn sample(row: &ImageRow, number: u64) -> Sample {
    make_sample(row, key(number), &config()).expect("good")
}

/// 40 x 20, left half red, right half blue; two regions: the left half and a small box in the right one.
fn row() -> ImageRow {
    let mut image = Rgb::filled(40, 20, [0, 0, 255]);
    for (i, p) in image.data.chunks_exact_mut(3).enumerate() {
        if i % 40 < 20 {
            p.copy_from_slice(&[255, 0, 0]);
        }
    }
    let mut bytes = Vec::new();
    image::ImageEncoder::write_image(
        image::codecs::png::PngEncoder::new(&mut bytes),
        &image.data,
        40,
        20,
        image::ExtendedColorType::Rgb8,
    )
    .expect("encodes");
    let region = |bbox: [f32; 4], v: f32| Region {
        bbox,
        mask: Some(Rle::encode(&Mask::from_box(40, 20, bbox))),
        caption_object: Some("a thing".into()),
        caption_merged: Some("a thing at length".into()),
        short_vector: Some(vec![v; 4]),
        long_vector: Some(vec![v + 0.5; 4]),
        ..Region::default()
    };
    ImageRow {
        image: ImageSource { bytes: Some(bytes.into()), ..ImageSource::default() },
        width: 40,
        height: 20,
        image_vector: Some(vec![9.0; 4]),
        regions: vec![region([0.0, 0.0, 0.5, 1.0], 1.0), region([0.7, 0.4, 0.8, 0.6], 2.0)],
        ..ImageRow::default()
    }
}

pub(super) fn key(row_number: u64) -> SampleKey {
    SampleKey { seed: 7, epoch: 0, row_number }
}

fn refused(change: impl FnOnce(&mut ImageRow)) -> String {
    let mut row = row();
    row.regions.truncate(1);
    change(&mut row);
    make_sample(&row, key(0), &config()).expect_err("a bad row").to_string()
}

#[test]
fn draws_depend_on_the_row_alone_and_reach_every_region_and_caption() {
    let row = row();
    let texts: Vec<f32> = (0..64).map(|n| text_of(&sample(&row, n))).collect();
    let again: Vec<f32> = (0..64).map(|n| text_of(&sample(&row, n))).collect();
    assert_eq!(texts, again);
    let kinds: HashSet<u32> = texts.iter().map(|t| t.to_bits()).collect();
    assert_eq!(kinds, [1.0f32, 1.5, 2.0, 2.5].map(f32::to_bits).into());
}

#[test]
fn planes_are_fitted_and_the_box_lies_in_the_square() {
    let mut row = row();
    row.regions.truncate(1);
    let s = sample(&row, 0);
    assert_eq!((s.pixels.len(), s.mask.len(), s.crop_pixels.len(), s.crop_mask.len()), (768, 256, 768, 256));
    assert_eq!(s.regions[0].box_xyxy, [0.0, 0.25, 0.5, 0.75]);
    let at = |y: usize, x: usize| y * 16 + x;
    assert_eq!((s.pixels[at(8, 2)], s.pixels[at(0, 2)]), (255, 0), "padding is black");
    assert_eq!((s.mask[at(8, 2)], s.mask[at(8, 13)], s.mask_ones), (255, 0, None));
    // The crop of side 30 reaches 5 pixels above the image: the mean colour.
    assert!(s.crop_valid && s.crop_pixels[at(0, 8)] == MEAN_COLOUR[0]);
    assert_eq!(s.regions[0].region, Some(0));
}

#[test]
fn a_whole_image_has_ones_everywhere_and_no_crop() {
    let mut config = config();
    config.data.common_pair = 1.0;
    let s = make_sample(&row(), key(0), &config).expect("good");
    assert!(s.mask.iter().all(|&v| v == 255));
    assert_eq!(s.mask_ones, Some(config.data.full_mask_value as f32));
    assert_eq!((s.crop_valid, s.regions[0].region, text_of(&s)), (false, None, 9.0));
    assert_eq!(s.regions[0].box_xyxy, [0.0, 0.25, 1.0, 0.75]);
    let mut bare = row();
    bare.image_vector = None;
    assert!(
        make_sample(&bare, key(0), &config).expect("good").regions[0].region.is_some(),
        "no image caption, no whole image"
    );
}

#[test]
fn a_region_that_is_the_image_has_no_crop() {
    let mut row = row();
    row.regions.truncate(1);
    row.regions[0].bbox = [0.0, 0.0, 1.0, 1.0];
    assert!(!make_sample(&row, key(0), &config()).expect("good").crop_valid);
}

#[test]
fn without_crops_nothing_of_them_is_made() {
    let needs = Needs::of(&LossSpec::preset(LossPreset::Alphaclip), &DataSpec::default());
    let config = SampleConfig { needs, texts: TextSource::None, ..config() };
    let s = make_sample(&row(), key(0), &config).expect("good");
    assert!(s.crop_pixels.is_empty() && s.crop_mask.is_empty() && !s.crop_valid && s.regions[0].text.is_none());
}

#[test]
fn mask_augmentation_is_drawn_and_never_empties_a_mask() {
    let mut config = config();
    config.data.mask_dilate = 4;
    let areas: HashSet<usize> = (0..40)
        .map(|n| make_sample(&row(), key(n), &config).expect("good").mask.iter().filter(|&&v| v > 127).count())
        .collect();
    assert!(areas.len() > 4 && !areas.contains(&0), "{areas:?}");
}

#[test]
fn every_bad_value_is_named_by_its_column() {
    assert_eq!(refused(|r| r.image.bytes = None), "image.bytes: the row holds no image");
    assert_eq!(refused(|r| r.width = 41), "width, height: the row says 41 x 20, the image is 40 x 20");
    assert_eq!(
        refused(|r| r.regions[0].bbox[2] = 1.2),
        "regions[0].bbox: [0.0, 0.0, 1.2, 1.0] is no box x1 < x2, y1 < y2 within 0..1"
    );
    assert_eq!(
        refused(|r| r.regions[0].mask = Some(Rle { height: 20, width: 40, counts: vec![0, 900] })),
        "regions[0].mask_rle: the runs cover 900 pixels, the mask of 20 x 40 has 800"
    );
    assert_eq!(
        refused(|r| r.regions[0].mask = Some(Rle::encode(&Mask::filled(40, 20, 0)))),
        "regions[0].mask_rle: no pixel lies inside the mask"
    );
    assert_eq!(
        refused(|r| r.regions[0].mask = Some(Rle::encode(&Mask::filled(20, 40, 255)))),
        "regions[0].mask_size: 40 x 20 is not the shape of the image, 20 x 40"
    );
    let blank = |r: &mut ImageRow| {
        (r.regions[0].caption_object, r.regions[0].caption_merged) = (Some(" ".into()), Some(String::new()))
    };
    assert!(
        ["regions[0].caption_object: the caption is empty", "regions[0].caption_merged: the caption is empty"]
            .contains(&refused(blank).as_str())
    );
    let nan = |r: &mut ImageRow| {
        let bad = Some(vec![1.0, f32::NAN, 1.0, 1.0]);
        (r.regions[0].short_vector, r.regions[0].long_vector) = (bad.clone(), bad);
    };
    assert!(refused(nan).ends_with("[0]: number 1 of the text vector is NaN"));
    let none = |r: &mut ImageRow| (r.regions[0].short_vector, r.regions[0].long_vector) = (None, None);
    assert!(refused(none).ends_with("[0]: no text vector; run `pixfleet shards embed` on this split"));
    assert!(
        refused(|r| (r.regions[0].short_vector, r.regions[0].long_vector) = (Some(vec![]), Some(vec![])))
            .ends_with("[0]: the text vector has 0 numbers, expected 4")
    );
    assert_eq!(
        refused(|r| (r.regions[0].check_ok, r.image_vector) = (Some(false), None)),
        "regions: the row has no region that passed its check and no image caption's vector"
    );
}

/// The row with image captions, expressions and, for its first region, ten negatives.
pub(super) fn described() -> ImageRow {
    let mut row = row();
    row.caption_long = Some("red to the left and blue to the right".into());
    row.caption_short = Some("red and blue".into());
    for (i, region) in row.regions.iter_mut().enumerate() {
        region.short_expr = Some(format!("thing {i}"));
        region.long_expr = Some(format!("the thing of number {i}"));
    }
    row.regions[0].hard_negs = (0..10).map(|k| format!("no {k}")).collect();
    row
}

#[test]
fn an_image_comes_with_its_captions_regions_and_negatives() {
    let row = described();
    let ids = |text: &str, most| Tokenizer::open("clip").expect("built in").encode(text, most).expect("short").ids;
    let mut lengths = HashSet::new();
    for number in 0..32 {
        let s = make_sample(&row, key(number), &captions()).expect("good");
        assert_eq!((s.pixels.len(), s.mask.len(), s.crop_pixels.len()), (768, 0, 0));
        assert_eq!(s.long_text, Some(Text::Tokens(ids("red to the left and blue to the right", 248))));
        assert_eq!(s.short_text, Some(Text::Tokens(ids("a photo of red and blue", 77))));
        assert_eq!(s.regions.iter().map(|r| r.region).collect::<Vec<_>>(), [Some(0), Some(1)]);
        assert_eq!(s.regions.iter().map(|r| r.choice.len()).collect::<Vec<_>>(), [11, 0], "no negatives is normal");
        assert_eq!(s.regions[0].choice[0], Text::Tokens(ids("thing 0", 77)), "the true one comes first");
        let short = Some(Text::Tokens(ids("thing 1", 77)));
        assert!(
            s.regions[1].text == short || s.regions[1].text == Some(Text::Tokens(ids("the thing of number 1", 77)))
        );
        lengths.insert((s.regions[0].text == Some(Text::Tokens(ids("thing 0", 77))), s.regions[1].text == short));
    }
    assert_eq!(lengths.len(), 4, "each region draws its own text");
    let mut bare = described();
    bare.regions.clear();
    assert!(make_sample(&bare, key(0), &captions()).expect("no region is normal").regions.is_empty());
    let mut config = captions();
    config.data.regions = 1;
    config.needs = Needs::of(&LossSpec::preset(LossPreset::Fgclip1Stage2), &config.data);
    assert_eq!(make_sample(&row, key(0), &config).expect("good").regions.len(), 1, "the first ones");
}

#[test]
fn a_caption_beyond_the_positions_is_cut_and_counted() {
    let mut row = described();
    row.caption_long = Some("word ".repeat(400));
    let s = make_sample(&row, key(0), &captions()).expect("good");
    let Some(Text::Tokens(ids)) = &s.long_text else { panic!("tokens") };
    assert_eq!((ids.len(), ids[0], ids[247]), (248, START, END));
    assert_eq!(s.cuts.of(TextField::CaptionLong), (1, 1));
    assert_eq!(s.cuts.to_string(), "1 of 1 long captions were cut at 248 tokens");
}

#[test]
fn what_is_wrong_with_texts_is_named() {
    let refused = |change: &dyn Fn(&mut ImageRow)| {
        let mut row = described();
        change(&mut row);
        make_sample(&row, key(0), &captions()).expect_err("a bad row").to_string()
    };
    assert_eq!(
        refused(&|r| r.caption_long = None),
        "caption_long: the image has no such caption, which `loss.global = \"captions\"` trains on"
    );
    assert_eq!(
        refused(&|r| (r.regions[1].short_expr, r.regions[1].long_expr) = (None, None)),
        "regions[1].short_expr, long_expr: the region has no text; give it an expression, or leave the region out"
    );
    assert_eq!(
        refused(&|r| r.regions[0].short_expr = None),
        "regions[0].hard_negs: 10 negatives and no short_expr, the true text that they are negatives of"
    );
    assert_eq!(
        refused(&|r| r.regions[0].hard_negs.truncate(3)),
        "regions[0].hard_negs: 3 negatives; expected 10, or none"
    );
}

#[test]
fn a_batch_keeps_the_order_and_refuses_mixed_sizes() {
    use crate::batch::{BatchError, BatchTexts, assemble};
    use pixfleet_cluster::SampleId;
    let id = |row| SampleId { epoch: 0, row_group: 0, row };
    let make = |n, size| make_sample(&row(), key(n), &SampleConfig { size, ..config() }).expect("good");
    let items = [(id(3), make(3, 16)), (id(1), make(1, 16))];
    let batch = assemble(&items, &config().needs, Vec::new()).expect("alike");
    assert_eq!((batch.n, batch.size, batch.pixels.len()), (2, 16, 2 * 768));
    assert!(matches!(&batch.texts[&Set::RegionText], BatchTexts::Vectors { width: 4, values } if values.len() == 8));
    assert_eq!((batch.samples[0].row, &batch.mask[256..]), (3, items[1].1.mask.as_slice()));
    let mixed = [(id(3), make(3, 16)), (id(1), make(1, 8))];
    let error = assemble(&mixed, &config().needs, Vec::new()).expect_err("two sizes");
    assert!(matches!(error, BatchError::Length { index: 1, plane: "pixels", .. }));
    assert_eq!(assemble(&[], &config().needs, Vec::new()).expect("empty").n, 0);
}

#[test]
fn items_stand_in_the_slots_of_their_rows() {
    use crate::batch::{BatchTexts, assemble};
    use pixfleet_cluster::SampleId;
    let id = SampleId { epoch: 0, row_group: 0, row: 0 };
    let mut none = described();
    none.regions.clear();
    let mut second = described();
    second.regions.remove(0);
    let of = |row: &ImageRow| (id, make_sample(row, key(0), &captions()).expect("good"));
    let batch = assemble(&[of(&described()), of(&none), of(&second)], &captions().needs, Vec::new()).expect("alike");
    assert_eq!((&batch.slots[&Set::Region], &batch.slots[&Set::RegionText]), (&vec![0, 1, 4], &vec![0, 1, 4]));
    assert_eq!((&batch.slots[&Set::HardText], &batch.slots[&Set::LongText]), (&vec![0], &vec![0, 1, 2]));
    assert_eq!((batch.boxes.len(), batch.slots.get(&Set::Crop)), (3, None));
    let count = |set| match &batch.texts[&set] {
        BatchTexts::Tokens(all) => all.len(),
        BatchTexts::Vectors { .. } => panic!("tokens"),
    };
    assert_eq!((count(Set::RegionText), count(Set::HardText), count(Set::ShortText)), (3, 11, 3));
    let empty = assemble(&[of(&none)], &captions().needs, Vec::new()).expect("alike");
    assert!(matches!(&empty.texts[&Set::HardText], BatchTexts::Tokens(all) if all.is_empty()));
}
