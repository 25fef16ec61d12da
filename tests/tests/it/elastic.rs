//! Members come and go, processes die and stand still, the coordinator dies: the losses are those of one worker that
//! nobody disturbed, and the audit is clean.
//!
//! A run is paced by `with=hold` faults: worker `w0` waits in a step until the test has seen what it waits for.

use pixfleet_checkpoint::{Folder, leaders};
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::ledger::{History, Record, parse_lines};
use pixfleet_proto::pb;
use pixfleet_tests::fleet::{COORDINATOR, Fleet, Signal};
use pixfleet_tests::poll::wait_for;
use pixfleet_tests::steps::{self, StepLogs};
use pixfleet_tests::{assert_same_losses, dataset, pixfleet, run_file, scratch, succeed, url};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// Steps of a run; 120 scenes in batches of 6 are 20 steps an epoch.
const STEPS: u64 = 40;
const EPOCH: u64 = 20;
/// For what takes a healthy machine a second or two.
const LIMIT: Duration = Duration::from_secs(60);
/// Exit code of a worker that left by request.
const REQUEUE: Option<i32> = Some(75);

/// A run and its processes.
struct Elastic {
    fleet: Fleet,
    logs: StepLogs,
    dir: PathBuf,
    name: String,
    members: BTreeMap<String, u64>,
    /// The coordinator that is to end the run.
    leads: String,
}

impl Elastic {
    fn new(name: &str, overrides: &[&str]) -> Self {
        let dir = scratch().join(name);
        let text = run_file(name, dataset(), &url(&dir.join("store")));
        let steps = format!("schedule.steps={STEPS}");
        let common = [&steps, "train.global_batch=6", "train.join_window_ms=100", "train.digest_every_steps=5"];
        // Nothing hangs here but on purpose.
        let patient = ["train.stall_ms=19000", "train.collective_timeout_ms=20000"];
        let all = common.into_iter().chain(patient).chain(overrides.iter().copied());
        let spec = RunSpec::parse(&text, &all.map(str::to_string).collect::<Vec<_>>()).expect("a valid run file");
        let fleet = Fleet::new(&dir, &spec.to_toml()).expect("scratch is writable");
        let logs = fleet.step_logs();
        Self { fleet, logs, dir, name: name.into(), members: BTreeMap::new(), leads: COORDINATOR.into() }
    }

    /// A coordinator and workers `w0..`, of which `w0` waits in the steps `holds` and others suffer `faults`.
    fn start(name: &str, overrides: &[&str], workers: u32, holds: &[u64], faults: &str) -> Self {
        let mut run = Self::new(name, overrides);
        run.fleet.start_coordinator(workers).expect("a coordinator");
        let holds: Vec<_> = holds.iter().map(|step| format!("w0:step={step}:after=feed:with=hold")).collect();
        let all: Vec<&str> = holds.iter().map(String::as_str).chain((!faults.is_empty()).then_some(faults)).collect();
        for worker in 0..workers {
            run.worker(&format!("w{worker}"), &all.join(","));
        }
        run
    }

    fn worker(&mut self, name: &str, faults: &str) {
        let hold = self.dir.join("go").display().to_string();
        let mut envs = vec![("PIXFLEET_HOLD", hold.as_str())];
        if !faults.is_empty() {
            envs.push(("PIXFLEET_FAULT", faults));
        }
        self.fleet.start_worker(name, &envs).expect("a worker");
    }

    /// Lets `w0` go on with `step`.
    fn release(&self, step: u64) {
        std::fs::write(self.dir.join(format!("go-{step}")), "").expect("scratch is writable");
    }

    fn commits(&mut self) -> &[steps::Commit] {
        self.logs.refresh().expect("readable");
        self.logs.commits()
    }

    /// Waits until `worker` has committed `step`.
    fn until_committed(&mut self, worker: &str, step: u64) {
        let what = format!("{worker} commits step {step} of {}", self.name);
        let there = |c: &steps::Commit| c.worker == worker && c.step == step;
        let found = wait_for(&what, LIMIT, || Ok(self.commits().iter().any(there).then_some(())));
        found.unwrap_or_else(|error| panic!("{error:#}; {:?}", self.fleet.status()));
    }

