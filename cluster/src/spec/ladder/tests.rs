//! The rungs, their order, and what a run file that breaks it is told.

use super::*;
use crate::RunSpec;
use proptest::prelude::*;

const FILE: &str = "[run]\nname = \"r\"\nstore = \"file:///tmp/a\"\n[data]\nurl = \"file:///tmp/d\"\n\
                    [schedule]\nsteps = 10\nwarmup = 2\n";

fn parse(set: &[&str]) -> Result<RunSpec, Vec<Problem>> {
    let set: Vec<String> = set.iter().map(|s| (*s).to_string()).collect();
    RunSpec::parse(FILE, &set).map_err(|error| error.problems)
}

fn ladder(set: &[&str]) -> Ladder {
    parse(set).expect("a valid file").ladder()
}

#[test]
fn the_table_is_in_the_order_of_the_rungs() {
    for (i, rung) in Rung::ALL.into_iter().enumerate() {
        assert_eq!((rung as usize, TABLE[i].rung), (i, rung));
    }
    for key in Rung::ALL.into_iter().filter_map(Rung::key) {
        let spec = parse(&[&format!("{key}=4321")]).map_err(|problems| problems[0].message.clone());
        let known = spec.is_ok() || !spec.expect_err("not valid").contains("unknown key");
        assert!(known, "{key} is no key of a run file");
    }
}

#[test]
fn a_file_that_says_nothing_waits_as_long_as_ever() {
    let ladder = ladder(&[]);
    assert_eq!(ladder, Ladder::default());
    for (rung, ms) in [
        (Rung::HeartbeatInterval, 1_250),
        (Rung::ReconnectPause, 1_000),
        (Rung::ParkedPause, 200),
        (Rung::ParkedWindow, 500),
        (Rung::ReconnectGrace, 2_000),
        (Rung::KeepaliveInterval, 2_000),
        (Rung::KeepaliveTimeout, 3_000),
        (Rung::StandbyKeepalive, 500),
        (Rung::StandbySilence, 1_000),
        (Rung::StandbyFollow, 10_000),
        (Rung::AdoptWindow, 3_000),
        (Rung::HeartbeatTimeout, 5_000),
        (Rung::Stall, 10_000),
        (Rung::CollectiveTimeout, 60_000),
        (Rung::ReformGrace, 60_000),
        (Rung::FormingTimeout, 65_000),
        (Rung::Reaction, 120_000),
        (Rung::LedgerPatience, 120_000),
        (Rung::StorePatience, 300_000),
        (Rung::CoordinatorPatience, 600_000),
        (Rung::WorkerFarewell, 5_000),
        (Rung::LastChores, 10_000),
        (Rung::FrontDoorFarewell, 15_000),
    ] {
        assert_eq!(ladder[rung], Duration::from_millis(ms), "{}", rung.name());
        assert!(!ladder.is_set(rung));
    }
}

#[test]
fn a_key_stands_in_for_its_rung_and_what_follows_from_it_follows() {
    let ladder = ladder(&["train.collective_timeout_ms=30000", "train.heartbeat_timeout_ms=1500"]);
    let ms = |rung: Rung| ladder[rung].as_millis();
    assert_eq!((ms(Rung::CollectiveTimeout), ms(Rung::ReformGrace), ms(Rung::Reaction)), (30_000, 30_000, 60_000));
    assert_eq!(ms(Rung::FormingTimeout), 35_000, "the patience after it, as ever");
    assert_eq!((ms(Rung::HeartbeatTimeout), ms(Rung::AdoptWindow), ms(Rung::ReconnectGrace)), (1_500, 1_500, 1_500));
    assert_eq!(ms(Rung::Stall), 10_000);
    assert_eq!(ladder.origin(Rung::CollectiveTimeout), "set by train.collective_timeout_ms");
    assert_eq!(ladder.origin(Rung::FormingTimeout), "the collective timeout and train.patience_ms");
}

#[test]
fn rungs_that_wait_for_a_step_grow_with_it() {
    let ladder = Ladder::default();
    let step = Some(Duration::from_secs(20));
    for (rung, seconds) in
        [(Rung::Stall, 100), (Rung::ReformGrace, 100), (Rung::Reaction, 200), (Rung::CollectiveTimeout, 60)]
    {
        assert_eq!(ladder.measured(rung, step), Duration::from_secs(seconds), "{}", rung.name());
        assert_eq!(ladder.measured(rung, Some(Duration::from_millis(1))), ladder[rung]);
        assert_eq!(ladder.measured(rung, None), ladder[rung]);
    }
    assert_eq!(ladder.outgrown(Duration::from_secs(12)), None);
    let outgrown = ladder.outgrown(Duration::from_secs(20)).expect("100 s are more than 60");
    assert!(
        outgrown.ends_with("gives up after 60000 ms; set train.collective_timeout_ms to 100000 or more"),
        "{outgrown}"
    );
}

