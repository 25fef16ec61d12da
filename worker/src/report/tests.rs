use super::gallery::{Panel, Query, Region, choose, draw};
use super::plots::{Plot, Series, color};
use super::*;
use crate::eval::retrieve::{AnswerRank, Recall};
use crate::eval::scores::Scores;
use image::{Rgb, RgbImage};

fn recall(r: f64) -> Recall {
    Recall { r1: r / 4.0, r5: r / 2.0, r10: r, median_rank: 12.0 }
}

fn scores(r: f64, in_image: f64) -> Scores {
    Scores { text_to_region: recall(r), region_to_text: recall(r * 0.9), in_image }
}

fn evaluated(text: TextKind) -> Evaluated {
    Evaluated {
        text,
        regions: 1416,
        images: 410,
        chance: Recall::chance(1416),
        chance_in_image: 0.289,
        mask: scores(0.24, 0.78),
        boxed: scores(0.19, 0.66),
        full: scores(0.03, 0.289),
    }
}

fn picture(i: u32) -> (RgbImage, Vec<bool>, [f32; 4]) {
    let (w, h) = (120, 90);
    let image = RgbImage::from_fn(w, h, |x, y| Rgb([(x * 2) as u8, (y * 2) as u8, (40 * i) as u8]));
    let (cx, cy, r) = (40.0 + 8.0 * i as f32, 45.0, 22.0);
    let inside = |x: u32, y: u32| (x as f32 - cx).powi(2) + (y as f32 - cy).powi(2) < r * r;
    let mask = (0..h).flat_map(|y| (0..w).map(move |x| inside(x, y))).collect();
    let (w, h) = (w as f32, h as f32);
    (image, mask, [(cx - r) / w, (cy - r) / h, (cx + r) / w, (cy + r) / h])
}

fn panel(i: u32, right: bool) -> Panel {
    let (image, mask, bbox) = picture(i);
    let uri = draw(&image, &Region { mask: &mask, bbox, right }).expect("a picture");
    Panel { uri, caption: format!("a round patch <{i}>"), similarity: 0.5 - 0.05 * i as f32, right }
}

fn report() -> EvalReport {
    let line = |from: f64| (0..200).map(|i| (f64::from(i), from * (-f64::from(i) / 80.0).exp() + 0.4)).collect();
    let names = ["total", "crop", "crop_cosine", "global", "local", "local_text", "of_another_system", "one_more"];
    let named =
        |(i, name): (usize, &str)| Series { name: name.into(), color: color(i), points: line(9.0 / (i + 1) as f64) };
    let series = names.into_iter().enumerate().map(named);
    let query = |rank: f64| Query {
        text: "the red kite, left of the \"boat\" & behind it".into(),
        rank,
        wanted: panel(0, true),
        found: (0..5).map(|i| panel(i, i == 1)).collect(),
    };
    EvalReport {
        title: "demo".into(),
        lead: "A small model that finds regions by text.".into(),
        findings: Findings::Masks {
            results: vec![evaluated(TextKind::Short), evaluated(TextKind::Long)],
            galleries: vec![Gallery { text: TextKind::Short, queries: vec![query(2.0), query(41.0)] }],
        },
        losses: vec![LossCurve {
            run: "demo".into(),
            plot: Plot { y_label: "loss", series: series.collect(), from_zero: true },
        }],
        speed: None,
        facts: RunFacts {
            chips: vec![("steps".into(), "200".into())],
            tables: vec![FactTable { heading: "Data", rows: vec![("split".into(), "test".into())] }],
            keys: serde_json::from_value(serde_json::json!({ "steps": 200, "wall_s": 431.5 })).expect("an object"),
        },
    }
}

#[test]
fn the_page_is_one_file_with_numbers_curves_and_pictures() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = report().write(dir.path()).expect("written");
    let html = std::fs::read_to_string(&path).expect("read");
    if let Ok(keep) = std::env::var("PIXFLEET_KEEP_REPORT") {
        std::fs::copy(&path, keep).expect("copied");
    }
    for wanted in ["24.0 %", "34 times", "1416 regions", "<polyline", "currentColor", "right region: rank 41", "28.9 %"]
    {
        assert!(html.contains(wanted), "{wanted} is missing");
    }
    assert_eq!(html.matches("data:image/jpeg;base64,").count(), 12);
    for absent in ["http://", "https://", "<script", "#010203"] {
        let from = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!from.contains(absent), "{absent} does not belong in the page");
    }
}

