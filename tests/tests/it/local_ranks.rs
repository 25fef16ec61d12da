//! Workers of one machine: each is told its place among them, from which its GPU follows, and the same one in every life.

use pixfleet_tests::poll::wait_for;
use pixfleet_tests::{Log, TestRun};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// `/proc/<pid>/<file>` of NUL-separated words; none if the process is gone.
fn words(pid: u32, file: &str) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).split('\0').map(str::to_string).collect()
}

/// Workers that `parent` has started and that live: process id, name, `LOCAL_RANK`.
fn workers(parent: u32) -> Vec<(u32, String, Option<String>)> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let worker = |pid: u32| {
        let line = words(pid, "cmdline");
        let name = line.iter().skip_while(|word| *word != "--name").nth(1)?.clone();
        // Gone meanwhile: nothing is known of it.
        let environment = Some(words(pid, "environ")).filter(|words| words.len() > 1)?;
        let rank = environment.iter().find_map(|v| v.strip_prefix("LOCAL_RANK=").map(str::to_string));
        Some((pid, name, rank))
    };
    children.split_whitespace().filter_map(|pid| worker(pid.parse().ok()?)).collect()
}

#[test]
fn a_worker_keeps_its_local_rank_when_it_is_started_again() {
    let run = TestRun::new("local-ranks");
    let mut train = run.train(2);
    train.args(["--respawn", "1"]).env("PIXFLEET_FAULT", "w1:step=3:after=forward");
    // What a launcher has said of this program is not true of its children.
    train.env("LOCAL_RANK", "7").stdout(Stdio::piped());
    let mut child = train.spawn().expect("it starts");
    let mut lives: BTreeMap<String, BTreeSet<(u32, Option<String>)>> = BTreeMap::new();
    wait_for("the end of the run", LIMIT, || {
        for (pid, name, rank) in workers(child.id()) {
            lives.entry(name).or_default().insert((pid, rank));
        }
        Ok(child.try_wait()?)
    })
    .expect("it ends");
    let output = child.wait_with_output().expect("it has ended");
    assert!(output.status.success(), "{}", output.status);
    let log = Log::parse(&output.stdout);
    assert!(log.lines.iter().any(|l| l["event"] == "respawned" && l["worker"] == "w1"), "w1 was started again");
    for (name, rank, count) in [("w0", "0", 1), ("w1", "1", 2)] {
        let told: Vec<_> = lives.get(name).into_iter().flatten().map(|(_, rank)| rank.as_deref()).collect();
        assert_eq!(told, vec![Some(rank); count], "{name}: {lives:?}");
    }
}
