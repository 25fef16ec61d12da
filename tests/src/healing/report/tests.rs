use super::*;
use clap::Parser;

fn event(from_signal_s: Option<f64>) -> Recovery {
    Recovery {
        target: "w1".into(),
        generation: 1,
        world: 3,
        whole: true,
        from_signal_s,
        pause_s: 0.75,
        steps_redone: 1,
        while_dead: None,
    }
}

fn report(events: Vec<Recovery>, audit: Option<bool>) -> HealingReport {
    let args = HealingArgs::try_parse_from(["healing", "kill"]).expect("well-formed");
    let text = crate::run_file("healing", "file:///data", "file:///store");
    let spec = RunSpec::parse(&text, &[]).expect("well-formed");
    HealingReport::new(&args, &spec, events, 0.25, audit)
}

#[test]
fn a_steps_own_time_is_taken_off_and_a_run_that_never_came_back_counts() {
    let report = report(vec![event(Some(0.5)), event(Some(1.25)), event(None)], Some(true));
    let spread = Spread { p50_s: 0.25, p99_s: 1.0, max_s: 1.0 };
    assert_eq!((report.next_commit, report.never_back, report.steps_redone), (Some(spread), 1, 3));
    assert_eq!(report.pause.map(|p| p.max_s), Some(0.5));
    assert!(!report.is_good());
}

#[test]
fn only_healed_faults_and_a_clean_audit_are_good() {
    let healed = || vec![event(Some(0.5))];
    assert!(report(healed(), Some(true)).is_good());
    assert!(!report(healed(), Some(false)).is_good());
    assert!(!report(healed(), None).is_good());
    assert!(!report(vec![], Some(true)).is_good(), "nothing was measured");
}

#[test]
fn the_peers_file_stands_beside_ours_with_the_ratio() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let text = r#"{"program": "torchrun", "mode": "kill", "workers": 3, "faults": 20, "never_back": 0, "limit_s": 60,
        "step_median_s": 0.2, "next_commit": {"p50_s": 3.0, "p99_s": 4.0, "max_s": 4.0}, "steps_redone": 7,
        "events": [{"rank": 1, "from_signal_s": 3.2}]}"#;
    std::fs::write(file.path(), text).expect("temporary");
    let peer = HealingReport::read(file.path()).expect("the peer's format");
    let table = report(vec![event(Some(0.75))], Some(true)).table(Some(&peer));
    let ratio = table.lines().find(|l| l.contains("torchrun / pixfleet")).expect("a line of ratios");
    assert!(ratio.contains("6.0 x") && ratio.contains("8.0 x"), "{table}");
}
