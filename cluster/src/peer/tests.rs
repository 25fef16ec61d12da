//! A worker on a virtual clock.

use super::*;
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::run::{Form, Join, LeaveKind, Left, MeetingPoint, Order, Outcome, Report, Standing, StepReport, Welcome};
use crate::spec::{Ladder, Rung};
use std::time::Duration;

const G: Generation = Generation(4);

fn welcome(leader: u64) -> PeerEvent {
    let (run, spec_toml, spec_digest, dataset_digest) = <(String, String, String, String)>::default();
    let member = MemberId(7);
    let welcome = Welcome { member, leader, run, spec_toml, spec_digest, dataset_digest, heartbeat_ms: 1000 };
    PeerEvent::Ordered(Order::Welcome(welcome))
}

fn form() -> Form {
    Form {
        generation: G,
        rank: Rank(0),
        members: [MemberId(7)].into(),
        meets_at: MeetingPoint::default(),
        start_step: Some(Step(0)),
        source: None,
        receivers: [].into(),
        resume_from: None,
        checkpoint_only: false,
    }
}

fn step(step: u64) -> StepReport {
    StepReport { generation: G, step: Step(step), ..StepReport::default() }
}

fn sent(effects: &[PeerEffect]) -> Vec<Report> {
    effects.iter().filter_map(|e| if let PeerEffect::Send(report) = e { Some(report.clone()) } else { None }).collect()
}

/// A worker that has committed `steps` steps in a generation of the first leader.
fn training(steps: u64) -> Peer {
    let mut peer = Peer::new(Duration::ZERO, Join::default(), Ladder::default());
    let now = Duration::ZERO;
    assert_eq!(peer.handle(now, PeerEvent::Tick), [PeerEffect::Connect]);
    assert!(matches!(sent(&peer.handle(now, PeerEvent::Connected))[..], [Report::Join(Join { member: None, .. })]));
    assert_eq!(peer.handle(now, welcome(1)), []);
    let free = Standing::Free { next_step: None, digest: None };
    assert_eq!(sent(&peer.handle(now, PeerEvent::Trainer(Word::Warm))), [Report::Standing(free)]);
    assert_eq!(peer.handle(now, PeerEvent::Ordered(Order::Form(form()))), [PeerEffect::Train(form())]);
    peer.handle(now, PeerEvent::Trainer(Word::Ready { generation: G, next_step: Step(0) }));
    for s in 0..steps {
        assert_eq!(sent(&peer.handle(now, PeerEvent::Trainer(Word::Committed(step(s))))), [Report::Committed(step(s))]);
    }
    peer
}

fn reconnect(peer: &mut Peer, at: Duration, leader: u64) -> Vec<PeerEffect> {
    let at = peer.deadline().expect("it tries again").max(at);
    assert_eq!(peer.handle(at, PeerEvent::Tick), [PeerEffect::Connect]);
    peer.handle(at, PeerEvent::Connected);
    peer.handle(at, welcome(leader))
}

#[test]
fn what_no_ledger_holds_is_told_to_the_next_leader_before_anything_else() {
    let mut peer = training(3);
    peer.handle(Duration::ZERO, PeerEvent::Ordered(Order::Recorded { through: Step(0) }));
    peer.handle(Duration::ZERO, PeerEvent::Broken { how: "reset".into() });
    assert_eq!(peer.handle(Duration::ZERO, PeerEvent::Trainer(Word::Committed(step(3)))), [], "kept");
    let told = sent(&reconnect(&mut peer, Duration::ZERO, 2));
    let expected: Vec<_> = (1..4).map(|s| Report::Committed(step(s))).collect();
    assert_eq!(told[..3], expected);
    assert_eq!(told[3], Report::Standing(Standing::Training { generation: G, next_step: Step(4) }));
}

#[test]
fn a_deposed_leader_is_not_obeyed() {
    let mut peer = training(1);
    peer.handle(Duration::ZERO, PeerEvent::Broken { how: "reset".into() });
    reconnect(&mut peer, Duration::ZERO, 3);
    peer.handle(Duration::from_secs(1), PeerEvent::Broken { how: "reset".into() });
    assert_eq!(reconnect(&mut peer, Duration::from_secs(1), 2), [PeerEffect::HangUp]);
    assert_eq!(peer.handle(Duration::from_secs(1), PeerEvent::Ordered(Order::Form(form()))), []);
}