    /// Waits until the coordinator's view is as `wanted`.
    fn until(&mut self, what: &str, wanted: impl Fn(&pb::StatusReply) -> bool) -> pb::StatusReply {
        let mut last = None;
        let seen = wait_for(what, LIMIT, || {
            last = self.fleet.status()?;
            Ok(last.as_ref().is_some_and(&wanted).then_some(()))
        });
        seen.unwrap_or_else(|error| panic!("{}: {error:#}; {last:?}", self.name));
        let status = last.expect("just seen");
        self.members.extend(status.members.iter().map(|m| (m.name.clone(), m.member)));
        status
    }

    /// Waits until the coordinator sees each of `workers` in `state`.
    fn until_state(&mut self, workers: &[&str], state: &str) {
        let what = format!("{workers:?} are {state}");
        self.until(&what, |status| {
            let is = |name: &&str| status.members.iter().any(|m| m.name == **name && m.state == state);
            workers.iter().all(is)
        });
    }

    fn until_exit(&mut self, worker: &str, code: Option<i32>) {
        let exit = self.fleet.wait(worker, LIMIT).expect("it ends");
        assert_eq!(exit.code(), code, "{}", self.fleet.last_words(&exit));
    }

    /// Starts a coordinator that stands by; the file that will hold its address.
    fn stand_by(&mut self, name: &str) -> PathBuf {
        let file = self.fleet.launch_coordinator(name, 2, &["--standby"]).expect("a coordinator");
        let log = self.fleet.log_of(name);
        let follows = || Ok(std::fs::read_to_string(&log)?.contains("standing by").then_some(()));
        wait_for("it follows the leader", LIMIT, follows).expect("it stands by");
        file
    }

    /// Waits until leader `number` has said where it is: what was started under `name` with this address file. Seconds
    /// since `since`.
    fn led_by(&mut self, number: u64, since: std::time::Instant, (name, file): (&str, &PathBuf)) -> f64 {
        let store = Folder::parse(&url(&self.dir.join("store"))).expect("a URL").join(&self.name);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let newest = || Ok(runtime.block_on(leaders::newest(&store))?.filter(|leader| leader.number == number));
        let leader = wait_for("a takeover", LIMIT, newest).expect("one stands by");
        let took = since.elapsed().as_secs_f64();
        assert_eq!(leader.address, std::fs::read_to_string(file).expect("it listens"), "{name} leads");
        self.fleet.send_workers_to(&leader.address);
        self.leads = name.into();
        took
    }

    /// What the ledger says by now.
    fn records(&self) -> Vec<Record> {
        let ledger = self.dir.join("store").join(&self.name).join("ledger");
        let mut segments: Vec<PathBuf> =
            std::fs::read_dir(ledger).expect("a ledger").map(|e| e.expect("an entry").path()).collect();
        segments.sort();
        let text = |path: &PathBuf| std::fs::read_to_string(path).expect("a segment");
        segments.iter().flat_map(|path| parse_lines(&text(path)).expect("records")).collect()
    }

    /// Waits for the end of the run, and demands that everybody who is left ends well.
    fn done(&mut self) -> Story {
        for name in self.fleet.alive() {
            self.until_exit(&name, Some(0));
        }
        self.until_exit(&self.leads.clone(), Some(0));
        let run = self.dir.join("store").join(&self.name);
        succeed(pixfleet(["audit", &url(&run)]));
        let records = self.records();
        let story = Story { history: History::replay(&records), records };
        assert_eq!(story.losses().keys().copied().collect::<Vec<_>>(), (0..STEPS).collect::<Vec<_>>());
        story
    }

    /// As [`Elastic::done`], and the losses are those of the undisturbed run.
    fn done_as_if_undisturbed(&mut self) -> Story {
        let story = self.done();
        assert_same_losses(undisturbed(), &story.losses(), 1e-4, &self.name);
        story
    }
}

