use super::*;

/// `(milliseconds, step, generation, worker)`.
fn commits(lines: &[(u64, u64, u64, &str)]) -> Vec<Commit> {
    let commit = |&(ms, step, generation, worker): &(u64, u64, u64, &str)| Commit {
        at: ms * 1_000_000,
        step,
        generation,
        worker: worker.into(),
    };
    lines.iter().map(commit).collect()
}

#[test]
fn logs_are_read_as_they_grow_and_a_cut_line_waits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut logs = StepLogs::new(&folder.path().join("steps"));
    logs.refresh().expect("no folder yet");
    assert!(logs.commits().is_empty());

    std::fs::create_dir(folder.path().join("steps")).expect("temporary");
    let file = folder.path().join("steps/3-w0.log");
    std::fs::write(&file, "20 0 1\n30 1").expect("temporary");
    logs.refresh().expect("readable");
    assert_eq!(logs.commits().len(), 1, "a line without its end is not there yet");

    std::fs::write(&file, "20 0 1\n30 1 1\n").expect("temporary");
    std::fs::write(folder.path().join("steps/4-w1.log"), "21 0 1\n").expect("temporary");
    logs.refresh().expect("readable");
    let read: Vec<_> = logs.commits().iter().map(|c| (c.at, c.step, c.worker.as_str())).collect();
    assert_eq!(read, [(20, 0, "w0"), (21, 0, "w1"), (30, 1, "w0")]);

    std::fs::write(folder.path().join("steps/5-w2.log"), "22 zero 1\n").expect("temporary");
    let error = format!("{:#}", logs.refresh().expect_err("not a step"));
    assert!(error.contains("5-w2.log") && error.contains("22 zero 1"), "{error}");
}

#[test]
fn healing_is_read_from_generations() {
    // w1 dies at 250 ms in step 2, which w0 had committed; the next generation does it again.
    let log = commits(&[
        (100, 0, 1, "w0"),
        (102, 0, 1, "w1"),
        (200, 1, 1, "w1"),
        (201, 1, 1, "w0"),
        (260, 2, 1, "w0"),
        (500, 2, 2, "w2"),
        (600, 3, 2, "w2"),
    ]);
    assert_eq!(newest(&log), (2, BTreeMap::from([("w2".into(), 2)])));
    assert_eq!(first_after(&log, 1).map(|c| c.at), Some(500_000_000));
    assert_eq!(first_after(&log, 2), None);
    assert_eq!(redone_after(&log, 1), 1);
    assert_eq!(redone_after(&log, 2), 0);
    assert_eq!(step_median_s(&log), Some(0.1), "of 100, 60 and 100 ms; the gap between generations is no step");
    assert_eq!(longest_pause_s(&log, 250_000_000, 550_000_000), 0.24);
    assert_eq!(longest_pause_s(&log, 100_000_000, 150_000_000), 0.1);
    assert_eq!(committed(&log, 200_000_000, 600_000_000), 2, "steps 1 and 2");
}
