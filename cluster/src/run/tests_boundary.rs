//! Members that come and go while a generation trains, sessions that break, and runs that pause.

use super::tests::{BRIEF, Desk, SILENCE, aborted, config, forms};
use super::*;
use crate::ids::{Generation, MemberId, Step};
use crate::ledger::Record;

fn yields(effects: &[RunEffect]) -> Vec<(u64, bool)> {
    let asked = |e: &RunEffect| match e {
        RunEffect::Send { member, order: Order::Yield { checkpoint, .. } } => Some((member.0, *checkpoint)),
        _ => None,
    };
    effects.iter().filter_map(asked).collect()
}

#[test]
fn a_generation_is_ended_at_a_step_boundary_for_those_that_have_waited() {
    let mut desk = Desk::training(2, 3);
    assert!(yields(&desk.join(3)).is_empty(), "others may come in a moment");
    desk.now += BRIEF;
    let due = desk.event(RunEvent::Tick);
    assert_eq!(yields(&due), [(1, false), (2, false)]);
    desk.commit(1, 1, 3);
    desk.commit(2, 1, 3);
    assert!(aborted(&desk.leave(1, 1, Some(4), LeaveKind::Boundary)).is_empty(), "the other leaves by itself");
    let formed = forms(&desk.leave(2, 1, Some(4), LeaveKind::Boundary));
    assert_eq!((formed.len(), formed[0].1.start_step), (3, Step(4)));
    assert_eq!(desk.run.losses(), 0);
}

#[test]
fn a_member_that_leaves_costs_no_step() {
    let mut desk = Desk::training(3, 3);
    let asked = desk.say(2, Report::Leaving { reason: "SIGTERM".into() });
    assert_eq!(yields(&asked), [(1, false), (2, false), (3, false)]);
    for m in 1..=3 {
        desk.commit(m, 1, 3);
    }
    for m in 1..=2 {
        desk.leave(m, 1, Some(4), LeaveKind::Boundary);
    }
    let effects = desk.leave(3, 1, Some(4), LeaveKind::Boundary);
    let stop = Order::Stop { outcome: Outcome::Drained, message: String::new() };
    assert!(effects.contains(&RunEffect::Send { member: MemberId(2), order: stop }));
    let formed = forms(&effects);
    assert_eq!((formed.len(), formed[0].1.start_step, formed[0].1.receivers.len()), (2, Step(4), 0));
    let left = |e: &RunEffect| matches!(e, RunEffect::Ledger(Record::Left { member: MemberId(2), .. }));
    assert!(desk.log.iter().any(left) && desk.run.losses() == 0);
}

#[test]
fn below_the_minimum_the_run_checkpoints_and_waits() {
    let mut desk = Desk::new(RunConfig { min_workers: 2, ..config(2) });
    desk.join(1);
    desk.join(2);
    for m in 1..=2 {
        desk.ready(m, 1, 0);
        desk.commit(m, 1, 0);
    }
    desk.lose(2);
    let formed = forms(&desk.leave(1, 1, Some(1), LeaveKind::Aborted));
    assert!(formed[0].1.checkpoint_only, "what one survivor holds is made safe");
    desk.ready(1, 2, 1);
    desk.part(1, 2, 1, 0);
    desk.finish(1, 2, 1);
    desk.stored(2, 1);
    assert_eq!((desk.run.phase(), desk.run.state()), (Phase::Gathering, "paused"));
    assert!(desk.run.message().starts_with("paused: 1 of at least 2 workers are left, checkpointed at step 1"));
    let formed = forms(&desk.join(3));
    assert_eq!((formed.len(), formed[0].1.start_step, formed[0].1.checkpoint_only), (2, Step(1), false));
}

#[test]
fn the_last_member_that_leaves_checkpoints_first() {
    let mut desk = Desk::training(1, 3);
    assert_eq!(yields(&desk.say(1, Report::Leaving { reason: "spot notice".into() })), [(1, true)]);
    desk.commit(1, 1, 3);
    desk.part(1, 1, 4, 0);
    desk.finish(1, 1, 4);
    let stop = Order::Stop { outcome: Outcome::Drained, message: String::new() };
    assert!(desk.stored(1, 4).contains(&RunEffect::Send { member: MemberId(1), order: stop }));
    assert_eq!(desk.run.phase(), Phase::Gathering);
    let formed = forms(&desk.join(2));
    assert_eq!((formed[0].1.start_step, formed[0].1.resume_from.clone()), (Step(4), Some("m4".into())));
}

#[test]
fn a_session_that_breaks_and_comes_back_costs_nothing() {
    let mut desk = Desk::training(2, 3);
    let gone = RunEvent::Disconnected { member: MemberId(2), how: "reset".into() };
    assert!(desk.event(gone.clone()).is_empty());
    desk.commit(1, 1, 3);
    desk.arrive(2, Some(2));
    desk.commit(2, 1, 2);
    assert!(desk.commit(2, 1, 3).iter().any(|e| matches!(e, RunEffect::Ledger(Record::Step(_)))));
    desk.stand(2, Standing::Training { generation: Generation(1), next_step: Step(4) });
    assert_eq!((desk.run.phase(), desk.run.losses()), (Phase::Training(Generation(1)), 0));

    desk.event(gone);
    desk.now += BRIEF;
    assert_eq!(aborted(&desk.event(RunEvent::Tick)), [1]);
    assert_eq!(desk.run.losses(), 1);
}

