//! Members that come and go while a generation trains, sessions that break, and runs that pause.

use super::tests::{BRIEF, Desk, SILENCE, aborted, config, forms};
use super::*;
use crate::ids::{Generation, MemberId, Step};
use crate::ledger::Record;

/// Who is asked to checkpoint and finish.
fn yields(effects: &[RunEffect]) -> Vec<u64> {
    let asked = |e: &RunEffect| match e {
        RunEffect::Send { member, order: Order::Yield { .. } } => Some(member.0),
        _ => None,
    };
    effects.iter().filter_map(asked).collect()
}

/// Which ranks are told of the next generation, and their rank there.
fn prepared(effects: &[RunEffect]) -> Vec<(u64, Option<u32>)> {
    let told = |e: &RunEffect| match e {
        RunEffect::Send { member, order: Order::Prepare(p) } => Some((member.0, p.form.as_ref().map(|f| f.rank.0))),
        _ => None,
    };
    effects.iter().filter_map(told).collect()
}

impl Desk {
    /// A worker that is to join says that it holds the order.
    fn hold(&mut self, member: u64, generation: u64) -> Vec<RunEffect> {
        self.stand(member, Standing::Forming { generation: Generation(generation) })
    }

    fn switch(&mut self, member: u64, generation: u64, step: u64, stays: bool) -> Vec<RunEffect> {
        let digest = stays.then_some(7);
        self.say(
            member,
            Report::Switched(Switched { generation: Generation(generation), start_step: Step(step), digest }),
        )
    }

    /// It has no part in the next generation.
    fn step_aside(&mut self, member: u64, generation: u64, step: u64) -> Vec<RunEffect> {
        let next = Generation(generation + 1);
        self.leave(member, generation, Some(step), LeaveKind::Boundary { next })
    }

    /// Generation 1 of members 1 and 2 trains, 3 has come, and the order of generation 2 is in all hands.
    fn about_to_switch() -> Self {
        let mut desk = Self::training(2, 3);
        desk.join(3);
        desk.now += BRIEF;
        desk.event(RunEvent::Tick);
        desk.hold(3, 2);
        desk
    }
}

fn ledger(log: &[RunEffect]) -> Vec<String> {
    let word = |e: &RunEffect| match e {
        RunEffect::Ledger(Record::Prepared { generation, .. }) => Some(format!("prepared {generation}")),
        RunEffect::Ledger(Record::Formed { generation, start_step, .. }) => {
            Some(format!("formed {generation} at {start_step}"))
        }
        RunEffect::Ledger(Record::Step(step)) => Some(format!("step {} of {}", step.step, step.generation)),
        _ => None,
    };
    log.iter().filter_map(word).collect()
}

#[test]
fn a_generation_is_prepared_for_those_that_have_waited_and_its_ranks_go_over_by_themselves() {
    let mut desk = Desk::training(2, 3);
    assert!(prepared(&desk.join(3)).is_empty(), "others may come in a moment");
    desk.now += BRIEF;
    let due = desk.event(RunEvent::Tick);
    let told = forms(&due);
    assert_eq!((told.len(), told[0].0, told[0].1.start_step), (1, MemberId(3), None), "who joins hears first");
    assert!(prepared(&due).is_empty());
    assert_eq!(prepared(&desk.hold(3, 2)), [(1, Some(0)), (2, Some(1))]);
    for m in 1..=2 {
        desk.commit(m, 1, 3);
    }
    desk.switch(1, 2, 4, true);
    assert_eq!(desk.run.phase(), Phase::Forming(Generation(2)));
    // The first is in the new one already, and the second has not told of it yet.
    desk.ready(1, 2, 4);
    desk.switch(3, 2, 4, false);
    desk.ready(3, 2, 4);
    desk.switch(2, 2, 4, true);
    desk.ready(2, 2, 4);
    assert_eq!((desk.run.phase(), desk.run.losses()), (Phase::Training(Generation(2)), 0));
    assert_eq!(ledger(&desk.log), ["prepared 2", "step 3 of 1", "formed 2 at 4"]);
}

#[test]
fn what_the_new_generation_does_is_recorded_behind_what_the_old_one_did() {
    let mut desk = Desk::about_to_switch();
    desk.commit(1, 1, 3);
    desk.switch(1, 2, 4, true);
    desk.switch(3, 2, 4, false);
    for m in [1, 3] {
        desk.commit(m, 2, 4);
    }
    assert_eq!(ledger(&desk.log), ["prepared 2"], "the second rank has yet to tell of step 3");
    desk.commit(2, 1, 3);
    desk.switch(2, 2, 4, true);
    desk.commit(2, 2, 4);
    assert_eq!(ledger(&desk.log), ["prepared 2", "step 3 of 1", "formed 2 at 4", "step 4 of 2"]);
    assert_eq!(desk.run.phase(), Phase::Training(Generation(2)));
}

