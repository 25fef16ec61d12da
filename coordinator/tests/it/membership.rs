//! Members come, go away for a moment, and leave.

use crate::support::{Fleet, Worker, audited, formed, rank, spec, write_index};
use pixfleet_cluster::ledger::Record;
use pixfleet_cluster::run::{Order, Outcome, Report};
use pixfleet_cluster::{Generation, RunSpec, Step};
use pixfleet_proto::pb;

fn count(records: &[Record], what: impl Fn(&Record) -> bool) -> usize {
    records.iter().filter(|r| what(r)).count()
}

/// Trains to the end and looks at what was recorded: every step once.
async fn to_the_end(fleet: Fleet, spec: &RunSpec, mut workers: Vec<Worker>) -> Vec<Record> {
    for w in &mut workers {
        while w.at.is_some_and(|at| at.0 < 6) {
            w.step().await;
        }
        w.finished().await;
    }
    for mut w in workers {
        let Order::Stop { outcome, .. } = w.order().await else { panic!("expected the end") };
        assert_eq!(outcome, Outcome::Done);
    }
    fleet.end().await.expect("a clean end");
    let records = audited(spec).await;
    assert_eq!(count(&records, |r| matches!(r, Record::Step(_))), 6, "no step was done twice");
    records
}

async fn leaving(w: &Worker) {
    w.say(Report::Leaving { reason: "SIGTERM".into() }).await;
}

#[tokio::test]
async fn a_session_that_breaks_and_returns_is_no_event() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &["train.patience_ms=50000"]);
    let fleet = Fleet::start(spec.clone(), 2).await;
    let mut a = Worker::join(&fleet, "w0", 1).await;
    let mut b = Worker::join(&fleet, "w1", 2).await;
    for w in [&mut a, &mut b] {
        w.formed().await;
        w.step().await;
    }
    fleet.status_that("the first step", |s| s.members.iter().all(|m| m.next_step == Some(1))).await;
    // One breaks before it comes back, the other one is back before anybody has noticed.
    let broken = b.cut();
    fleet.status_that("the break", |s| s.members[1].state == "away").await;
    let b = broken.come_back(&fleet).await;
    let a = a.come_back(&fleet).await;
    let status = fleet.status_that("the return", |s| s.members.iter().all(|m| m.state == "training")).await;
    assert_eq!((status.members.len(), status.losses_of_members, status.generation), (2, 0, 1));
    let records = to_the_end(fleet, &spec, vec![a, b]).await;
    assert_eq!(formed(&records), [(1, 0, 2)]);
    assert_eq!(count(&records, |r| matches!(r, Record::Lost { .. })), 0);
}

#[tokio::test]
async fn a_member_leaves_at_a_step_boundary_and_costs_no_step() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &[]);
    let fleet = Fleet::start(spec.clone(), 2).await;
    let mut a = Worker::join(&fleet, "w0", 1).await;
    let mut b = Worker::join(&fleet, "w1", 2).await;
    for w in [&mut a, &mut b] {
        w.formed().await;
        w.step().await;
    }
    leaving(&b).await;
    let form = a.go_over().await.expect("it stays");
    assert_eq!(b.go_over().await, None);
    let order = b.order().await;
    assert_eq!(order, Order::Stop { outcome: Outcome::Drained, message: String::new() });
    assert_eq!((form.generation, form.world(), form.source), (Generation(2), 1, rank(0)));
    assert!(form.receivers.is_empty(), "nobody needs its state");
    let records = to_the_end(fleet, &spec, vec![a]).await;
    assert_eq!(formed(&records), [(1, 0, 2), (2, 1, 1)]);
    let left = |r: &Record| matches!(r, Record::Left { reason, .. } if reason == "SIGTERM");
    assert_eq!((count(&records, left), count(&records, |r| matches!(r, Record::Lost { .. }))), (1, 0));
}

#[tokio::test]
async fn a_joiner_is_taken_in_at_a_step_boundary() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &["train.join_window_ms=20"]);
    let fleet = Fleet::start(spec.clone(), 1).await;
    let mut a = Worker::join(&fleet, "w0", 1).await;
    a.formed().await;
    a.step().await;
    let mut b = Worker::join(&fleet, "w1", 2).await;
    let form_b = b.hold().await;
    let form_a = a.go_over().await.expect("it stays");
    b.join_in(form_b.clone(), Step(1)).await;
    assert_eq!((form_a.generation, form_a.world()), (Generation(2), 2));
    assert!(form_b.needs_state() && !form_a.needs_state());
    let records = to_the_end(fleet, &spec, vec![a, b]).await;
    assert_eq!(formed(&records), [(1, 0, 1), (2, 1, 2)]);
}

#[tokio::test]
async fn below_the_minimum_the_run_checkpoints_pauses_and_goes_on_with_the_next_that_comes() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &["train.min_workers=2"]);
    let fleet = Fleet::start(spec.clone(), 2).await;
    let mut a = Worker::join(&fleet, "w0", 1).await;
    let mut b = Worker::join(&fleet, "w1", 2).await;
    for w in [&mut a, &mut b] {
        w.formed().await;
        w.step().await;
    }
    leaving(&b).await;
    for w in [&mut a, &mut b] {
        assert_eq!(w.order().await, Order::Yield { generation: Generation(1) });
        w.part().await;
        w.finished().await;
    }
    assert!(matches!(b.order().await, Order::Stop { outcome: Outcome::Drained, .. }));
    let status = fleet.status_that("the pause", |s| s.state == "paused").await;
    assert_eq!((status.checkpoint_step, status.members.len()), (Some(1), 1));
    assert!(status.message.starts_with("paused: 1 of at least 2 workers are left"), "{}", status.message);

    let mut c = Worker::join(&fleet, "w2", 3).await;
    let (form_a, form_c) = (a.formed().await, c.formed().await);
    assert_eq!((form_a.generation, form_a.start_step, form_c.world()), (Generation(2), Some(Step(1)), 2));
    let records = to_the_end(fleet, &spec, vec![a, c]).await;
    assert_eq!(formed(&records), [(1, 0, 2), (2, 1, 2)]);
}

#[tokio::test]
async fn an_exit_that_its_parent_saw_needs_no_grace() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &["train.patience_ms=50000"]);
    let fleet = Fleet::start(spec.clone(), 2).await;
    let mut a = Worker::join(&fleet, "w0", 1).await;
    let mut b = Worker::join(&fleet, "w1", 2).await;
    a.formed().await;
    b.formed().await;
    fleet.status_that("the group", |s| s.state == "training").await;
    drop(b);
    fleet.status_that("the break", |s| s.members[1].state == "away").await;
    let exit = pb::MemberExit { host: "here".into(), pid: 2, how: "killed by signal 9".into() };
    fleet.control(pb::control_request::Kind::MemberExit(exit)).await;
    let Order::Abort { cause, .. } = a.order().await else { panic!("expected an abort") };
    assert_eq!(cause, "w1 was lost: its process ended: killed by signal 9");
}