#[test]
fn whoever_was_stopped_for_too_long_leaves_first() {
    let mut peer = training(1);
    let effects = peer.handle(Ladder::default()[Rung::HeartbeatTimeout], PeerEvent::Tick);
    assert_eq!(effects[0], PeerEffect::Abort(G));
    let mut peer = training(1);
    assert!(
        !peer.handle(Ladder::default()[Rung::HeartbeatTimeout] / 2, PeerEvent::Tick).contains(&PeerEffect::Abort(G))
    );
}

#[test]
fn what_is_waited_for_grows_with_the_own_steps() {
    let mut peer = training(0);
    let committed = |s: u64, seconds: f64| PeerEvent::Trainer(Word::Committed(StepReport { seconds, ..step(s) }));
    assert_eq!((peer.limit(Rung::Reaction), peer.outgrown()), (Ladder::default()[Rung::Reaction], None));
    for s in 0..5 {
        // The first one is far off, as first steps are.
        peer.handle(Duration::ZERO, committed(s, if s == 0 { 900.0 } else { 20.0 }));
    }
    assert_eq!(peer.limit(Rung::Reaction), Duration::from_secs(200));
    assert_eq!(peer.limit(Rung::HeartbeatTimeout), Duration::from_secs(5));
    assert!(peer.outgrown().expect("five steps take longer than a collective may").contains("100000"));
}

#[test]
fn patience_without_a_coordinator_ends() {
    let mut peer = training(0);
    let mut now = Duration::ZERO;
    peer.handle(now, PeerEvent::Broken { how: "reset".into() });
    let exit = loop {
        now = peer.deadline().expect("it goes on");
        match &peer.handle(now, PeerEvent::Tick)[..] {
            [PeerEffect::Connect] => {}
            [] => continue,
            other => panic!("{other:?}"),
        }
        if let [exit] = &peer.handle(now, PeerEvent::Broken { how: "refused".into() })[..] {
            break exit.clone();
        }
    };
    let patience = Ladder::default()[Rung::CoordinatorPatience];
    assert!(now >= patience && now < patience + Duration::from_secs(3), "{now:?}");
    let message = "no coordinator for 600 s: refused".to_string();
    assert_eq!(exit, PeerEffect::Exit { outcome: Outcome::Fault, message });
}

/// Attempts within a minute without a coordinator.
fn attempts(peer: &mut Peer) -> usize {
    let mut attempts = 0;
    while let Some(now) = peer.deadline().filter(|now| *now < Duration::from_secs(60)) {
        if peer.handle(now, PeerEvent::Tick).contains(&PeerEffect::Connect) {
            attempts += 1;
            peer.handle(now, PeerEvent::Broken { how: "refused".into() });
        }
    }
    attempts
}

#[test]
fn who_is_parked_looks_for_a_coordinator_more_often() {
    let mut trains = training(3);
    trains.handle(Duration::ZERO, PeerEvent::Broken { how: "reset".into() });
    let mut parked = training(3);
    parked.handle(Duration::ZERO, PeerEvent::Broken { how: "reset".into() });
    let left = Left {
        generation: G,
        next_step: Some(Step(3)),
        digest: None,
        kind: LeaveKind::Collective,
        message: String::new(),
        lost_rank: None,
    };
    parked.handle(Duration::ZERO, PeerEvent::Trainer(Word::Left(left)));
    let (trains, parked) = (attempts(&mut trains), attempts(&mut parked));
    assert!((60..=70).contains(&trains) && (300..=310).contains(&parked), "{trains} and {parked} a minute");
}

#[test]
fn leaving_an_old_generation_does_not_undo_the_order_to_the_next() {
    let mut peer = training(1);
    let next = Form { generation: G.next(), ..form() };
    peer.handle(Duration::ZERO, PeerEvent::Ordered(Order::Form(next)));
    let left = Left {
        generation: G,
        next_step: Some(Step(1)),
        digest: None,
        kind: LeaveKind::Aborted,
        message: String::new(),
        lost_rank: None,
    };
    peer.handle(Duration::ZERO, PeerEvent::Trainer(Word::Left(left)));
    peer.handle(Duration::ZERO, PeerEvent::Broken { how: "reset".into() });
    let told = sent(&reconnect(&mut peer, Duration::ZERO, 1));
    assert_eq!(told.last(), Some(&Report::Standing(Standing::Forming { generation: G.next() })));
}
