//! What a user reads when something is wrong before training can begin. (Bad data: `shards/tests/it/bad_input.rs`.)

use pixfleet_tests::{Log, TestRun, dataset, pixfleet, succeed, url};
use std::net::TcpListener;
use std::process::Command;

/// Standard error of a command that must fail.
fn refused(mut command: Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(!output.status.success(), "{command:?} must fail; it printed {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn with(run: &TestRun, sets: &[&str]) -> Command {
    let mut command = run.train(1);
    for set in sets {
        command.args(["--set", set]);
    }
    command
}

#[test]
fn every_unknown_key_is_named_at_once() {
    let said = refused(with(&TestRun::new("keys"), &["data.flip=true", "train.lanes=5", "train.stall_ms=4000"]));
    for line in [
        "data.flip: unknown key; see `pixfleet train --print-plan` for all keys",
        "train.lanes: 5 does not divide train.global_batch = 24",
        "train.stall_ms: the stall of 4000 ms (set by train.stall_ms) must be more than the heartbeat timeout of 5000 ms",
    ] {
        assert!(said.contains(line), "missing: {line}\nin: {said}");
    }
}

#[test]
fn the_plan_that_is_printed_is_a_run_file() {
    let run = TestRun::new("plan");
    let mut print = run.train(1);
    print.arg("--print-plan");
    let plan = String::from_utf8(succeed(print).stdout).expect("TOML is text");
    let spec = pixfleet_cluster::RunSpec::parse(&plan, &[]).expect("the plan parses back");
    for line in spec.ladder().to_string().lines() {
        assert!(plan.contains(&format!("# {line}\n")), "missing: {line}\nin: {plan}");
    }
    assert!(plan.contains("# What train.reduce promises:\n# fast: "), "{plan}");
}

#[test]
fn a_dataset_without_an_index_says_what_to_run() {
    let empty = TestRun::new("no-index");
    let nowhere = url(&empty.dir.join("nothing"));
    let said = refused(with(&empty, &[&format!("data.url={nowhere}")]));
    assert!(said.contains(&format!("run `pixfleet shards index {nowhere}`")), "{said}");
}

#[test]
fn a_coordinator_that_is_not_there_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let address = format!("http://127.0.0.1:{port}");
    let said = refused(pixfleet(["worker", "--coordinator", &address]));
    assert!(said.contains(&format!("no coordinator answers at {address}")), "{said}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let run = TestRun::new("taken");
    let mut coordinator = pixfleet(["coordinator", "--spec"]);
    coordinator.arg(run.dir.join("run.toml")).args(["--listen", &address, "--expect", "1"]);
    let said = refused(coordinator);
    let expected =
        format!("{address} is taken by another program; give another port with --listen, or port 0 for any free one");
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    // Root may write anywhere but into the kernel's own file system.
    let said = refused(with(&TestRun::new("denied"), &["run.store=file:///proc/pixfleet"]));
    assert!(said.contains("/proc/pixfleet"), "{said}");
}

#[test]
fn a_bad_row_is_replaced_and_written_into_the_ledger() {
    let run = TestRun::new("bad-row");
    let data = run.dir.join("data");
    let copy = Command::new("cp").arg("-r").arg(dataset().trim_start_matches("file://")).arg(&data).status();
    assert!(copy.expect("cp runs").success());
    spoil_a_picture(&data.join("train/part-00000.parquet"));
    succeed(pixfleet(["shards", "index", &url(&data)]));

    let here = url(&data);
    let log = Log::parse(&succeed(with(&run, &[&format!("data.url={here}")])).stdout);
    assert_eq!(log.losses().len(), 20);
    let substituted: u64 = log.lines.iter().filter_map(|l| l["substitutions"].as_u64()).sum();
    assert!(substituted >= 1, "four epochs must meet the bad row");
    let audit = succeed(pixfleet(["audit", &run.url()]));
    let said = String::from_utf8_lossy(&audit.stdout).into_owned() + &String::from_utf8_lossy(&audit.stderr);
    assert!(said.contains("substitut"), "the audit names substitutions: {said}");
}

/// Overwrites the head of the first JPEG or PNG in a Parquet file; sizes and pages stay as they are.
fn spoil_a_picture(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).expect("the shard is there");
    let magics: [&[u8]; 3] = [b"\xFF\xD8\xFF\xE0", b"\x89PNG\r\n\x1a\n", b"WEBPVP8"];
    let at =
        magics.iter().find_map(|m| bytes.windows(m.len()).position(|w| w == *m)).expect("a picture is stored plainly");
    bytes[at..at + 4].fill(0);
    std::fs::write(path, bytes).expect("scratch is writable");
}
