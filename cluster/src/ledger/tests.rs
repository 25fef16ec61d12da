use super::*;

fn step(number: u64, generation: u64) -> Record {
    Record::Step(StepRecord {
        step: Step(number),
        generation: Generation(generation),
        world: 2,
        first_position: number * 8,
        samples: 8,
        losses: Losses::new([("global", 0.5)], 0.5),
        lr: 1e-3,
        seconds: 0.1,
        substitutions: vec![],
        unreported: vec![],
        evidence: None,
    })
}

fn formed(generation: u64, start: u64) -> Record {
    Record::Formed {
        generation: Generation(generation),
        start_step: Step(start),
        members: vec![MemberId(1), MemberId(2)],
        source: StateSource::Initial,
    }
}

#[test]
fn a_generation_cuts_off_what_did_not_survive() {
    let records = [formed(1, 0), step(0, 1), step(1, 1), step(2, 1), formed(2, 2), step(2, 2)];
    let history = History::replay(&records);
    assert_eq!(history.steps.keys().copied().collect::<Vec<_>>(), vec![Step(0), Step(1), Step(2)]);
    assert_eq!(history.steps[&Step(2)][0].generation, Generation(2));
    assert!(history.steps.values().all(|s| s.len() == 1));
    assert_eq!((history.redone, history.generation), (1, Some(Generation(2))));
}

#[test]
fn a_step_twice_without_a_cut_and_a_reused_generation_are_seen() {
    let history = History::replay(&[formed(1, 0), step(0, 1), step(0, 1), formed(1, 1)]);
    assert_eq!(history.steps[&Step(0)].len(), 2);
    assert_eq!(history.reused, vec![(Generation(1), Generation(1))]);
}

#[test]
fn lines_read_back_and_a_bad_one_is_named() {
    let records = vec![formed(1, 0), step(0, 1), Record::Closed { outcome: "done".into(), message: String::new() }];
    let text: String = records.iter().map(Record::to_line).collect();
    assert_eq!(parse_lines(&text).expect("own lines"), records);
    let error = parse_lines(&format!("{text}{{\"record\":\"step\"")).expect_err("cut short");
    assert_eq!(error.to_string(), "line 4 is not a ledger record");
}