/// What the ledger says in the end.
struct Story {
    history: History,
    records: Vec<Record>,
}

impl Story {
    fn losses(&self) -> BTreeMap<u64, f64> {
        self.history.steps.iter().map(|(step, records)| (step.0, records[0].losses.total)).collect()
    }

    /// Ranks by step, each run of equal numbers once.
    fn worlds(&self, steps: std::ops::Range<u64>) -> Vec<u32> {
        let within = self.history.steps.iter().filter(|(step, _)| steps.contains(&step.0));
        let mut worlds: Vec<u32> = within.map(|(_, records)| records[0].world).collect();
        worlds.dedup();
        worlds
    }

    /// Members that were lost, and how.
    fn lost(&self) -> Vec<(u64, &str)> {
        let lost =
            |r| if let &Record::Lost { member, ref cause, .. } = r { Some((member.0, cause.as_str())) } else { None };
        self.records.iter().filter_map(lost).collect()
    }

    /// Members that left by request, and why.
    fn left(&self) -> Vec<(u64, &str)> {
        let left =
            |r| if let &Record::Left { member, ref reason, .. } = r { Some((member.0, reason.as_str())) } else { None };
        self.records.iter().filter_map(left).collect()
    }
}

/// Losses of one worker that nobody disturbs.
fn undisturbed() -> &'static BTreeMap<u64, f64> {
    static LOSSES: OnceLock<BTreeMap<u64, f64>> = OnceLock::new();
    LOSSES.get_or_init(|| Elastic::start("undisturbed", &[], 1, &[], "").done().losses())
}

#[test]
fn one_four_two_three_workers_within_an_epoch_equal_one() {
    let mut run = Elastic::start("one-four-two-three", &[], 1, &[4, 9, 14], "");
    run.until_committed("w0", 3);
    for joiner in ["w1", "w2", "w3"] {
        run.worker(joiner, "");
    }
    run.until_state(&["w1", "w2", "w3"], "standby");
    run.release(4);
    run.until_committed("w0", 8);
    for leaver in ["w2", "w3"] {
        run.fleet.kill(leaver, Signal::TERM).expect("it runs");
    }
    run.until_state(&["w2", "w3"], "leaving");
    run.release(9);
    run.until_committed("w0", 13);
    run.until_exit("w2", REQUEUE);
    run.until_exit("w3", REQUEUE);
    run.worker("w4", "");
    run.until_state(&["w4"], "standby");
    run.release(14);

    let story = run.done_as_if_undisturbed();
    assert_eq!(story.worlds(0..EPOCH), [1, 4, 2, 3]);
    assert_eq!((story.history.redone, story.history.losses), (0, 0));
    assert_eq!(story.left().len(), 2, "{:?}", story.left());
}

#[test]
fn a_worker_that_is_told_to_go_costs_no_step() {
    let mut run = Elastic::start("told-to-go", &[], 3, &[10], "");
    run.until_committed("w0", 9);
    run.fleet.kill("w1", Signal::TERM).expect("it runs");
    run.until_state(&["w1"], "leaving");
    run.release(10);
    run.until_exit("w1", REQUEUE);

    let story = run.done_as_if_undisturbed();
    assert_eq!(story.left(), [(run.members["w1"], "SIGTERM")]);
    assert_eq!(story.worlds(0..STEPS), [3, 2]);
    assert_eq!((story.history.redone, story.history.losses), (0, 0));
    let commits = run.commits();
    assert_eq!(steps::redone_after(commits, commits[0].generation), 0);
}

