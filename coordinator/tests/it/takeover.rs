//! Coordinators die, and more than one believes that it leads.

use crate::support::{Fleet, Worker, audited, formed, leader_that, run, spec, write_index};
use pixfleet_checkpoint::leaders;
use pixfleet_cluster::ledger::Record;
use pixfleet_cluster::run::Outcome;
use pixfleet_cluster::{Generation, Step};
use pixfleet_coordinator::CoordinatorError;
use pixfleet_proto::pb;

/// For members that do come to a new coordinator, however slow the machine is that the test runs on.
const PATIENT: &str = "train.patience_ms=60000";

/// The leaders that opened the run, in order.
fn opened(records: &[Record]) -> Vec<u64> {
    let opened = |r: &Record| if let Record::Opened { leader, .. } = r { Some(*leader) } else { None };
    records.iter().filter_map(opened).collect()
}

fn steps(records: &[Record]) -> Vec<u64> {
    let step = |r: &Record| if let Record::Step(s) = r { Some(s.step.0) } else { None };
    records.iter().filter_map(step).collect()
}

#[tokio::test]
async fn a_coordinator_dies_and_the_workers_train_on() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &["checkpoint.every_steps=100", PATIENT]);
    let first = Fleet::start(spec.clone(), 2).await;
    let mut a = Worker::join(&first, "w0", 1).await;
    let mut b = Worker::join(&first, "w1", 2).await;
    for w in [&mut a, &mut b] {
        w.formed().await;
        w.step().await;
    }
    first.status_that("the first step", |s| s.next_step == 1).await;
    first.kill().await;
    // Nobody listens; the steps go on, and are owed.
    for w in [&mut a, &mut b] {
        assert_eq!(w.hung_up().await, None);
        w.step().await;
        w.step().await;
    }
    let second = Fleet::start(spec.clone(), 2).await;
    let status = second.status().await;
    assert_eq!((status.leader, status.state.as_str(), status.generation), (2, "training", 1));
    assert!(status.members.iter().all(|m| m.state == "away"), "{:?}", status.members);
    let at = leader_that(&spec, "the announcement", |l| l.number == 2).await;
    assert_eq!((at.address.as_str(), at.closed), (second.address.as_str(), None));

    let (mut a, mut b) = (a.come_back(&second).await, b.come_back(&second).await);
    assert_eq!((a.welcome.leader, a.welcome.member.0, b.welcome.member.0), (2, 1, 2));
    for w in [&mut a, &mut b] {
        for _ in 3..6 {
            w.step().await;
        }
    }
    // The next order is the end: no other generation was formed.
    let (x, y) = tokio::join!(a.finish(), b.finish());
    assert_eq!((x, y), (Outcome::Done, Outcome::Done));
    drop((a, b));
    assert_eq!(second.end().await.expect("a clean end").outcome, Outcome::Done);
    let closed = leaders::newest(&run(&spec)).await.expect("readable").expect("announced");
    assert_eq!((closed.number, closed.closed), (2, Some(Outcome::Done)));

    let records = audited(&spec).await;
    assert_eq!((formed(&records), opened(&records)), (vec![(1, 0, 2)], vec![1, 2]));
    assert_eq!(steps(&records), [0, 1, 2, 3, 4, 5], "what nobody heard is in the ledger, once");
    assert!(!records.iter().any(|r| matches!(r, Record::Lost { .. })));
}

#[tokio::test]
async fn a_member_that_does_not_come_to_the_new_coordinator_is_lost() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &[]);
    let first = Fleet::start(spec.clone(), 2).await;
    let mut a = Worker::join(&first, "w0", 1).await;
    let mut b = Worker::join(&first, "w1", 2).await;
    for w in [&mut a, &mut b] {
        w.formed().await;
        w.step().await;
    }
    first.status_that("the first step", |s| s.next_step == 1).await;
    first.kill().await;
    drop(b);
    let second = Fleet::start(spec.clone(), 2).await;
    let mut a = a.come_back(&second).await;
    let order = a.order().await;
    assert!(matches!(order, pixfleet_cluster::run::Order::Abort { generation: Generation(1), .. }), "{order:?}");
    a.leave(pixfleet_cluster::run::LeaveKind::Aborted).await;
    let form = a.formed().await;
    assert_eq!((form.generation, form.start_step, form.world()), (Generation(2), Some(Step(1)), 1));
    for _ in 1..6 {
        a.step().await;
    }
    assert_eq!(a.finish().await, Outcome::Done);
    drop(a);
    second.end().await.expect("a clean end");
    assert_eq!(formed(&audited(&spec).await), [(1, 0, 2), (2, 1, 1)]);
}

#[tokio::test]
async fn a_coordinator_that_still_believes_that_it_leads_writes_nothing() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &["checkpoint.every_steps=100", PATIENT]);
    let older = Fleet::start(spec.clone(), 1).await;
    let mut a = Worker::join(&older, "w0", 1).await;
    a.formed().await;
    let newer = Fleet::start(spec.clone(), 1).await;
    assert_eq!(newer.status().await.leader, 2);
    assert_eq!(older.status().await.leader, 1, "it has not noticed");
    // Its next record meets the newer one's.
    a.step().await;
    assert_eq!(a.hung_up().await, None);
    a.step().await;
    let error = older.end().await.expect_err("deposed");
    assert_eq!(error.exit_code(), 3);
    assert_eq!(
        error.to_string(),
        format!(
            "another coordinator leads the run now: leader 2 at {}; this one, leader 1, has ended and writes nothing \
             more",
            newer.address
        )
    );
    let mut a = a.come_back(&newer).await;
    for _ in 2..6 {
        a.step().await;
    }
    assert_eq!(a.finish().await, Outcome::Done);
    drop(a);
    newer.end().await.expect("a clean end");
    let records = audited(&spec).await;
    assert_eq!((formed(&records), opened(&records)), (vec![(1, 0, 1)], vec![1, 2]));
    assert_eq!(steps(&records), [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn of_many_coordinators_exactly_one_counts() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &[]);
    let mut fleets = Vec::new();
    for _ in 0..4 {
        fleets.push(Fleet::start(spec.clone(), 1).await);
    }
    let mut numbers = Vec::new();
    for fleet in &fleets {
        numbers.push(fleet.status().await.leader);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4], "each of them led, one after the other");
    for fleet in &fleets {
        fleet.control(pb::control_request::Kind::Drain(pb::Drain {})).await;
    }
    let mut clean = 0;
    for fleet in fleets {
        match fleet.end().await {
            Ok(ended) => {
                assert_eq!(ended.outcome, Outcome::Drained);
                clean += 1;
            }
            Err(error) => assert!(matches!(error, CoordinatorError::Deposed { .. }), "{error:?}"),
        }
    }
    assert_eq!(clean, 1);
    let closed = audited(&spec).await.iter().filter(|r| matches!(r, Record::Closed { .. })).count();
    assert_eq!(closed, 1);
}
