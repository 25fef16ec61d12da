use super::*;

fn step(number: u64, generation: u64) -> Record {
    Record::Step(StepRecord {
        step: Step(number),
        generation: Generation(generation),
        world: 2,
        first_position: number * 8,
        samples: 8,
        losses: Losses { global: Some(0.5), crop: None, local: None, total: 0.5 },
        lr: 1e-3,
        seconds: 0.1,
        substitutions: vec![],
        unreported: vec![],
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
        s.losses.total = f64::NAN;
    }
    let back = parse_lines(&record.to_line()).expect("null is read");
    let Record::Step(s) = &back[0] else { panic!("a step: {back:?}") };
    assert!(s.losses.total.is_nan());
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