#[test]
fn steps_go_on_without_a_coordinator_and_another_one_takes_over() {
    let mut run = Elastic::start("coordinator-killed", &[], 2, &[5, 12], "");
    run.until_committed("w1", 4);
    run.fleet.kill(COORDINATOR, Signal::KILL).expect("it runs");
    let exit = run.fleet.wait(COORDINATOR, LIMIT).expect("killed");
    assert_eq!(exit.signal(), Some(Signal::KILL.as_raw()));
    run.release(5);
    // Seven steps that no coordinator hears of.
    run.until_committed("w0", 11);
    run.until_committed("w1", 11);
    run.fleet.start_coordinator(2).expect("another coordinator");
    run.until_state(&["w0", "w1"], "training");
    run.release(12);

    let story = run.done_as_if_undisturbed();
    assert_eq!(story.history.leader, 2);
    assert_eq!((story.history.redone, story.history.losses), (0, 0));
    let generations: BTreeSet<u64> = run.commits().iter().map(|c| c.generation).collect();
    assert_eq!(generations.len(), 1, "the generation trained on: {generations:?}");
}

/// The leader stands still, then the one that took over is killed: those that stand by need nobody to start them.
#[test]
fn those_that_stand_by_take_over_one_after_the_other() {
    let mut run = Elastic::start("standbys", &[], 2, &[5, 12, 20], "");
    let second = run.stand_by("coordinator-b");
    run.until_committed("w1", 4);
    let stopped = std::time::Instant::now();
    run.fleet.kill(COORDINATOR, Signal::STOP).expect("it runs");
    let took = run.led_by(2, stopped, ("coordinator-b", &second));
    assert!(took <= 3.0, "{took:.2} s of silence; the run's patience is 5 s");
    run.release(5);
    run.until_committed("w1", 11);
    run.until_state(&["w0", "w1"], "training");
    // It wakes, and finds that it leads no more.
    run.fleet.kill(COORDINATOR, Signal::CONT).expect("it is there");
    run.until_exit(COORDINATOR, Some(3));

    let third = run.stand_by("coordinator-c");
    let killed = std::time::Instant::now();
    run.fleet.kill("coordinator-b", Signal::KILL).expect("it runs");
    run.release(12);
    let took = run.led_by(3, killed, ("coordinator-c", &third));
    assert!(took <= 3.0, "{took:.2} s after its death");
    run.until_state(&["w0", "w1"], "training");
    run.release(20);
    let story = run.done_as_if_undisturbed();
    assert_eq!(story.history.leader, 3);
    assert_eq!((story.history.redone, story.history.losses), (0, 0));
    assert_eq!(story.worlds(0..STEPS), [2]);
}

/// The order of the next generation is in all hands; nobody is there when its ranks go over into it.
#[test]
fn a_worker_joins_without_a_coordinator() {
    let mut run = Elastic::start("joins-alone", &[], 2, &[5, 14], "");
    run.until_committed("w1", 4);
    run.worker("w2", "");
    let prepared = |r: &Record| matches!(r, Record::Prepared { .. });
    let recorded = wait_for("a generation is prepared", LIMIT, || Ok(run.records().iter().any(prepared).then_some(())));
    recorded.expect("w2 waits");
    // From the record to the last of three hands, on one machine.
    std::thread::sleep(Duration::from_secs(1));
    run.fleet.kill(COORDINATOR, Signal::KILL).expect("it runs");
    let exit = run.fleet.wait(COORDINATOR, LIMIT).expect("killed");
    assert_eq!(exit.signal(), Some(Signal::KILL.as_raw()));
    run.release(5);
    run.until_committed("w2", 12);
    run.until_committed("w0", 12);
    let formed = |r: &&Record| matches!(r, Record::Formed { .. });
    assert_eq!(run.records().iter().filter(formed).count(), 1, "nobody was there to write it down");

    run.fleet.start_coordinator(2).expect("another coordinator");
    run.until_state(&["w0", "w1", "w2"], "training");
    run.release(14);
    let story = run.done_as_if_undisturbed();
    assert_eq!(story.history.leader, 2);
    assert_eq!(story.worlds(0..STEPS), [2, 3]);
    assert_eq!((story.history.redone, story.history.losses), (0, 0));
}

