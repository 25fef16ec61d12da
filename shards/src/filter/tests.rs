//! Conditions: what they say, where they are wrong, and that statistics never rule out what a look at the rows keeps.

use super::eval::{Subject, holds};
use super::parse::{Expr, Operand, Relation, parse};
use super::prune::{Known, may};
use super::*;
use crate::row::Region;
use crate::writer::PartWriter;
use parquet::file::metadata::ParquetMetaDataReader;
use proptest::prelude::*;

fn row(n: u32) -> ImageRow {
    let region = |i: u32| Region {
        bbox: [0.0, 0.0, 0.1 + 0.2 * i as f32, 0.5],
        score: (i != 1).then_some(0.2 + 0.1 * (n + i) as f32),
        category: Some(if n.is_multiple_of(2) { "fox" } else { "it's a \"bird\"" }.into()),
        caption_merged: Some("a fox ".repeat(1 + i as usize).trim().into()),
        check_ok: (n > 1).then_some(i == 0),
        ..Region::default()
    };
    ImageRow {
        image_id: format!("image {n}"),
        source: if n == 3 { String::new() } else { format!("set-{}", n % 2) },
        width: 100 * (n + 1),
        height: 100,
        clip_sim_l14: (n != 2).then_some(0.1 * n as f32),
        regions: (0..n % 4).map(region).collect(),
        ..ImageRow::default()
    }
}

fn tokenizer() -> Tokenizer {
    Tokenizer::open(crate::tokens::CLIP).expect("built in")
}

/// What `text` makes of `row`.
fn judged(text: &str, row: &ImageRow) -> Verdict {
    Filter::parse(text).unwrap_or_else(|e| panic!("{e}")).judge(row, Some(&tokenizer()))
}

#[test]
fn and_binds_closer_than_or_and_not_closest() {
    let names = |text: &str| match parse(text).expect("a condition").expr {
        Expr::Any(nodes) => nodes.iter().map(|n| text[n.at.clone()].to_owned()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(names("not check_ok and width > 3 or score<=.5"), ["not check_ok and width > 3", "score<=.5"]);
    let parts = Filter::parse("width >= 1e2 AND (score < -0.5 or 3 > height) and source not in ('a', \"b\")");
    let parts = parts.expect("a condition");
    let texts: Vec<&str> = parts.parts().collect();
    assert_eq!(texts, ["width >= 1e2", "(score < -0.5 or 3 > height)", "source not in ('a', \"b\")"]);
    let quoted = parse("category = 'it''s a \"bird\"'").expect("two quotes are one").expr;
    assert!(matches!(quoted, Expr::Compare(_, Relation::Equal, Operand::Text(t)) if t == "it's a \"bird\""));
}

#[test]
fn an_error_points_at_its_characters() {
    for (text, at, problem) in [
        ("clip > 0.3", 0..4, "no field `clip`; fields are image_id, source,"),
        ("width > 'wide'", 8..14, "this is a text, and is compared with a number"),
        ("width > 3 height", 10..16, "expected `and`, `or` or the end"),
        ("(width > 3", 10..10, "expected `)`"),
        ("width", 5..5, "expected one of < <= > >= = != in"),
        ("width > 1.2.3", 8..13, "`1.2.3` is no number"),
        ("category = 'fox", 11..15, "no ' ends this text"),
        ("check_ok > true", 9..10, "true and false have no order; expected = or !="),
        ("has(3)", 4..5, "expected the name of a field"),
        ("width in 3", 9..10, "expected `(` and the values, with commas between them"),
        ("width not 3", 10..11, "expected `in` after `not`"),
        ("", 0..0, "expected a field, a number or a text"),
        ("width > 3 ; 1", 10..11, "`;` means nothing here"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.at == at && error.problem.starts_with(problem), "{text}: {error:?}");
    }
    let shown = parse("lang = 'ü' and hieght > 3").expect_err("a slip").to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("character 16: no field `hieght`;"), "{shown}");
    assert_eq!(lines[1..], ["  lang = 'ü' and hieght > 3", "                 ^^^^^^"]);
    let deep = "not ".repeat(1000) + "check_ok";
    assert!(parse(&deep).expect_err("too deep").problem.contains("within one another"));
}

#[test]
fn what_is_not_there_compares_with_nothing() {
    assert_eq!(judged("clip_sim_l14 > 0", &row(2)), Verdict::Row(0));
    assert_eq!(judged("not (clip_sim_l14 > 0)", &row(2)), Verdict::Whole);
    assert_eq!(judged("has(clip_sim_l14)", &row(2)), Verdict::Row(0));
    assert_eq!(judged("clip_sim_l14 != 5", &row(2)), Verdict::Row(0));
    // Region 1 of row 3 has no score.
    assert_eq!(judged("score > 0", &row(3)), Verdict::Regions(vec![None, Some(0), None]));
    assert_eq!(judged("not score > 0", &row(3)), Verdict::Regions(vec![Some(0), None, Some(0)]));
    assert_eq!(judged("has(source)", &row(3)), Verdict::Row(0));
}

#[test]
fn a_row_goes_by_itself_before_its_regions_do() {
    assert_eq!(judged("area > 0.1 and width > 1000", &row(3)), Verdict::Row(1));
    assert_eq!(judged("area > 0.1 and width > 10", &row(3)), Verdict::Regions(vec![Some(0), None, None]));
    assert_eq!(judged("area > 5 or width > 10", &row(3)), Verdict::Whole, "no region is asked");
    assert_eq!(
        judged("tokens < 5", &row(3)),
        Verdict::Regions(vec![None, Some(0), Some(0)]),
        "a fox and two ends are 4"
    );
    assert_eq!(judged("check_ok", &row(3)), Verdict::Regions(vec![None, Some(0), Some(0)]));
    assert_eq!(judged("category in ('fox', 'cat') and regions >= 2", &row(2)), Verdict::Regions(vec![None, None]));
    assert_eq!(judged("clip_sim_l14 > 0.3", &row(3)), Verdict::Row(0), "a stored 0.3 is not more than 0.3");
}

#[test]
fn a_mask_counts_its_own_pixels() {
    use crate::pixels::{Mask, rle::Rle};
    let mut mask = Mask::filled(10, 10, 0);
    mask.data[..30].fill(255);
    let region = Region { bbox: [0.0, 0.0, 1.0, 0.5], mask: Some(Rle::encode(&mask)), ..Region::default() };
    assert_eq!(region.area(), 0.3);
    assert_eq!(Region { mask: None, ..region }.area(), 0.5);
}

fn comparison() -> impl Strategy<Value = String> {
    let numbers =
        prop_oneof![Just("width"), Just("clip_sim_l14"), Just("score"), Just("regions"), Just("height"), Just("area")];
    let relation = || prop_oneof![Just("<"), Just("<="), Just(">"), Just(">="), Just("="), Just("!=")];
    let texts = prop_oneof![Just("source"), Just("category"), Just("lang"), Just("image_id")];
    let values = || prop_oneof![Just("'set-0'"), Just("'set-1'"), Just("'fox'"), Just("''"), Just("'zzz'")];
    prop_oneof![
        (numbers, relation(), 0u32..12).prop_map(|(f, r, n)| format!("{f} {r} {}", n as f32 / 10.0)),
        (relation(), 0u32..9).prop_map(|(r, n)| format!("{} {r} width", 100 * n)),
        (texts.clone(), relation(), values()).prop_map(|(f, r, v)| format!("{f} {r} {v}")),
        (texts.clone(), values(), values()).prop_map(|(f, a, b)| format!("{f} in ({a}, {b})")),
        texts.prop_map(|f| format!("has({f})")),
        Just("check_ok".to_owned()),
        Just("check_ok != true".to_owned()),
        Just("has(score)".to_owned()),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    comparison().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} and {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            inner.prop_map(|a| format!("not ({a})")),
        ]
    })
}

