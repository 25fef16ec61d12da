use super::*;

const LEASE: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Now {
    Duration::from_secs(seconds)
}

/// Of unit `u`, from marks and the versions of their objects.
fn sight(marks: &[(Mark, &str)]) -> Sight {
    let keys: Vec<_> = marks.iter().map(|(mark, version)| (mark.key("u"), (*version).to_owned())).collect();
    Sight::all(keys.iter().map(|(k, v)| (k.as_str(), v.clone()))).remove("u").unwrap_or_default()
}

#[test]
fn a_key_names_its_unit_and_mark_and_nothing_else_does() {
    for mark in [Mark::Turn(1), Mark::Beat(12), Mark::Left(1_234_567), Mark::Done] {
        assert_eq!(Mark::parse(&mark.key("train/part-00000.parquet")), Some(("train/part-00000.parquet", mark)));
    }
    for key in ["done", "u/", "u/x", "u/1-beats", "u/-beat", "u/1-beat-2", "u/99999999999"] {
        assert_eq!(Mark::parse(key), None, "{key}");
    }
}

#[test]
fn only_the_highest_turn_speaks() {
    let old = [(Mark::Turn(1), "a"), (Mark::Beat(1), "b"), (Mark::Left(1), "c")];
    assert_eq!(sight(&old), Sight { turn: 1, beat: Some("b".into()), left: true, done: false });
    let new = [old.as_slice(), &[(Mark::Turn(2), "d")]].concat();
    assert_eq!(sight(&new), Sight { turn: 2, beat: None, left: false, done: false });
    let done = [new.as_slice(), &[(Mark::Done, "e")]].concat();
    assert!(sight(&done).done);
}

#[test]
fn what_a_unit_is_follows_from_its_marks_and_ones_own_clock() {
    let mut watch = Watch::new(LEASE);
    let (taken, beat) = (sight(&[(Mark::Turn(1), "a")]), sight(&[(Mark::Turn(1), "a"), (Mark::Beat(1), "b")]));
    let again = sight(&[(Mark::Turn(1), "a"), (Mark::Beat(1), "c")]);
    let left = sight(&[(Mark::Turn(1), "a"), (Mark::Left(1), "x")]);
    let overtaken = sight(&[(Mark::Turn(1), "a"), (Mark::Beat(1), "c"), (Mark::Turn(2), "d")]);
    let done = sight(&[(Mark::Turn(2), "d"), (Mark::Done, "e")]);
    let (free, held, gone) = (UnitState::Free { turn: 1 }, UnitState::Held, UnitState::Abandoned { turn: 2 });
    let table = [
        (0, Sight::default(), free),
        (1, taken.clone(), held),
        (10, taken.clone(), held),
        (11, taken, gone),
        (12, beat.clone(), held),
        (21, beat.clone(), held),
        (22, beat, gone),
        (23, again.clone(), held),
        (33, again, gone),
        (34, overtaken.clone(), held),
        (43, overtaken.clone(), held),
        (44, overtaken, UnitState::Abandoned { turn: 3 }),
        (45, left, UnitState::Free { turn: 2 }),
        (46, done, UnitState::Done),
    ];
    for (seconds, sight, state) in table {
        assert_eq!(watch.judge(at(seconds), "u", &sight), state, "at {seconds} s: {sight:?}");
    }
}

#[test]
fn what_is_free_is_tried_before_what_was_abandoned_and_from_a_place_of_ones_own() {
    let mut states = vec![UnitState::Free { turn: 1 }; 40];
    states[7] = UnitState::Abandoned { turn: 3 };
    states[8] = UnitState::Held;
    states[9] = UnitState::Done;
    assert_eq!(Tally::of(&states), Tally { done: 1, held: 1, free: 38 });
    let firsts: std::collections::BTreeSet<usize> = (0..20).map(|seed| to_try(&states, seed)[0].0).collect();
    assert!(firsts.len() > 10, "{firsts:?}");
    let mut all = to_try(&states, 5);
    assert_eq!(all.pop(), Some((7, 3)));
    all.sort_unstable();
    assert_eq!(all.len(), 37);
    assert!(to_try(&[], 3).is_empty() && to_try(&states[8..10], 3).is_empty());
}
