//! Scenes and captions from a handful of drawings made here, so that the tests need no packages.

use super::*;
use crate::pixels::decode;
use std::collections::HashSet;

/// Two styles of every drawing that the crate `emojis` offers for some names, as coloured shapes.
fn drawings() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (style, shape) in [
        ("openmoji", r##"<path d="M4 4h28L18 32z" stroke="#000" stroke-width="2" fill="{}"/>"##),
        ("twemoji", r#"<rect x="3" y="8" width="30" height="20" fill="{}"/>"#),
    ] {
        let folder = dir.path().join(style);
        std::fs::create_dir(&folder).expect("a folder");
        for (i, emoji) in emojis::iter().enumerate() {
            let fill = format!("#{:06x}", pixfleet_cluster::rng::mix(i as u64) & 0xff_ffff);
            let shape = shape.replace("{}", &fill);
            let svg = format!(r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 36 36">{shape}</svg>"#);
            let codes: Vec<String> = emoji.as_str().chars().map(|c| format!("{:X}", u32::from(c))).collect();
            std::fs::write(folder.join(codes.join("-") + ".svg"), svg).expect("written");
        }
    }
    dir
}

pub(super) fn setup() -> (tempfile::TempDir, Catalogue, MiniConfig) {
    let dir = drawings();
    let config = MiniConfig { drawings: dir.path().to_path_buf(), concepts: 96, size: 128, ..MiniConfig::default() };
    let catalogue = Catalogue::load(&config.drawings, &config.styles, config.concepts).expect("drawings");
    (dir, catalogue, config)
}

#[test]
fn a_row_depends_on_its_number_alone_and_keeps_the_rules() {
    let (_dir, catalogue, config) = setup();
    let mut words = Vec::new();
    for i in 0..60 {
        let made = row(&catalogue, &config, Split::Train, i).expect("composes");
        assert_eq!(made, row(&catalogue, &config, Split::Train, i).expect("composes"));
        assert!(made.faults().is_empty(), "{:?}", made.faults());
        assert!(!made.regions.is_empty() && made.regions.len() <= 5);
        let image = decode::rgb(made.image.bytes.as_ref().expect("bytes")).expect("a JPEG");
        assert_eq!((image.width, image.height), (128, 128));
        for region in &made.regions {
            let rle = region.mask.as_ref().expect("a mask");
            let tight = rle.bbox().expect("not empty").map(|v| v as f32 / 128.0);
            assert_eq!(tight, region.bbox);
            assert!(rle.area() as f32 >= 0.004 * 128.0 * 128.0);
            assert_eq!(region.hard_negs.len(), region.hard_neg_kinds.len());
            let texts = [&region.caption_object, &region.caption_context, &region.caption_merged];
            for text in texts.into_iter().flatten().chain(&region.hard_negs) {
                assert!(!text.contains(['{', '}']) && !text.contains("  ") && text.trim() == text, "{text}");
            }
            assert!(!region.hard_negs.contains(region.caption_object.as_ref().expect("a caption")));
            words.push(region.caption_merged.as_ref().expect("a caption").split(' ').count());
        }
    }
    words.sort_unstable();
    assert!(words[words.len() / 20] < 25 && words[words.len() * 19 / 20] > 100, "{words:?}");
    let other = MiniConfig { seed: 1, ..config.clone() };
    assert_ne!(
        row(&catalogue, &config, Split::Train, 0).expect("row"),
        row(&catalogue, &other, Split::Train, 0).expect("row")
    );
}

#[test]
fn captions_of_a_seed_stay_what_they_were() {
    let (_dir, catalogue, config) = setup();
    let mut hash = blake3::Hasher::new();
    for i in 0..40 {
        let made = row(&catalogue, &config, Split::Train, i).expect("composes");
        hash.update(made.image_text().expect("a caption").as_bytes());
        for region in &made.regions {
            for text in [&region.caption_object, &region.caption_context, &region.caption_merged] {
                hash.update(text.as_ref().expect("a caption").as_bytes());
            }
        }
    }
    // Of the version that had no expressions yet: PixCLIP's texts are the same since.
    assert_eq!(&hash.finalize().to_hex()[..32], "d17ecc7a8e52090d98b96b718a2c1b97");
}

#[test]
fn held_out_drawings_stay_in_their_splits() {
    let (_dir, catalogue, config) = setup();
    let shown = |split| -> HashSet<(usize, usize)> {
        (0..150).flat_map(|i| compose(&catalogue, &config, split, i).objects).map(|o| (o.concept, o.look)).collect()
    };
    let [train, test, pairs, concepts] = Split::ALL.map(shown);
    assert!(!pairs.is_empty() && !concepts.is_empty());
    assert!(train.is_disjoint(&pairs) && test.is_disjoint(&pairs) && pairs.is_disjoint(&concepts));
    let names = |set: &HashSet<(usize, usize)>| set.iter().map(|p| p.0).collect::<HashSet<_>>();
    assert!(names(&train).is_disjoint(&names(&concepts)) && names(&test).is_disjoint(&names(&concepts)));
    assert!(names(&pairs).is_subset(&(0..catalogue.concepts.len()).collect()));
    assert!(
        pairs.iter().all(|&(c, l)| catalogue.concepts[c].looks.iter().enumerate().any(|(i, o)| i != l && !o.held_out))
    );
}

#[test]
fn masks_are_what_is_visible() {
    let (_dir, catalogue, config) = setup();
    for i in 0..40 {
        let scene = compose(&catalogue, &config, Split::Train, i);
        let mut seen = vec![0u8; 128 * 128];
        for object in &scene.objects {
            seen.iter_mut().zip(&object.mask.data).for_each(|(s, m)| *s += m >> 7);
            assert_eq!(object.whole - object.visible, object.hidden_by.iter().sum::<u32>());
        }
        assert!(seen.iter().all(|&s| s <= 1), "two objects share a pixel");
    }
}

#[test]
fn a_larger_limit_keeps_the_smaller_one_s_concepts() {
    let dir = drawings();
    let names = |limit| -> HashSet<String> {
        let styles = MiniConfig::default().styles;
        let catalogue = Catalogue::load(dir.path(), &styles, limit).expect("drawings");
        catalogue.concepts.into_iter().map(|c| c.name).collect()
    };
    let (few, many) = (names(40), names(80));
    assert_eq!((few.len(), many.len()), (40, 80));
    assert!(few.is_subset(&many));
}

#[test]
fn missing_drawings_and_bad_options_say_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let styles = MiniConfig::default().styles;
    let error = Catalogue::load(dir.path(), &styles, 9).expect_err("no drawings").to_string();
    assert!(error.contains("openmoji") && error.contains("fetch them with scripts/fetch-drawings.sh"), "{error}");
    let error = Catalogue::load(dir.path(), &["oil".to_string()], 9).expect_err("no style").to_string();
    assert_eq!(error, "no style `oil`; known are openmoji, twemoji, noto, fluent-3d, fluent-flat");
    let error = MiniConfig { size: 9, ..MiniConfig::default() }.check().expect_err("too small").to_string();
    assert_eq!(error, "size: 9 lies outside 64..=1024");
}

#[tokio::test]
async fn all_splits_are_written_and_indexed() {
    let (dir, _, config) = setup();
    let out = tempfile::tempdir().expect("a folder");
    let url = url::Url::from_directory_path(out.path()).expect("a path").to_string();
    let location = Location::parse(&url).expect("a URL");
    let config = MiniConfig { scenes: 40, test_scenes: Some(12), drawings: dir.path().to_path_buf(), ..config };
    let mut last = (0, 0);
    let summary = build(&config, &location, &mut |done, total| last = (done, total)).await.expect("builds");
    assert_eq!(last, (58, 58));
    let rows: Vec<(&str, u64)> = summary.splits.iter().map(|(s, w)| (s.name(), w.rows)).collect();
    assert_eq!(rows, [("train", 40), ("test", 12), ("heldout_pairs", 3), ("heldout_concepts", 3)]);
    let index = index::open(&location).await.expect("an index");
    assert_eq!(index.digest, summary.digest);
}
