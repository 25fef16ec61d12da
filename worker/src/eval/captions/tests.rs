use super::classes::BoxScore;
use super::features::{ImagePlace, RegionPlace, SplitFeatures, Vectors};
use super::hard::Choice;
use super::measure::Measures;
use super::table;
use pixfleet_cluster::spec::terms::{HARD_TEXTS, Set};
use pixfleet_model::{BySet, Features, Items, Slots};
use pixfleet_shards::HardNegKind;
use serde_json::{Map, Value};
use tch::Tensor;

fn vectors(angles: &[f32], owners: &[usize]) -> Vectors {
    Vectors { values: angles.iter().flat_map(|a| [a.cos(), a.sin()]).collect(), owners: owners.to_vec() }
}

fn place(image: usize, index: u32, choice: Option<Choice>) -> RegionPlace {
    RegionPlace { image, index, category: None, choice }
}

fn choice(best: usize) -> Choice {
    let sims = (0..11).map(|i| if i == best { 0.9 } else { 0.1 - 0.001 * i as f32 }).collect();
    Choice { sims, kinds: [[HardNegKind::Colour; 5], [HardNegKind::Count; 5]].concat() }
}

/// Three images: the first has two regions, the second one, the third none; the third has no long caption. The second's
/// short caption is nearer to the first image, the last region has no expression.
fn split() -> SplitFeatures {
    let image = |n: u32| ImagePlace { image_id: n.to_string(), at: (0, n) };
    SplitFeatures {
        images: (0..3).map(image).collect(),
        regions: vec![place(0, 0, Some(choice(0))), place(0, 1, Some(choice(7))), place(1, 0, None)],
        image: vectors(&[0.0, 1.0, 2.0], &[0, 1, 2]),
        long: vectors(&[0.1, 1.1], &[0, 1]),
        short: vectors(&[0.1, 0.4, 2.1], &[0, 1, 2]),
        region: vectors(&[0.5, 1.5, 2.5], &[0, 0, 1]),
        region_text: vectors(&[0.6, 0.9], &[0, 1]),
        ..SplitFeatures::default()
    }
}

fn measured(split: &SplitFeatures) -> Measures {
    let boxes = BoxScore { templates: "80".into(), boxes: 3, classes: 20, top1: 0.25, top5: 0.5 };
    let plain = BoxScore { templates: "plain".into(), ..boxes.clone() };
    Measures::of(split, &[plain, boxes]).expect("measured")
}

fn json(measures: &Measures) -> Map<String, Value> {
    let mut keys = Map::new();
    measures.keys(&mut keys);
    keys
}

#[test]
fn captions_find_their_images_and_images_their_captions() {
    let keys = json(&measured(&split()));
    let at = |key: &str| keys[key].as_f64().unwrap_or_else(|| panic!("{key}: {keys:?}"));
    assert_eq!((at("long_text_to_image_r1"), at("long_image_to_text_r1"), at("long_captions")), (1.0, 1.0, 2.0));
    // An image without a long caption is no answer to one.
    assert_eq!((at("chance_r1"), at("chance_r10"), at("short_chance_r1")), (0.5, 1.0, 0.333_333));
    assert_eq!((at("short_text_to_image_r1"), at("short_text_to_image_r5")), (0.666_667, 1.0));
    assert_eq!(at("short_image_to_text_r1"), 1.0);
}

#[test]
fn expressions_choose_among_all_regions_and_within_their_image() {
    let keys = json(&measured(&split()));
    let at = |key: &str| keys[key].as_f64().unwrap_or_else(|| panic!("{key}: {keys:?}"));
    // The second expression lies nearer to the first region; the third region has none and is no answer.
    assert_eq!((at("text_to_region_r1"), at("region_to_text_r1"), at("chance_region_r1")), (0.5, 1.0, 0.5));
    assert_eq!((at("in_image_region"), at("chance_in_image"), at("region_texts")), (0.5, 0.5, 2.0));
}

#[test]
fn the_choice_of_eleven_is_told_in_total_and_by_kind() {
    let keys = json(&measured(&split()));
    let at = |key: &str| keys[key].as_f64().unwrap_or_else(|| panic!("{key}: {keys:?}"));
    assert_eq!((at("hard_choice"), at("chance_hard"), at("hard_regions")), (0.5, 0.090_909, 2.0));
    // The seventh text is the second one that changes a count.
    assert_eq!((at("hard_choice_colour"), at("hard_choice_count")), (1.0, 0.5));
    assert_eq!((at("chance_hard_count"), at("hard_regions_count")), (0.166_667, 2.0));
    assert_eq!((at("box_top1_plain"), at("box_top5_80"), at("chance_box_top5")), (0.25, 0.5, 0.25));
    assert_eq!((at("test_images"), at("test_regions"), at("boxes"), at("box_classes")), (3.0, 3.0, 3.0, 20.0));
}

#[test]
fn what_a_split_lacks_is_left_out() {
    let mut bare = split();
    bare.regions.iter_mut().for_each(|r| r.choice = None);
    (bare.long, bare.region_text) = (Vectors::default(), Vectors::default());
    let measures = Measures::of(&bare, &[]).expect("measured");
    let keys = json(&measures);
    assert_eq!(
        (&keys["hard_regions"], &keys["long_captions"], &keys["region_texts"]),
        (&0.into(), &0.into(), &0.into())
    );
    for absent in ["hard_choice", "long_text_to_image_r1", "text_to_region_r1", "in_image_region", "box_top1_80"] {
        assert!(!keys.contains_key(absent), "{absent}");
    }
    assert!(measures.get("short_text_to_image_r1").is_some());
}