#[test]
fn every_line_of_a_plot_has_a_colour_and_a_name_within_the_drawing() {
    let plot = report().losses.remove(0).plot;
    let colors: std::collections::BTreeSet<_> = plot.series.iter().map(|s| (s.color.0, s.color.1, s.color.2)).collect();
    assert_eq!(colors.len(), plot.series.len());
    let svg = super::plots::svg(&plot).expect("lines");
    for series in &plot.series {
        let (before, _) = svg.split_once(&format!("\n{}\n", series.name)).expect("a name in the legend");
        let x = before.rsplit("<text x=\"").next().and_then(|tag| tag.split_once('"')).expect("its place").0;
        assert!((0..740).contains(&x.parse::<i32>().expect("pixels")), "{} at {x}", series.name);
    }
    let html = page::page(&report());
    assert!(html.contains("<b>local_text</b>: pooled patches against text.") && !html.contains("<b>hard</b>"));
}

#[test]
fn texts_of_a_caption_are_escaped() {
    let html = page::page(&report());
    assert!(html.contains("left of the &quot;boat&quot; &amp; behind it") && html.contains("a round patch &lt;0&gt;"));
}

#[test]
fn report_json_has_the_promised_keys() {
    let json = report().json();
    for key in [
        "steps",
        "test_regions",
        "chance_r10",
        "text_to_region_r10",
        "region_to_text_r10",
        "chance_in_image",
        "in_image_mask",
        "in_image_box",
        "in_image_full",
        "wall_s",
        "long_text_to_region_r10",
        "long_in_image_mask",
        "text_to_region_r1",
        "region_to_text_r5",
        "text_to_region_r10_box",
        "long_in_image_full",
    ] {
        assert!(json[key].is_number(), "{key} is missing in {json}");
    }
    assert_eq!(json["in_image_mask"], 0.78);
    assert_eq!(json["test_regions"], 1416);
}

#[test]
fn the_region_stays_bright_and_the_rest_is_dimmed() {
    use base64::Engine;
    let (image, mask, bbox) = picture(0);
    let uri = draw(&image, &Region { mask: &mask, bbox, right: true }).expect("a picture");
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(uri.trim_start_matches("data:image/jpeg;base64,"))
        .expect("base64");
    let drawn = image::load_from_memory(&bytes).expect("a JPEG").to_rgb8();
    assert_eq!(drawn.dimensions(), (288, 216));
    let level = |x: u32, y: u32| drawn.get_pixel(x, y).0.iter().map(|&c| u32::from(c)).sum::<u32>();
    let (inside, outside) = (level(96, 108), level(260, 200));
    assert!(inside.abs_diff(80 + 90) < 25, "inside is {inside}");
    assert!(outside < 345, "outside is {outside}, its picture 383: not dimmed");
    let green = |y: u32| drawn.get_pixel(96, y).0[1];
    assert!((108 - 58..108 - 48).any(|y| green(y) > 140), "no outline at the upper end of the region");
}

#[test]
fn a_mask_of_another_size_is_not_drawn() {
    let (image, mask, bbox) = picture(0);
    assert!(draw(&image, &Region { mask: &mask[1..], bbox, right: true }).is_none());
}

#[test]
fn the_gallery_shows_hits_near_misses_and_misses() {
    let places: Vec<AnswerRank> =
        (0..100).map(|i| AnswerRank { above: if i % 2 == 0 { 0 } else { i }, ties: 0 }).collect();
    let chosen = choose(&places, 3, 1, 2);
    assert_eq!(chosen.len(), 6);
    assert!(chosen[..3].iter().all(|&i| places[i].above == 0));
    assert!(matches!(places[chosen[3]].above, 1..=4));
    assert!(chosen[4..].iter().all(|&i| places[i].above >= 10));
    assert!(choose(&[], 3, 3, 3).is_empty());
}
