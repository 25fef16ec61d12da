//! The page and the keys of FG-CLIP's evaluation.

use super::hard::{HardQuery, HardText, OtherChoice};
use super::plots::{Plot, Series, color};
use super::*;
use crate::eval::captions::measure::Measure;

fn measures(hard: f64) -> Measures {
    let measure = |task: &str, key: &str, value| Measure {
        task: task.into(),
        name: key.replace('_', " "),
        key: key.into(),
        value,
        chance: (format!("chance_{key}"), 0.05),
    };
    let all = vec![
        measure("hard negatives", "hard_choice", hard),
        measure("hard negatives", "hard_choice_colour", 0.625),
        measure("long captions", "long_text_to_image_r10", 0.4),
    ];
    Measures { all, counts: vec![("hard_regions".into(), 1200)] }
}

fn report(runs: &[(&str, f64)]) -> EvalReport {
    let points = (0..50).map(|i| (f64::from(i), 5.0 - f64::from(i) / 20.0)).collect();
    let series = vec![Series { name: "hard".into(), color: color(1), points }];
    let curve = |&(run, _): &(&str, f64)| LossCurve {
        run: run.into(),
        plot: Plot { y_label: "loss", series: series.clone(), from_zero: true },
    };
    let query = HardQuery {
        picture: "data:image/jpeg;base64,AAAA".into(),
        truth: "the red kite <left>".into(),
        similarity: 0.31,
        rank: 3.0,
        texts: vec![HardText {
            text: "the blue kite".into(),
            kind: Some(pixfleet_shards::HardNegKind::Colour),
            similarity: 0.42,
        }],
        others: vec![OtherChoice { run: "stage1".into(), rank: 7.0, chosen: "two kites".into() }],
    };
    EvalReport {
        title: "demo".into(),
        lead: "A small model.".into(),
        losses: runs.iter().map(curve).collect(),
        findings: Findings::Captions(CaptionFindings {
            runs: runs.iter().map(|(run, hard)| ((*run).to_owned(), measures(*hard))).collect(),
            gallery: vec![query],
        }),
        speed: None,
        facts: RunFacts::default(),
    }
}

#[test]
fn the_plain_keys_are_of_the_evaluated_run_and_both_have_their_own() {
    let json = report(&[("stage1", 0.1), ("stage2", 0.45)]).json();
    assert_eq!((&json["hard_choice"], &json["hard_choice_stage2"]), (&0.45.into(), &0.45.into()));
    assert_eq!((&json["hard_choice_stage1"], &json["hard_choice_colour_stage1"]), (&0.1.into(), &0.625.into()));
    assert_eq!((&json["chance_hard_choice"], &json["hard_regions"]), (&0.05.into(), &1200.into()));
    assert!(json.get("chance_hard_choice_stage1").is_none(), "chance is the split's");
    let alone = report(&[("stage2", 0.45)]).json();
    assert_eq!(alone["hard_choice"], 0.45);
    assert!(alone.get("hard_choice_stage2").is_none());
}

#[test]
fn the_page_shows_both_runs_the_curves_and_the_texts_that_were_preferred() {
    let html = page::page(&report(&[("stage1", 0.1), ("stage2", 0.45)]));
    for wanted in [
        "45.0 %",
        "9 times",
        "62.5 %",
        "true text: rank 3 of eleven",
        "the red kite &lt;left&gt;",
        "another colour",
        "stage1: rank 7, chose \u{201c}two kites\u{201d}",
        "<b>stage1</b>. Loss of each term",
        "<b>hard</b>: region against its own text and ten that are almost right.",
    ] {
        assert!(html.contains(wanted), "{wanted} is missing in {html}");
    }
    assert_eq!(html.matches("<th>stage1</th><th>stage2</th><th>Chance</th>").count(), 1);
    let alone = page::page(&report(&[("stage2", 0.45)]));
    assert!(!alone.contains("<b>stage2</b>. Loss"), "one run needs no name");
}

#[test]
fn benchmarks_stand_beside_the_published_rows_and_report_json_is_a_list() {
    use crate::eval::benchmarks::result::tests::made_up;
    let results = vec![made_up("coco-box"), made_up("lvis-mask")];
    let report = EvalReport { findings: Findings::Benchmarks(results), ..report(&[("base", 0.5)]) };
    let json = report.json();
    let named: Vec<_> = json.as_array().expect("a list").iter().map(|r| r["benchmark"].as_str()).collect();
    assert_eq!(named, [Some("coco-box"), Some("lvis-mask")]);
    let html = page::page(&report);
    for wanted in [
        "COCO, classification of boxes",
        "FG-CLIP 2",
        "74.9 %",
        "this run",
        "show: box; published: pool",
        "&lt;coco&gt;",
    ] {
        assert!(html.contains(wanted), "{wanted} is missing");
    }
}