#[test]
fn a_stopped_worker_is_lost_and_what_it_does_when_it_wakes_counts_for_nothing() {
    let timeout = Duration::from_millis(1500);
    let overrides = ["train.heartbeat_timeout_ms=1500"];
    let mut run = Elastic::start("stopped", &overrides, 3, &[20], "w1:step=7:after=forward:with=stop");
    wait_for("w1 stops", LIMIT, || Ok((run.fleet.state("w1")? == 'T').then_some(()))).expect("SIGSTOP");
    let stopped = steps::now();
    let generation = run.commits()[0].generation;
    let next = wait_for("the others go on", LIMIT, || Ok(steps::first_after(run.commits(), generation).cloned()));
    let pause = steps::seconds(stopped, next.expect("they do").at);
    assert!(pause <= timeout.as_secs_f64() + 1.0, "the others went on after {pause:.2} s");
    run.until_committed("w0", 19);
    run.until("w1 is lost", |status| status.members.iter().all(|m| m.name != "w1"));

    let continued = run.fleet.kill("w1", Signal::CONT).expect("it is there");
    run.until_state(&["w1"], "standby");
    run.release(20);
    let story = run.done_as_if_undisturbed();
    let lost = story.lost();
    assert!(matches!(lost[..], [(_, cause)] if cause.starts_with("no sign of life")), "{lost:?}");
    let of_w1: Vec<_> = run.commits().iter().filter(|c| c.worker == "w1" && c.at > continued).collect();
    assert!(!of_w1.is_empty(), "it trains again");
    assert!(of_w1.iter().all(|c| c.generation > generation), "{of_w1:?}");
}

#[test]
fn a_trainer_that_hangs_is_named_and_the_others_go_on() {
    let overrides = ["train.patience_ms=1400", "train.stall_ms=1500", "train.collective_timeout_ms=4000"];
    let mut run = Elastic::start("hangs", &overrides, 3, &[], "w1:step=7:after=forward:with=hang");
    run.until_state(&["w0", "w1", "w2"], "training");
    let member = run.members["w1"];
    for survivor in ["w0", "w2"] {
        run.until_committed(survivor, STEPS - 1);
    }
    // Nothing but SIGKILL ends a thread that hangs; its process goes when it sees that it is of no use.
    let exit = run.fleet.wait("w1", LIMIT).expect("it ends by itself");
    assert_eq!(exit.signal(), None, "{}", run.fleet.last_words(&exit));
    let story = run.done_as_if_undisturbed();
    let named = |cause: &str| cause.contains("did not leave the generation") && cause.contains("it hangs: step 7");
    assert!(story.lost().iter().any(|&(m, cause)| m == member && named(cause)), "{:?}", story.lost());
    assert_eq!(story.history.redone, 0, "nobody had committed the step that hung");
}

#[test]
fn too_few_workers_checkpoint_and_wait_for_more() {
    let mut run = Elastic::start("too-few", &["train.min_workers=2"], 2, &[8, 16], "");
    run.until_committed("w0", 7);
    run.fleet.kill("w1", Signal::TERM).expect("it runs");
    run.until_state(&["w1"], "leaving");
    run.release(8);
    run.until_exit("w1", REQUEUE);
    let paused = run.until("the run pauses", |status| status.state == "paused");
    assert_eq!(paused.checkpoint_step, Some(paused.next_step), "paused on a checkpoint: {}", paused.message);
    assert!((8..16).contains(&paused.next_step), "{}", paused.next_step);

    // A loss, this time: who is left saves what it holds.
    run.worker("w2", "");
    run.until_committed("w2", 15);
    run.fleet.kill("w2", Signal::KILL).expect("it runs");
    let exit = run.fleet.wait("w2", LIMIT).expect("killed");
    assert_eq!(exit.signal(), Some(Signal::KILL.as_raw()));
    run.release(16);
    let paused = run.until("the run pauses again", |status| status.state == "paused");
    assert_eq!((paused.next_step, paused.checkpoint_step), (16, Some(16)), "{}", paused.message);

    run.worker("w3", "");
    let story = run.done_as_if_undisturbed();
    assert_eq!((story.left().len(), story.lost().len()), (1, 1));
    assert_eq!(story.worlds(0..STEPS), [2]);
}