#[test]
fn one_image_alone_is_always_found_and_offers_no_choice_of_one_region() {
    let one = SplitFeatures {
        images: vec![ImagePlace { image_id: "a".into(), at: (0, 0) }],
        regions: vec![place(0, 0, None)],
        image: vectors(&[0.0], &[0]),
        long: vectors(&[3.0], &[0]),
        region: vectors(&[0.0], &[0]),
        region_text: vectors(&[3.0], &[0]),
        ..SplitFeatures::default()
    };
    let measures = Measures::of(&one, &[]).expect("measured");
    let found = measures.get("long_text_to_image_r1").expect("a caption");
    assert_eq!((found.value, found.chance.1), (1.0, 1.0));
    assert!(measures.get("in_image_region").is_none());
}

#[test]
fn features_land_at_their_images_and_regions() {
    let rows = |angles: &[f32]| Tensor::from_slice(&vectors(angles, &[]).values).reshape([-1, 2]);
    let items = |angles: &[f32], slots| Items { features: rows(angles), slots };
    let slots = |per_row, valid: Vec<i64>| Slots::of(2, per_row, valid).expect("slots");
    // Row 0 has regions 0 and 1, row 1 has one; the second and the third have negatives.
    let hard: Vec<f32> = (0..2 * HARD_TEXTS).map(|i| i as f32 * 0.1).collect();
    let sets = BySet::default()
        .with(Set::Image, items(&[0.0, 1.0], Slots::all(2, 1)))
        .with(Set::LongText, items(&[1.1], slots(1, vec![1])))
        .with(Set::ShortText, items(&[0.2, 1.2], Slots::all(2, 1)))
        .with(Set::Region, items(&[0.5, 1.5, 2.5], slots(2, vec![0, 1, 2])))
        .with(Set::RegionText, items(&[0.6, 2.6], slots(2, vec![0, 2])))
        .with(Set::HardText, items(&hard, slots(2, vec![1, 2])));
    let empty = || Some(Choice { sims: Vec::new(), kinds: Vec::new() });
    let mut split = SplitFeatures {
        regions: vec![place(0, 0, None), place(1, 0, None), place(1, 1, empty()), place(2, 0, empty())],
        ..SplitFeatures::default()
    };
    split.append(&Features { rows: 2, sets }, (1, 1)).expect("appended");
    assert_eq!((&split.image.owners, &split.long.owners), (&vec![1, 2], &vec![2]));
    assert_eq!((&split.region.owners, &split.region_text.owners), (&vec![1, 1, 2], &vec![1, 3]));
    let sims = |region: usize| &split.regions[region].choice.as_ref().expect("a choice").sims;
    for (region, angle, first) in [(2, 1.5f32, 0), (3, 2.5, 11)] {
        assert_eq!(sims(region).len(), 11);
        for (k, sim) in sims(region).iter().enumerate() {
            assert!((sim - (angle - hard[first + k]).cos()).abs() < 1e-5, "region {region}, text {k}: {sim}");
        }
    }
}

#[test]
fn the_table_has_a_column_for_each_run_and_one_for_chance() {
    let two = [("stage1".to_owned(), measured(&split())), ("stage2".to_owned(), measured(&split()))];
    let text = table::table(&two);
    let row = text.lines().find(|line| line.contains("of eleven")).expect("a row");
    assert_eq!((row.matches("50.0 %").count(), row.matches("9.1 %").count()), (2, 1), "{row}");
    assert!(text.contains("stage1") && text.contains("against another count"), "{text}");
}

#[test]
fn encoding_gives_each_region_its_own_vector_and_the_texts_that_it_has() {
    let vectors = |owners: &[usize], of: f32| Vectors {
        values: (0..owners.len()).flat_map(|i| [of + i as f32, -of]).collect(),
        owners: owners.to_vec(),
    };
    let image = |id: &str| ImagePlace { image_id: id.into(), at: (0, 0) };
    // The second of three images has no region; only the last has a long caption, only its second region an expression.
    let split = SplitFeatures {
        images: vec![image("a"), image("b"), image("c")],
        regions: vec![place(0, 1, None), place(2, 0, None), place(2, 3, None)],
        image: vectors(&[0, 1, 2], 10.0),
        long: vectors(&[2], 20.0),
        region: vectors(&[0, 2, 2], 30.0),
        region_text: vectors(&[2], 40.0),
        ..SplitFeatures::default()
    };
    let images = split.by_image();
    let numbers: Vec<Vec<u32>> = images.iter().map(|i| i.regions.iter().map(|r| r.index).collect()).collect();
    assert_eq!(numbers, [vec![1], vec![], vec![0, 3]]);
    assert_eq!((images[2].image_id.as_str(), &images[2].full), ("c", &vec![12.0, -10.0]));
    let [first, last] = &images[2].regions[..] else { panic!("two regions") };
    assert_eq!((&first.mask, &last.mask), (&vec![31.0, -30.0], &vec![32.0, -30.0]));
    assert!(first.short.is_none() && images[0].regions[0].long.is_none());
    assert_eq!(last.short.as_ref().map(|t| &t.embedding), Some(&vec![40.0, -40.0]));
    assert_eq!(first.long.as_ref().map(|t| &t.embedding), Some(&vec![20.0, -20.0]));
}