proptest! {
    #[test]
    fn statistics_rule_out_no_row_that_stays(text in condition(), rows in prop::collection::vec(0u32..6, 1..5), keep_empty: bool) {
        let rows: Vec<ImageRow> = rows.into_iter().map(row).collect();
        let mut part = PartWriter::new("a.parquet", WriterOptions::default()).expect("a writer");
        rows.iter().for_each(|row| part.push(row.clone()).expect("a good row"));
        let bytes = part.finish().expect("a file");
        let footer = ParquetMetaDataReader::new().parse_and_finish(&bytes).expect("a footer");
        let known = Known { group: footer.row_group(0), keep_empty };
        let filter = Filter::parse(&text).expect("a condition");
        let ruled_out = filter.parts.iter().any(|part| !may(part, &known));
        let stays = |row: &ImageRow| match filter.judge(row, None) {
            Verdict::Row(_) => false,
            Verdict::Whole => true,
            Verdict::Regions(regions) => keep_empty || regions.iter().any(Option::is_none),
        };
        prop_assert!(!(ruled_out && rows.iter().any(stays)), "{text} of {rows:?}");
    }
}

#[test]
fn statistics_do_rule_out() {
    let mut part = PartWriter::new("a.parquet", WriterOptions::default()).expect("a writer");
    (2..5).for_each(|n| part.push(row(n)).expect("a good row"));
    let bytes = part.finish().expect("a file");
    let footer = ParquetMetaDataReader::new().parse_and_finish(&bytes).expect("a footer");
    let out = |text: &str, keep_empty| {
        let node = parse(text).expect("a condition");
        !may(&node, &Known { group: footer.row_group(0), keep_empty })
    };
    for text in [
        "width > 500",
        "300 > width",
        "source in ('set-7', 'set-8')",
        "score > 0.9",
        "category = 'zebra'",
        "has(lang)",
        "lang = 'en'",
        "width > 200 and clip_sim_l14 >= 0.5",
        "not width >= 300",
        "not has(width)",
    ] {
        assert!(out(text, false), "{text}");
    }
    for text in ["width > 400", "tokens > 5", "not score > 0", "area > 5", "width > 900 or score > 0"] {
        assert!(!out(text, false), "{text}");
    }
    assert!(!out("score > 0.9", true), "rows without regions may stay");
    let subject = Subject { row: &row(0), region: None, tokenizer: None };
    assert_eq!(holds(&parse("score > 0").expect("a condition"), &subject), None);
}
