//! A few hundred schedules; that every planted mistake is found; and that the simulator is what it says it is.

use super::planted::Planted;
use super::shrink::shrink_by;
use super::*;
use std::collections::BTreeSet;

/// Schedules of the everyday test; `pixfleet sim` runs as many as one likes.
const SEEDS: u64 = 400;
/// A planted mistake must be found within so many.
const FOUND_WITHIN: u64 = 2000;

#[test]
fn an_undisturbed_run_is_done_and_costs_nothing() {
    for seed in 0..20 {
        let verdict = simulate(seed, &[], false);
        assert_eq!(verdict.violation, None, "seed {seed}");
        assert_eq!((verdict.fired.losses, verdict.fired.redone, verdict.fired.lost), (0, 0, 0), "seed {seed}");
    }
}

#[test]
fn nothing_that_goes_wrong_breaks_a_promise() {
    let mut fired = Fired::default();
    let mut paths = BTreeSet::new();
    for seed in 0..SEEDS {
        let verdict = simulate(seed, &schedule(seed, FaultKind::ALL), false);
        assert_eq!(verdict.violation, None, "seed {seed}");
        fired.add(&verdict.fired);
        paths.insert(verdict.path);
    }
    for kind in FaultKind::ALL {
        assert!(fired.faults.get(kind).is_some_and(|&n| n > SEEDS / 20), "{}: {:?}", kind.name(), fired.faults);
    }
    assert!(paths.len() as u64 > SEEDS / 2, "{} ways", paths.len());
    assert!(fired.zombies > 0 && fired.stale > 0 && fired.redone > 0, "{fired:?}");
    // Ranks went over by themselves, and were seen to train on without a leader.
    assert!(fired.switched > SEEDS / 10 && fired.kept > 0, "{fired:?}");
}

#[test]
fn the_same_seed_is_the_same_to_the_last_happening() {
    for seed in 0..20 {
        let faults = schedule(seed, FaultKind::ALL);
        let [one, two] = [true, true].map(|traced| simulate(seed, &faults, traced));
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!(one.fingerprint, two.fingerprint, "seed {seed}");
        assert_eq!(one.fingerprint, simulate(seed, &faults, false).fingerprint, "a trace changes nothing");
    }
    let [one, two] = [1, 2].map(|seed| simulate(seed, &schedule(seed, FaultKind::ALL), false).fingerprint);
    assert_ne!(one, two);
}

fn with(planted: Planted, seed: u64, faults: &[Fault]) -> Option<Violation> {
    simulate_with(seed, faults, false, || Box::new(planted)).violation
}

#[test]
fn planted_mistakes_are_found() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let find = |planted| {
        (0..FOUND_WITHIN).find_map(|seed| Some((seed, with(planted, seed, &schedule(seed, FaultKind::ALL))?)))
    };
    let found = Planted::ALL.map(|planted| (planted, find(planted)));
    std::panic::set_hook(quiet);
    for (planted, found) in found {
        let (seed, violation) = found.unwrap_or_else(|| panic!("{planted:?} was not found in {FOUND_WITHIN} seeds"));
        println!("{planted:?}: seed {seed}, {violation}");
    }
}

#[test]
fn a_violation_is_shrunk_to_what_it_needs() {
    let planted = Planted::LanesOffByOne;
    let found = (0..FOUND_WITHIN).find_map(|seed| {
        let faults = schedule(seed, FaultKind::ALL);
        let violation = with(planted, seed, &faults)?;
        (faults.len() > 4).then_some((seed, faults, violation))
    });
    let (seed, faults, violation) = found.expect("another test finds it");
    let shrunk = shrink_by(&faults, &violation, |faults| with(planted, seed, faults));
    assert_eq!(shrunk.violation.name, violation.name);
    assert!(shrunk.faults.len() < faults.len(), "{:?}", shrunk.faults);
    for i in 0..shrunk.faults.len() {
        let mut without = shrunk.faults.clone();
        without.remove(i);
        let left = with(planted, seed, &without);
        assert!(left.is_none_or(|v| v.name != violation.name), "fault {i} is not needed");
    }
}
