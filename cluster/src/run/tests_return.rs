//! Members that come back after the run has gone on without them, or before it has heard what they said.

use super::tests::{BRIEF, Desk, config};
use super::*;
use crate::ids::{Generation, MemberId, Step};
use crate::ledger::Record;
use std::time::Duration;

fn recorded(effects: &[RunEffect]) -> Vec<u64> {
    let step = |e: &RunEffect| if let RunEffect::Ledger(Record::Step(record)) = e { Some(record.step.0) } else { None };
    effects.iter().filter_map(step).collect()
}

fn formed(effects: &[RunEffect]) -> Option<Form> {
    effects.iter().find_map(|e| match e {
        RunEffect::Send { order: Order::Form(form), .. } => Some(form.clone()),
        _ => None,
    })
}

/// The only member of generation 1 has committed three steps, and was lost.
fn lost() -> Desk {
    let mut desk = Desk::training(1, 3);
    desk.lose(1);
    assert_eq!(desk.run.phase(), Phase::Gathering);
    desk
}

#[test]
fn steps_that_a_lost_member_still_owes_are_recorded_before_its_weights_are_used() {
    let mut desk = lost();
    desk.arrive(2, Some(1));
    assert_eq!(recorded(&desk.commit(2, 1, 3)), [3]);
    assert!(recorded(&desk.commit(2, 1, 3)).is_empty(), "told twice");
    let form = formed(&desk.stand(2, Standing::Free { next_step: Some(Step(4)), digest: None })).expect("it trains");
    assert_eq!((form.start_step, form.source.is_some()), (Some(Step(4)), true));
}

#[test]
fn weights_with_a_step_that_no_ledger_will_hold_are_as_good_as_none() {
    let mut desk = lost();
    desk.arrive(2, Some(1));
    let waits = formed(&desk.stand(2, Standing::Free { next_step: Some(Step(5)), digest: None }));
    assert_eq!(waits, None, "somebody may hold what the ledger holds");
    desk.now += BRIEF;
    let form = formed(&desk.event(RunEvent::Tick)).expect("it trains");
    assert_eq!((form.start_step, form.source), (Some(Step(0)), None));
}

#[test]
fn a_lost_member_that_is_told_to_leave_its_old_generation_takes_part_in_the_next() {
    let mut desk = lost();
    desk.arrive(2, Some(1));
    let standing = Standing::Training { generation: Generation(1), next_step: Step(3) };
    let told = desk.stand(2, standing);
    let abort = |e: &RunEffect| matches!(e, RunEffect::Send { order: Order::Abort { .. }, .. });
    assert!(told.iter().any(abort));
    let form = formed(&desk.leave(2, 1, Some(3), LeaveKind::Aborted)).expect("it trains");
    assert_eq!(form.start_step, Some(Step(3)));
}

#[test]
fn a_rank_whose_word_that_it_is_ready_was_lost_is_ready_by_what_it_did() {
    let mut desk = Desk::new(config(1));
    desk.join(1);
    desk.arrive(1, Some(1));
    assert_eq!(recorded(&desk.commit(1, 1, 0)), [0]);
    desk.stand(1, Standing::Training { generation: Generation(1), next_step: Step(1) });
    assert_eq!(desk.run.phase(), Phase::Training(Generation(1)));
}

#[test]
fn a_part_of_steps_that_nobody_told_is_refused() {
    let mut desk = Desk::training(1, 3);
    let refused = |e: &RunEffect| matches!(e, RunEffect::Refuse { refusal: Refusal::OutOfOrder { .. }, .. });
    assert!(desk.part(1, 1, 4, 0).iter().any(refused));
    assert!(!desk.part(1, 1, 3, 0).iter().any(refused));
}

/// A deadline that has come and brings nothing about would make the shell spin.
fn ask_once(desk: &mut Desk) {
    while let Some(at) = desk.run.deadline().filter(|at| *at <= desk.now) {
        desk.event(RunEvent::Tick);
        assert_ne!(desk.run.deadline(), Some(at), "{:?}", desk.run.phase());
    }
}

#[test]
fn a_run_that_waits_for_its_last_checkpoint_asks_for_no_time_that_is_over() {
    let mut desk = Desk::training(1, 10);
    desk.part(1, 1, 10, 0);
    desk.finish(1, 1, 10);
    desk.join(2);
    desk.now += Duration::from_secs(3);
    ask_once(&mut desk);
    // With its last member the generation goes; what it left is still on its way to the store.
    desk.lose(1);
    desk.now += Duration::from_secs(1);
    ask_once(&mut desk);
    assert_eq!(desk.run.phase(), Phase::Reforming(Generation(1)));
    desk.stored(1, 10);
    assert_eq!(desk.run.phase(), Phase::Done(Outcome::Done));
}

#[test]
fn a_checkpoint_that_an_earlier_leader_has_told_of_and_this_one_did_not_find_is_written_again() {
    let members = vec![MemberId(1)];
    let adopted =
        Some(Adopted { generation: Generation(3), members, start_step: Step(0), prepared: Default::default() });
    let first_generation = Generation(4);
    let mut desk = Desk::new(RunConfig { adopted, first_generation, recorded: Step(10), ..config(1) });
    desk.arrive(1, Some(1));
    desk.stand(1, Standing::Finished { generation: Generation(3), next_step: Step(10) });
    let form = formed(&desk.leave(1, 3, Some(10), LeaveKind::Aborted)).expect("it writes it");
    assert_eq!((form.generation, form.start_step), (Generation(4), Some(Step(10))));
}

#[test]
fn nothing_is_recorded_after_the_end() {
    let mut desk = Desk::training(2, 8);
    for rank in 0..2 {
        desk.part(u64::from(rank) + 1, 1, 8, rank);
    }
    desk.event(RunEvent::Stop { message: "enough".into() });
    assert_eq!(desk.run.phase(), Phase::Done(Outcome::Fault));
    assert!(desk.stored(1, 8).is_empty(), "a checkpoint that comes too late");
    assert!(desk.say(1, Report::Leaving { reason: "SIGTERM".into() }).is_empty());
}