#[test]
fn a_member_that_leaves_costs_no_step() {
    let mut desk = Desk::training(3, 3);
    let asked = desk.say(2, Report::Leaving { reason: "SIGTERM".into() });
    assert_eq!(prepared(&asked), [(1, Some(0)), (2, None), (3, Some(1))]);
    for m in 1..=3 {
        desk.commit(m, 1, 3);
    }
    let first = desk.step_aside(2, 1, 4);
    let stop = Order::Stop { outcome: Outcome::Drained, message: String::new() };
    let stopped =
        |effects: &[RunEffect]| effects.contains(&RunEffect::Send { member: MemberId(2), order: stop.clone() });
    assert!(stopped(&first), "the others hold the step");
    for m in [1, 3] {
        desk.switch(m, 2, 4, true);
        desk.ready(m, 2, 4);
    }
    assert_eq!(desk.run.phase(), Phase::Training(Generation(2)));
    let left = |e: &RunEffect| matches!(e, RunEffect::Ledger(Record::Left { member: MemberId(2), .. }));
    assert!(desk.log.iter().any(left) && desk.run.losses() == 0);
}

#[test]
fn a_leaver_stays_until_somebody_else_is_known_to_hold_what_it_holds() {
    let mut desk = Desk::training(2, 3);
    desk.say(2, Report::Leaving { reason: "SIGTERM".into() });
    desk.commit(2, 1, 3);
    desk.step_aside(2, 1, 4);
    assert_eq!(desk.run.members().count(), 2, "nobody has heard of step 3 from the other");
    desk.commit(1, 1, 3);
    desk.switch(1, 2, 4, true);
    assert_eq!(desk.run.members().count(), 1);
}

#[test]
fn who_was_to_join_and_is_gone_calls_it_off() {
    let mut desk = Desk::about_to_switch();
    let effects = desk.lose(3);
    let withdrawn = |e: &RunEffect| matches!(e, RunEffect::Send { order: Order::Withdraw { .. }, .. });
    assert_eq!(effects.iter().filter(|e| withdrawn(e)).count(), 2);
    assert_eq!(desk.run.phase(), Phase::Training(Generation(1)), "nothing has happened to those who train");
    // They had agreed already.
    for m in 1..=2 {
        desk.commit(m, 1, 3);
    }
    assert_eq!(aborted(&desk.switch(1, 2, 4, true)), [1, 2]);
    desk.switch(2, 2, 4, true);
    desk.leave(1, 2, Some(4), LeaveKind::Aborted);
    let formed = forms(&desk.leave(2, 2, Some(4), LeaveKind::Aborted));
    assert_eq!((formed.len(), formed[0].1.generation, formed[0].1.start_step), (2, Generation(3), Some(Step(4))));
}

#[test]
fn a_rank_that_is_lost_while_the_next_generation_is_prepared_ends_both() {
    let mut desk = Desk::about_to_switch();
    desk.commit(1, 1, 3);
    assert_eq!(aborted(&desk.lose(2)), [3, 1, 3], "who was to join has an order to give back");
    // The first had gone over before it was told.
    desk.switch(1, 2, 4, true);
    desk.leave(1, 2, Some(4), LeaveKind::Aborted);
    let formed = forms(&desk.leave(3, 2, None, LeaveKind::Aborted));
    assert_eq!((formed.len(), formed[0].1.generation, formed[0].1.start_step), (2, Generation(3), Some(Step(4))));
    assert_eq!(ledger(&desk.log), ["prepared 2", "step 3 of 1", "formed 2 at 4", "formed 3 at 4"]);
}

#[test]
fn other_weights_that_a_rank_brings_along_are_found_out() {
    let mut desk = Desk::about_to_switch();
    for m in 1..=2 {
        desk.commit(m, 1, 3);
    }
    desk.switch(1, 2, 4, true);
    let other = Switched { generation: Generation(2), start_step: Step(4), digest: Some(8) };
    assert_eq!(aborted(&desk.say(2, Report::Switched(other))), [1, 2, 3]);
}

#[test]
fn a_new_leader_hears_that_its_ranks_have_gone_over_meanwhile() {
    let mut desk = Desk::new(RunConfig {
        adopted: Some(Adopted {
            generation: Generation(1),
            members: vec![MemberId(1), MemberId(2)],
            start_step: Step(0),
            prepared: [(Generation(2), Roster::new(&[MemberId(1), MemberId(2)], &[MemberId(3)], 4))].into(),
        }),
        first_generation: Generation(3),
        recorded: Step(3),
        ..config(2)
    });
    for m in 1..=3 {
        desk.arrive(m, Some(m));
        if m < 3 {
            desk.commit(m, 1, 3);
        }
        desk.switch(m, 2, 4, m < 3);
        desk.commit(m, 2, 4);
        desk.stand(m, Standing::Training { generation: Generation(2), next_step: Step(5) });
    }
    assert_eq!((desk.run.phase(), desk.run.losses()), (Phase::Training(Generation(2)), 0));
    assert_eq!(ledger(&desk.log), ["step 3 of 1", "formed 2 at 4", "step 4 of 2"]);
}

