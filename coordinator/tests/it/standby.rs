//! Coordinators that stand by: one leads, the others follow it, and one of them takes over when it is gone.

use crate::support::{Fleet, Worker, audited, formed, leader_that, spec, write_index};
use pixfleet_cluster::ledger::Record;
use pixfleet_cluster::run::Outcome;
use pixfleet_proto::{FleetError, pb};
use std::time::{Duration, Instant};

/// What it says instead of its status, once it stands by.
async fn refusal(fleet: &Fleet) -> String {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let asked = fleet.client().await.status(pb::StatusRequest {}).await.map_err(FleetError::from);
        match asked {
            Err(error) if error.to_string().contains("stands by") => return error.to_string(),
            other => assert!(Instant::now() < limit, "it does not stand by: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn opened(records: &[Record]) -> Vec<u64> {
    records.iter().filter_map(|r| if let Record::Opened { leader, .. } = r { Some(*leader) } else { None }).collect()
}

#[tokio::test]
async fn of_two_that_start_at_once_one_leads_and_the_other_follows_it_to_the_end() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &[]);
    let (a, b) = tokio::join!(Fleet::stand_by(spec.clone(), 1), Fleet::stand_by(spec.clone(), 1));
    let leader = leader_that(&spec, "a leader", |_| true).await;
    assert_eq!(leader.number, 1);
    let (leads, follows) = if leader.address == a.address { (a, b) } else { (b, a) };
    assert_eq!(leads.status().await.leader, 1);
    let refused = refusal(&follows).await;
    assert!(refused.contains(&format!("leader 1 is at {}", leads.address)), "{refused}");
    let drain = pb::ControlRequest { kind: Some(pb::control_request::Kind::Drain(pb::Drain {})) };
    assert!(follows.client().await.control(drain).await.is_err(), "who stands by passes nothing on, and says so");

    let mut w = Worker::join(&leads, "w0", 1).await;
    w.formed().await;
    for _ in 0..6 {
        w.step().await;
    }
    assert_eq!(w.finish().await, Outcome::Done);
    drop(w);
    assert_eq!(leads.end().await.expect("a clean end").outcome, Outcome::Done);
    assert_eq!(follows.end().await.expect("a clean end").outcome, Outcome::Done);
    assert_eq!(opened(&audited(&spec).await), [1]);
}

#[tokio::test]
async fn one_that_stands_by_takes_over_when_the_leader_dies() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &["checkpoint.every_steps=100"]);
    let first = Fleet::start(spec.clone(), 1).await;
    let mut w = Worker::join(&first, "w0", 1).await;
    w.formed().await;
    w.step().await;
    let mut standbys = Vec::new();
    for _ in 0..3 {
        standbys.push(Fleet::stand_by(spec.clone(), 1).await);
    }
    for fleet in &standbys {
        refusal(fleet).await;
    }
    let killed = Instant::now();
    first.kill().await;
    w.step().await;
    let newer = leader_that(&spec, "the takeover", |l| l.number == 2).await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let at = standbys.iter().position(|fleet| fleet.address == newer.address).expect("one of them");
    let leads = standbys.swap_remove(at);
    let mut w = w.come_back(&leads).await;
    for _ in 2..6 {
        w.step().await;
    }
    assert_eq!(w.finish().await, Outcome::Done);
    drop(w);
    for fleet in standbys.into_iter().chain([leads]) {
        assert_eq!(fleet.end().await.expect("a clean end").outcome, Outcome::Done);
    }
    let records = audited(&spec).await;
    assert_eq!((formed(&records), opened(&records)), (vec![(1, 0, 1)], vec![1, 2]), "nothing was formed anew");
}

#[tokio::test]
async fn a_leader_that_another_one_deposes_stands_by_and_may_lead_again() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &["checkpoint.every_steps=100", "train.patience_ms=10000"]);
    let first = Fleet::stand_by(spec.clone(), 1).await;
    let mut w = Worker::join(&first, "w0", 1).await;
    w.formed().await;
    // One that does not stand by takes the run, as it was told; its next record meets the newer one's.
    let second = Fleet::start(spec.clone(), 1).await;
    assert_eq!(second.status().await.leader, 2);
    w.step().await;
    assert!(refusal(&first).await.contains("leader 2"));
    let mut w = w.come_back(&second).await;
    w.step().await;
    second.status_that("its steps", |s| s.next_step == 2).await;
    second.kill().await;
    leader_that(&spec, "the first again", |l| l.number == 3 && l.address == first.address).await;
    let mut w = w.come_back(&first).await;
    for _ in 2..6 {
        w.step().await;
    }
    assert_eq!(w.finish().await, Outcome::Done);
    drop(w);
    assert_eq!(first.end().await.expect("a clean end").outcome, Outcome::Done);
    let records = audited(&spec).await;
    assert_eq!((formed(&records), opened(&records)), (vec![(1, 0, 1)], vec![1, 2, 3]));
}

#[tokio::test]
async fn one_that_stands_by_ends_with_the_run_that_was_drained_and_leads_it_when_started_anew() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &[]);
    let leads = Fleet::start(spec.clone(), 1).await;
    assert_eq!(leads.status().await.leader, 1);
    let follows = Fleet::stand_by(spec.clone(), 1).await;
    refusal(&follows).await;
    leads.control(pb::control_request::Kind::Drain(pb::Drain {})).await;
    assert_eq!(leads.end().await.expect("a clean end").outcome, Outcome::Drained);
    assert_eq!(follows.end().await.expect("a clean end").outcome, Outcome::Drained);
    let again = Fleet::stand_by(spec.clone(), 1).await;
    assert_eq!(again.status().await.leader, 2);
    again.drain.send(()).expect("it listens");
}