#[test]
fn all_that_is_out_of_order_is_told_at_once_with_its_keys() {
    let problems = parse(&[
        "train.heartbeat_timeout_ms=12000",
        "train.reconnect_grace_ms=13000",
        "train.collective_timeout_ms=9000",
        "train.coordinator_patience_ms=9000",
    ])
    .expect_err("four are wrong");
    let told: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.key, p.message)).collect();
    let expected = [
        "train.heartbeat_timeout_ms: the heartbeat timeout of 12000 ms (set by train.heartbeat_timeout_ms) must be at \
         least the reconnect grace of 13000 ms (set by train.reconnect_grace_ms)",
        "train.heartbeat_timeout_ms: the stall of 10000 ms (2 times train.patience_ms, and at least 5 median steps) must \
         be more than the heartbeat timeout of 12000 ms",
        "train.collective_timeout_ms: the collective timeout of 9000 ms",
        "train.coordinator_patience_ms: the coordinator patience of 9000 ms (set by train.coordinator_patience_ms) must \
         be more than the collective timeout of 9000 ms",
        "train.coordinator_patience_ms: the coordinator patience of 9000 ms (set by train.coordinator_patience_ms) must \
         be more than the ledger patience of 120000 ms",
        "train.coordinator_patience_ms: the coordinator patience of 9000 ms (set by train.coordinator_patience_ms) must \
         be more than the store patience of 300000 ms (60 times train.patience_ms)",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}\nis not\n{expected}");
    }
    let cure = "raise train.heartbeat_timeout_ms, lower train.reconnect_grace_ms, or leave it to follow from \
                train.patience_ms";
    assert!(told[0].ends_with(cure), "{}", told[0]);
    assert!(told[1].ends_with("lower train.heartbeat_timeout_ms, or leave it to follow from train.patience_ms"));
}

#[test]
fn a_silence_that_is_none_is_refused_before_anything_follows_from_it() {
    let keys = |set: &[&str]| parse(set).expect_err("out of range").into_iter().map(|p| p.key).collect::<Vec<_>>();
    assert_eq!(keys(&["train.patience_ms=99"]), ["train.patience_ms"]);
    assert_eq!(keys(&["train.patience_ms=600001"]), ["train.patience_ms"]);
    assert_eq!(keys(&["train.heartbeat_timeout_ms=99"]), ["train.heartbeat_timeout_ms"]);
}

#[test]
fn the_plan_names_each_rung_its_origin_and_its_key_the_shortest_first() {
    let text = ladder(&["train.stall_ms=7000"]).to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), Rung::ALL.len());
    let ms =
        |line: &str| line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("milliseconds first");
    assert!(lines.is_sorted_by_key(|line| ms(line)), "{text}");
    for line in [
        "     7000 ms  stall                       set by train.stall_ms",
        "    60000 ms  collective timeout          12 times train.patience_ms [train.collective_timeout_ms]",
        "    60000 ms  reform grace                the collective timeout, and at least 5 median steps",
    ] {
        assert!(lines.contains(&line), "`{line}` is missing in\n{text}");
    }
}

/// One key, or none.
fn maybe(range: std::ops::Range<u64>) -> impl Strategy<Value = Option<u64>> {
    prop::option::weighted(0.3, range)
}

proptest! {
    #[test]
    fn any_legal_patience_gives_an_ordered_ladder(ms in PATIENCE_MS) {
        let ladder = Ladder::of_patience(Duration::from_millis(ms));
        prop_assert_eq!(ladder.problems(), vec![]);
        let spec = parse(&[&format!("train.patience_ms={ms}")]);
        prop_assert_eq!(spec.map(|spec| spec.ladder()), Ok(ladder));
    }

    #[test]
    fn more_patience_makes_no_rung_shorter(ms in PATIENCE_MS, more in 0u64..1000) {
        let [one, two] = [ms, ms + more].map(|ms| Ladder::of_patience(Duration::from_millis(ms)));
        for rung in Rung::ALL {
            prop_assert!(one[rung] <= two[rung], "{}", rung.name());
        }
    }

    #[test]
    fn measured_steps_never_turn_the_order_of_those_that_grow(ms in PATIENCE_MS, step in 0u64..10_000_000) {
        let ladder = Ladder::of_patience(Duration::from_millis(ms));
        let at = |rung| ladder.measured(rung, Some(Duration::from_millis(step)));
        prop_assert!(at(Rung::HeartbeatTimeout) < at(Rung::Stall));
        prop_assert!(at(Rung::CollectiveTimeout) <= at(Rung::ReformGrace));
        prop_assert!(at(Rung::ReformGrace) < at(Rung::Reaction));
    }

    #[test]
    fn a_file_is_refused_exactly_if_a_pair_is_out_of_order(
        patience in 100u64..20_000,
        heartbeat in maybe(100..40_000),
        grace in maybe(0..40_000),
        stall in maybe(0..100_000),
        collective in maybe(0..400_000),
        store in maybe(0..3_000_000),
        coordinator in maybe(0..3_000_000),
    ) {
        let keys = [
            ("train.heartbeat_timeout_ms", heartbeat),
            ("train.reconnect_grace_ms", grace),
            ("train.stall_ms", stall),
            ("train.collective_timeout_ms", collective),
            ("run.store_patience_ms", store),
            ("train.coordinator_patience_ms", coordinator),
        ];
        let patience_key = ("train.patience_ms", Some(patience));
        let set = keys.into_iter().chain([patience_key]).filter_map(|(key, ms)| Some(format!("{key}={}", ms?)));
        let set: Vec<String> = set.collect();
        let run = RunSection { store_patience_ms: store, ..RunSection::default() };
        let train = TrainSpec {
            patience_ms: patience,
            heartbeat_timeout_ms: heartbeat,
            reconnect_grace_ms: grace,
            stall_ms: stall,
            collective_timeout_ms: collective,
            coordinator_patience_ms: coordinator,
            ..TrainSpec::default()
        };
        let ladder = Ladder::of(&run, &train);
        let wrong = ORDER.iter().filter(|(low, equal, high, _)| {
            ladder[*low] > ladder[*high] || (!equal && ladder[*low] == ladder[*high])
        });
        let wrong = wrong.count();
        let told = parse(&set.iter().map(String::as_str).collect::<Vec<_>>()).map_or_else(|problems| problems, |_| Vec::new());
        prop_assert_eq!(told.len(), wrong);
        for problem in told {
            prop_assert!(set.iter().any(|s| s.starts_with(&problem.key)), "{} is not in {:?}", problem.key, set);
        }
    }
}