#[test]
fn a_new_leader_goes_on_with_what_was_prepared() {
    let mut desk = Desk::new(RunConfig {
        adopted: Some(Adopted {
            generation: Generation(1),
            members: vec![MemberId(1)],
            start_step: Step(0),
            prepared: [(Generation(2), Roster::new(&[MemberId(1)], &[MemberId(2)], 4))].into(),
        }),
        first_generation: Generation(3),
        recorded: Step(3),
        ..config(2)
    });
    desk.arrive(1, Some(1));
    desk.stand(1, Standing::Training { generation: Generation(1), next_step: Step(3) });
    desk.arrive(2, Some(2));
    assert_eq!(prepared(&desk.hold(2, 2)), [(1, Some(0))], "it may never have been told");
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
    assert_eq!((formed.len(), formed[0].1.start_step, formed[0].1.checkpoint_only), (2, Some(Step(1)), false));
}

#[test]
fn the_last_member_that_leaves_checkpoints_first() {
    let mut desk = Desk::training(1, 3);
    assert_eq!(yields(&desk.say(1, Report::Leaving { reason: "spot notice".into() })), [1]);
    desk.commit(1, 1, 3);
    desk.part(1, 1, 4, 0);
    desk.finish(1, 1, 4);
    let stop = Order::Stop { outcome: Outcome::Drained, message: String::new() };
    assert!(desk.stored(1, 4).contains(&RunEffect::Send { member: MemberId(1), order: stop }));
    assert_eq!(desk.run.phase(), Phase::Gathering);
    let formed = forms(&desk.join(2));
    assert_eq!((formed[0].1.start_step, formed[0].1.resume_from.clone()), (Some(Step(4)), Some("m4".into())));
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
fn if_all_want_to_leave_they_checkpoint_before_they_go() {
    let mut desk = Desk::training(2, 3);
    let reason = "SIGTERM".to_string();
    assert_eq!(prepared(&desk.say(1, Report::Leaving { reason: reason.clone() })), [(1, None), (2, Some(0))]);
    // The second notice comes before they have gone over.
    let asked = desk.say(2, Report::Leaving { reason });
    assert_eq!(yields(&asked), [1, 2]);
    for m in 1..=2 {
        desk.commit(m, 1, 3);
        desk.part(m, 1, 4, m as u32 - 1);
        desk.finish(m, 1, 4);
    }
    let effects = desk.stored(1, 4);
    let stops = effects.iter().filter(|e| matches!(e, RunEffect::Send { order: Order::Stop { .. }, .. })).count();
    assert_eq!((stops, desk.run.phase()), (2, Phase::Gathering));
}

#[test]
fn the_only_one_that_trains_checkpoints_for_those_who_wait() {
    let mut desk = Desk::training(1, 3);
    desk.join(2);
    assert_eq!(yields(&desk.say(1, Report::Leaving { reason: "SIGTERM".into() })), [1]);
    desk.commit(1, 1, 3);
    desk.part(1, 1, 4, 0);
    desk.finish(1, 1, 4);
    let effects = desk.stored(1, 4);
    let stop = Order::Stop { outcome: Outcome::Drained, message: String::new() };
    assert!(effects.contains(&RunEffect::Send { member: MemberId(1), order: stop }));
    let formed = forms(&effects);
    assert_eq!((formed.len(), formed[0].1.start_step), (1, Some(Step(4))), "no step is done again");
    assert_eq!(formed[0].1.resume_from.as_deref(), Some("m4"));
}

/// The next generation was meant for those who wait; whoever trained wants to leave by then.
#[test]
fn who_leaves_last_hands_over_first() {
    let mut desk = Desk::training(1, 3);
    desk.join(2);
    desk.now += BRIEF;
    desk.event(RunEvent::Tick);
    assert_eq!(prepared(&desk.hold(2, 2)), [(1, Some(0))]);
    desk.commit(1, 1, 3);
    desk.switch(1, 2, 4, true);
    desk.say(1, Report::Leaving { reason: "SIGTERM".into() });
    desk.switch(2, 2, 4, false);
    // Both are in place: the other holds what it needs, and the leaver goes with the next change.
    desk.ready(1, 2, 4);
    assert_eq!(prepared(&desk.ready(2, 2, 4)), [(1, None), (2, Some(0))]);
    for m in 1..=2 {
        desk.commit(m, 2, 4);
    }
    desk.switch(2, 3, 5, true);
    desk.step_aside(1, 2, 5);
    desk.ready(2, 3, 5);
    assert_eq!((desk.run.members().count(), desk.run.phase()), (1, Phase::Training(Generation(3))));
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
    assert_eq!((formed.len(), formed[0].1.start_step), (2, Some(Step(4))), "it hands over before it goes: {formed:?}");
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