#[test]
fn a_session_that_breaks_is_a_loss_as_soon_as_a_peer_says_so() {
    let mut desk = Desk::training(2, 3);
    desk.event(RunEvent::Disconnected { member: MemberId(2), how: "reset".into() });
    let formed = forms(&desk.leave(1, 1, Some(3), LeaveKind::Collective));
    assert_eq!((formed.len(), desk.run.losses()), (1, 1));
}

#[test]
fn if_all_leave_at_one_boundary_they_checkpoint_before_they_go() {
    let mut desk = Desk::training(2, 3);
    let reason = "SIGTERM".to_string();
    assert_eq!(yields(&desk.say(1, Report::Leaving { reason: reason.clone() })), [(1, false), (2, false)]);
    desk.commit(1, 1, 3);
    desk.commit(2, 1, 3);
    // The second notice comes when the first boundary is reached already.
    desk.leave(1, 1, Some(4), LeaveKind::Boundary);
    desk.say(2, Report::Leaving { reason });
    let formed = forms(&desk.leave(2, 1, Some(4), LeaveKind::Boundary));
    assert!(formed.len() == 2 && formed.iter().all(|(_, f)| f.checkpoint_only), "{formed:?}");
    for m in 1..=2 {
        desk.ready(m, 2, 4);
        desk.part(m, 2, 4, m as u32 - 1);
        desk.finish(m, 2, 4);
    }
    let effects = desk.stored(2, 4);
    let stops = effects.iter().filter(|e| matches!(e, RunEffect::Send { order: Order::Stop { .. }, .. })).count();
    assert_eq!((stops, desk.run.phase()), (2, Phase::Gathering));
}

#[test]
fn the_only_one_that_trains_checkpoints_for_those_who_wait() {
    let mut desk = Desk::training(1, 3);
    desk.join(2);
    assert_eq!(yields(&desk.say(1, Report::Leaving { reason: "SIGTERM".into() })), [(1, true)]);
    desk.commit(1, 1, 3);
    desk.part(1, 1, 4, 0);
    desk.finish(1, 1, 4);
    let effects = desk.stored(1, 4);
    let stop = Order::Stop { outcome: Outcome::Drained, message: String::new() };
    assert!(effects.contains(&RunEffect::Send { member: MemberId(1), order: stop }));
    let formed = forms(&effects);
    assert_eq!((formed.len(), formed[0].1.start_step), (1, Step(4)), "no step is done again");
    assert_eq!(formed[0].1.resume_from.as_deref(), Some("m4"));
}

/// The boundary was meant for those who wait; whoever trained leaves at it.
#[test]
fn who_leaves_last_hands_over_first() {
    let mut desk = Desk::training(1, 3);
    desk.join(2);
    desk.now += BRIEF;
    assert_eq!(yields(&desk.event(RunEvent::Tick)), [(1, false)]);
    desk.commit(1, 1, 3);
    let mut formed = forms(&desk.leave(1, 1, Some(4), LeaveKind::Boundary));
    assert_eq!((formed.len(), formed[0].1.start_step), (2, Step(4)));
    desk.say(1, Report::Leaving { reason: "SIGTERM".into() });
    // Both are in place: the other holds what it needs, and the leaver goes at the next boundary.
    desk.ready(1, 2, 4);
    let asked = desk.ready(2, 2, 4);
    assert_eq!(yields(&asked), [(1, false), (2, false)]);
    for m in 1..=2 {
        desk.commit(m, 2, 4);
    }
    desk.leave(2, 2, Some(5), LeaveKind::Boundary);
    formed = forms(&desk.leave(1, 2, Some(5), LeaveKind::Boundary));
    assert_eq!((formed.len(), formed[0].0, formed[0].1.start_step), (1, MemberId(2), Step(5)));
}

/// SIGTERM reaches the only one that trains while it leaves its generation for those who wait.
#[test]
fn weights_do_not_go_with_a_leaver_that_leaves_at_a_boundary_for_others() {
    let mut desk = Desk::training(2, 3);
    desk.join(3);
    // Rank 1 is lost, rank 0 has committed one step more, and is told to go before all are out.
    desk.commit(1, 1, 3);
    desk.lose(2);
    desk.say(1, Report::Leaving { reason: "SIGTERM".into() });
    let formed = forms(&desk.leave(1, 1, Some(4), LeaveKind::Collective));
    assert_eq!((formed.len(), formed[0].1.start_step), (2, Step(4)), "it hands over before it goes: {formed:?}");
    assert!(formed.iter().all(|(_, f)| f.receivers.len() == 1 && !f.checkpoint_only));
}

/// A stopped process: its session ends by a keep-alive just before its heartbeats are missed.
#[test]
fn a_session_that_breaks_late_gives_no_more_time_than_silence_does() {
    let mut desk = Desk::training(2, 3);
    let heard = desk.now;
    desk.now = heard + SILENCE - BRIEF / 4;
    desk.say(1, Report::Heartbeat { next_step: Some(Step(3)) });
    desk.event(RunEvent::Disconnected { member: MemberId(2), how: "keep-alive timed out".into() });
    assert_eq!(desk.run.losses(), 0);
    desk.now = heard + SILENCE;
    assert_eq!(aborted(&desk.event(RunEvent::Tick)), [1]);
    assert_eq!(desk.run.losses(), 1);
}