#[test]
fn a_loss_that_is_not_a_number_survives() {
    let mut record = step(0, 1);
    if let Record::Step(s) = &mut record {
        s.losses = Losses::new([("crop", f64::INFINITY), ("global", 0.5)], f64::NAN);
    }
    assert!(record.to_line().contains(r#""losses":{"crop":null,"global":0.5,"total":null}"#), "{}", record.to_line());
    let back = parse_lines(&record.to_line()).expect("null is read");
    let Record::Step(s) = &back[0] else { panic!("a step: {back:?}") };
    assert!(s.losses.total.is_nan() && s.losses.terms["crop"].is_nan() && s.losses.terms["global"] == 0.5);
}

#[test]
fn losses_are_a_flat_object_whatever_the_terms() {
    let losses = Losses::new([("short", 1.5), ("long", 0.5), ("hard", 2.0)], 3.0);
    let json = r#"{"hard":2.0,"long":0.5,"short":1.5,"total":3.0}"#;
    assert_eq!(serde_json::to_string(&losses).expect("JSON"), json);
    assert_eq!(serde_json::from_str::<Losses>(json).expect("own words"), losses);
    assert_eq!(losses.named().map(|(name, _)| name).collect::<Vec<_>>(), ["total", "hard", "long", "short"]);
}

#[test]
fn losses_without_a_total_twice_one_too_many_or_misnamed_are_refused() {
    let refused = |json: &str| serde_json::from_str::<Losses>(json).expect_err(json).to_string();
    let many: String = (0..65).map(|i| format!("\"t{i}\":1.0,")).collect();
    for (json, problem) in [
        (r#"{"global":1.0}"#.to_string(), "missing field `total`"),
        (r#"{"global":1.0,"global":2.0,"total":1.0}"#.into(), "a loss stands twice"),
        (r#"{"Global loss":1.0,"total":1.0}"#.into(), "names a term that is `total`, or not 1 to 64 of a-z, 0-9 and _"),
        (r#"{"global":"much","total":1.0}"#.into(), "invalid type: string \"much\", expected f64"),
        (format!("{{{many}\"total\":1.0}}"), "holds more than 64 terms"),
    ] {
        assert!(refused(&json).starts_with(problem), "{json}: {}", refused(&json));
    }
    assert_eq!(Losses::told([("total".to_string(), 1.0)].into(), 1.0), Err(BadTerms::Name));
    assert_eq!(Losses::told([("x".repeat(65), 1.0)].into(), 1.0), Err(BadTerms::Name));
    assert!(["global", "crop_cosine", "t5"].iter().all(|name| Losses::is_term(name)) && !Losses::is_term(""));
}

#[test]
fn a_step_holds_evidence_as_text_or_none() {
    let evidence = crate::Evidence { rows: 0xabc, drawn: 1 << 127 };
    let mut record = step(0, 1);
    assert!(!record.to_line().contains("evidence"), "{}", record.to_line());
    if let Record::Step(s) = &mut record {
        s.evidence = Some(evidence);
    }
    let line = record.to_line();
    let text = "\"evidence\":\"00000000000000000000000000000abc-80000000000000000000000000000000\"";
    assert!(line.contains(text), "{line}");
    assert_eq!(parse_lines(&line).expect("own line"), [record]);
    let error = parse_lines(&line.replace("abc-", "xyz-")).expect_err("no hexadecimal digits");
    assert!(std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("32 hexadecimal digits")));
}

/// Written when losses were three named fields: all of them, fewer, and some that are no numbers.
#[test]
fn a_ledger_of_named_branches_reads_as_it_was_written() {
    let text = include_str!("../../tests/golden/ledger_v1.jsonl");
    let records = parse_lines(text).expect("an older ledger");
    assert_eq!(records.len(), 16);
    let history = History::replay(&records);
    assert_eq!((history.redone, history.losses, history.leader), (1, 1, 2));
    assert_eq!((history.generation, history.member), (Some(Generation(3)), Some(MemberId(4))));
    assert_eq!((&history.standing, &history.reused), (&None, &vec![]));
    assert_eq!(history.checkpoint, Some((Step(4), "manifests/00000000000000000004-2-9f3c.json".into())));
    assert_eq!(
        history.steps.iter().map(|(s, copies)| (s.0, copies.len())).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4].map(|s| (s, 1))
    );
    let losses = |step| &history.steps[&Step(step)][0].losses;
    let first =
        [("crop", 3.180_112_361_907_959), ("global", 3.176_523_447_036_743), ("local", 0.940_325_021_743_774_4)];
    assert_eq!(losses(0), &Losses::new(first, 6.544_765_811_090_94));
    assert_eq!(losses(1), &Losses::new([("crop", 3.25), ("global", 3.125), ("local", 0.5)], 6.5));
    assert_eq!(losses(2), &Losses::new([("global", 2.5)], 2.5));
    assert_eq!(losses(3).terms.keys().collect::<Vec<_>>(), ["crop", "global"]);
    assert!(losses(3).total.is_nan() && losses(3).terms["crop"].is_nan());
    assert_eq!(losses(4), &Losses::new([("global", 2.0), ("local", 0.0)], 2.0));

    // Written again, only the order of the branches differs.
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    for (line, record) in text.lines().zip(&records) {
        assert_eq!(json(&record.to_line()), json(line));
    }
}

#[test]
fn segment_names_sort_and_read_back() {
    assert_eq!(Record::segment_key(7), "ledger/00000000000000000007.jsonl");
    assert_eq!(Record::parse_segment_name("00000000000000000007.jsonl"), Some(7));
    assert_eq!(Record::parse_segment_name("7.jsonl"), None);
}

#[test]
fn a_loss_that_two_leaders_found_out_counts_once() {
    let lost = |member| Record::Lost { generation: Generation(1), member: MemberId(member), cause: "reset".into() };
    assert_eq!(History::replay(&[lost(1), lost(2), lost(1)]).losses, 2);
}
