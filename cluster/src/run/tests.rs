//! Hand-built situations on a virtual clock.

use super::*;
use crate::commit::PartEntry;
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::ledger::{Record, StateSource};
use crate::spec::{Ladder, Rung};
use std::time::Duration;

pub(super) const GRACE: Duration = Duration::from_secs(60);
pub(super) const SILENCE: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(30);
pub(super) const BRIEF: Duration = Duration::from_secs(2);

pub(crate) fn config(expect: u32) -> RunConfig {
    RunConfig {
        expect,
        join_window: WINDOW,
        min_workers: 1,
        max_workers: 4,
        lanes: 4,
        global_batch: 8,
        steps: 10,
        join_batch: BRIEF,
        ladder: Ladder::of_patience(SILENCE)
            .with(Rung::AdoptWindow, BRIEF)
            .with(Rung::CollectiveTimeout, GRACE)
            .with(Rung::FormingTimeout, GRACE)
            .with(Rung::Stall, 2 * GRACE),
        fruitless_max: 3,
        members_max: 8,
        first_generation: Generation(1),
        resume: None,
        recorded: Step(0),
        adopted: None,
    }
}

/// A run, the clock, and everything that it asked for.
pub(super) struct Desk {
    pub(super) run: Run,
    pub(super) now: Now,
    pub(super) log: Vec<RunEffect>,
}

impl Desk {
    pub(super) fn new(config: RunConfig) -> Self {
        Self { run: Run::new(config), now: Duration::ZERO, log: Vec::new() }
    }

    /// The store takes every record at once.
    pub(super) fn event(&mut self, event: RunEvent) -> Vec<RunEffect> {
        let mut effects = self.run.handle(self.now, event);
        if let Some(RunEffect::Claim { generation }) = effects.last() {
            let claimed = RunEvent::Claimed { generation: *generation };
            effects.extend(self.run.handle(self.now, claimed));
        }
        self.log.extend(effects.clone());
        effects
    }

    /// A worker joins and is warm.
    pub(super) fn join(&mut self, member: u64) -> Vec<RunEffect> {
        let mut effects = self.arrive(member, None);
        if !matches!(effects.first(), Some(RunEffect::Refuse { .. })) {
            effects.extend(self.stand(member, Standing::Free { next_step: None, digest: None }));
        }
        effects
    }

    pub(super) fn arrive(&mut self, member: u64, before: Option<u64>) -> Vec<RunEffect> {
        let name = format!("w{member}");
        let join = Join { name, pid: member as u32, member: before.map(MemberId), ..Join::default() };
        self.event(RunEvent::Joined { member: MemberId(member), join })
    }

    pub(super) fn stand(&mut self, member: u64, standing: Standing) -> Vec<RunEffect> {
        self.say(member, Report::Standing(standing))
    }

    pub(super) fn say(&mut self, member: u64, report: Report) -> Vec<RunEffect> {
        self.event(RunEvent::Reported { member: MemberId(member), report })
    }

    pub(super) fn ready(&mut self, member: u64, generation: u64, step: u64) -> Vec<RunEffect> {
        self.say(member, Report::Ready { generation: Generation(generation), next_step: Step(step) })
    }

    pub(super) fn commit(&mut self, member: u64, generation: u64, step: u64) -> Vec<RunEffect> {
        let report =
            StepReport { generation: Generation(generation), step: Step(step), samples: 8, ..StepReport::default() };
        self.say(member, Report::Committed(report))
    }

    pub(super) fn leave(
        &mut self,
        member: u64,
        generation: u64,
        next_step: Option<u64>,
        kind: LeaveKind,
    ) -> Vec<RunEffect> {
        let left = Left {
            generation: Generation(generation),
            next_step: next_step.map(Step),
            digest: None,
            kind,
            message: "reset by peer".into(),
            lost_rank: None,
        };
        self.say(member, Report::Left(left))
    }

    pub(super) fn lose(&mut self, member: u64) -> Vec<RunEffect> {
        let cause = LossCause::StreamClosed { how: "reset".into() };
        self.event(RunEvent::Lost { member: MemberId(member), cause })
    }

    pub(super) fn part(&mut self, member: u64, generation: u64, step: u64, rank: u32) -> Vec<RunEffect> {
        let entry =
            PartEntry { path: format!("p{rank}"), rank: Rank(rank), bytes: 1, blake3: String::new(), tensors: vec![] };
        self.say(member, Report::Part(PartReport { generation: Generation(generation), step: Step(step), entry }))
    }

    pub(super) fn finish(&mut self, member: u64, generation: u64, step: u64) -> Vec<RunEffect> {
        self.say(member, Report::Finished { generation: Generation(generation), next_step: Step(step) })
    }

    pub(super) fn stored(&mut self, generation: u64, step: u64) -> Vec<RunEffect> {
        let (generation, step) = (Generation(generation), Step(step));
        self.event(RunEvent::ManifestStored { generation, step, key: format!("m{step}") })
    }

    /// Members 1..=n joined, formed as generation 1 and trained up to (not including) `step`.
    pub(super) fn training(n: u64, step: u64) -> Self {
        let mut desk = Self::new(config(n as u32));
        for m in 1..=n {
            desk.join(m);
        }
        for m in 1..=n {
            desk.ready(m, 1, 0);
        }
        for s in 0..step {
            for m in 1..=n {
                desk.commit(m, 1, s);
            }
        }
        assert_eq!(desk.run.phase(), Phase::Training(Generation(1)));
        desk.log.clear();
        desk
    }
}

pub(super) fn forms(effects: &[RunEffect]) -> Vec<(MemberId, Form)> {
    let form = |e: &RunEffect| match e {
        RunEffect::Send { member, order: Order::Form(f) } => Some((*member, f.clone())),
        _ => None,
    };
    effects.iter().filter_map(form).collect()
}

pub(super) fn aborted(effects: &[RunEffect]) -> Vec<u64> {
    let abort = |e: &RunEffect| match e {
        RunEffect::Send { member, order: Order::Abort { .. } } => Some(member.0),
        _ => None,
    };
    effects.iter().filter_map(abort).collect()
}

pub(super) fn finished(effects: &[RunEffect]) -> Option<(Outcome, String)> {
    effects.iter().find_map(|e| match e {
        RunEffect::Finish { outcome, message } => Some((*outcome, message.clone())),
        _ => None,
    })
}

#[test]
fn a_generation_is_formed_when_the_expected_are_there() {
    let mut desk = Desk::new(config(2));
    assert!(forms(&desk.join(1)).is_empty());
    let forms = forms(&desk.join(2));
    assert_eq!(forms.len(), 2);
    let (member, form) = &forms[1];
    assert_eq!((*member, form.rank, form.world(), form.start_step), (MemberId(2), Rank(1), 2, Some(Step(0))));
    assert_eq!((form.source, form.receivers.len(), form.resume_from.clone()), (None, 0, None));
    assert_eq!(desk.run.phase(), Phase::Forming(Generation(1)));
    desk.ready(1, 1, 0);
    desk.ready(2, 1, 0);
    assert_eq!(desk.run.phase(), Phase::Training(Generation(1)));
}

#[test]
fn the_join_window_ends_the_wait_for_the_others() {
    let mut desk = Desk::new(config(3));
    desk.join(1);
    assert_eq!(desk.run.deadline(), Some(SILENCE), "the member may fall silent first");
    desk.now = WINDOW;
    desk.say(1, Report::Heartbeat { next_step: None });
    assert_eq!(desk.run.phase(), Phase::Forming(Generation(1)), "one is enough after the window");
}

#[test]
fn a_worker_that_died_before_it_joined_is_not_awaited() {
    let mut desk = Desk::new(config(3));
    desk.join(1);
    desk.join(2);
    assert_eq!(forms(&desk.event(RunEvent::WillNotJoin)).len(), 2);
}

#[test]
fn more_members_than_lanes_stand_by_and_more_than_the_bound_are_refused() {
    let mut desk = Desk::new(config(6));
    let formed: Vec<_> = (1..=8).flat_map(|m| forms(&desk.join(m))).collect();
    assert_eq!(formed.len(), 4, "expect is bounded by the lanes");
    let refused = desk.join(9);
    assert!(matches!(refused[0], RunEffect::Refuse { refusal: Refusal::Full { members: 8 }, .. }));
}

#[test]
fn steps_are_ledgered_once_when_all_ranks_have_reported() {
    let mut desk = Desk::training(2, 0);
    assert!(desk.commit(1, 1, 0).is_empty());
    let effects = desk.commit(2, 1, 0);
    let records: Vec<_> = effects.iter().filter(|e| matches!(e, RunEffect::Ledger(Record::Step(_)))).collect();
    assert_eq!(records.len(), 1);
    assert!(desk.commit(2, 1, 0).is_empty(), "told again after a broken session");
    let ahead = desk.commit(2, 1, 2);
    assert!(matches!(ahead[0], RunEffect::Refuse { refusal: Refusal::OutOfOrder { .. }, .. }));
}

#[test]
fn a_loss_re_forms_the_others_at_the_furthest_step() {
    let mut desk = Desk::training(3, 4);
    // Member 1 has run step 4; the collective broke for the other survivor.
    desk.commit(1, 1, 4);
    let effects = desk.lose(2);
    assert_eq!(aborted(&effects), vec![1, 3]);
    assert!(forms(&desk.leave(3, 1, Some(4), LeaveKind::Collective)).is_empty());
    let formed = forms(&desk.leave(1, 1, Some(5), LeaveKind::Aborted));
    assert_eq!(formed.len(), 2);
    let form = &formed[0].1;
    assert_eq!((form.generation, form.start_step), (Generation(2), Some(Step(5))));
    assert_eq!(form.members, [MemberId(1), MemberId(3)].into());
    assert_eq!((form.source, form.receivers.clone()), (Some(Rank(0)), [Rank(1)].into()));
    // The step that only one survivor committed is in the ledger, and says whose word is missing.
    let step = desk.log.iter().find_map(|e| match e {
        RunEffect::Ledger(Record::Step(s)) if s.step == Step(4) => Some(s.clone()),
        _ => None,
    });
    assert_eq!(step.expect("ledgered").unreported, vec![Rank(1), Rank(2)]);
}

#[test]
fn a_torn_state_is_never_the_source() {
    let mut desk = Desk::training(3, 4);
    desk.lose(1);
    desk.leave(2, 1, None, LeaveKind::Collective);
    let formed = forms(&desk.leave(3, 1, Some(4), LeaveKind::Collective));
    let form = &formed[0].1;
    assert_eq!(form.members, [MemberId(3), MemberId(2)].into(), "whole state first");
    assert_eq!((form.source, form.receivers.clone()), (Some(Rank(0)), [Rank(1)].into()));
}

#[test]
fn a_failed_collective_without_a_named_loss_waits_for_the_others_and_then_loses_them() {
    let mut desk = Desk::training(3, 2);
    assert_eq!(aborted(&desk.leave(1, 1, Some(2), LeaveKind::Collective)), vec![2, 3]);
    desk.leave(2, 1, Some(2), LeaveKind::Aborted);
    let mut silent = Vec::new();
    // Member 3 hangs: its session thread still sends heartbeats, its trainer never leaves.
    while desk.now < GRACE {
        desk.now += Duration::from_secs(1);
        for m in 1..=3 {
            silent.extend(desk.say(m, Report::Heartbeat { next_step: Some(Step(2)) }));
        }
    }
    let lost = silent.iter().find_map(|e| match e {
        RunEffect::Announce(Notice::Loss { member, cause, .. }) => Some((*member, cause.clone())),
        _ => None,
    });
    let (member, cause) = lost.expect("the silent one is lost");
    assert_eq!(member, MemberId(3));
    assert_eq!(cause, LossCause::SilentAfterFailure { failure: "w1: reset by peer".into() });
    assert_eq!(forms(&silent).len(), 2);
}

#[test]
fn silence_is_a_loss() {
    let mut desk = Desk::training(2, 2);
    desk.now = Duration::from_secs(3);
    desk.say(1, Report::Heartbeat { next_step: Some(Step(2)) });
    assert_eq!(desk.run.deadline(), Some(SILENCE));
    desk.now = SILENCE;
    let effects = desk.event(RunEvent::Tick);
    assert_eq!(aborted(&effects), vec![1]);
    assert_eq!(desk.run.losses(), 1);
}

#[test]
fn a_loss_while_forming_forms_again_with_a_new_number() {
    let mut desk = Desk::new(config(3));
    for m in 1..=3 {
        desk.join(m);
    }
    desk.ready(1, 1, 0);
    assert_eq!(aborted(&desk.lose(3)), vec![1, 2]);
    desk.leave(1, 1, Some(0), LeaveKind::Aborted);
    let formed = forms(&desk.leave(2, 1, None, LeaveKind::Collective));
    assert_eq!(formed.len(), 2);
    assert_eq!(formed[0].1.generation, Generation(2));
    let late = desk.ready(2, 1, 0);
    let stale = Refusal::StaleGeneration { got: Generation(1), current: Generation(2) };
    assert_eq!(late, vec![RunEffect::Refuse { member: MemberId(2), refusal: stale }]);
}

#[test]
fn a_joiner_waits_for_the_next_generation_and_receives_state() {
    let mut desk = Desk::training(2, 3);
    assert!(forms(&desk.join(3)).is_empty(), "training is not disturbed");
    desk.lose(2);
    let formed = forms(&desk.leave(1, 1, Some(3), LeaveKind::Aborted));
    assert_eq!(formed.len(), 2);
    assert!(formed.iter().any(|(m, f)| *m == MemberId(3) && f.needs_state() && f.source == Some(Rank(0))));
    assert!(!formed[0].1.needs_state());
}

#[test]
fn if_all_are_lost_the_next_ones_start_from_the_checkpoint() {
    let mut desk = Desk::training(2, 4);
    for rank in 0..2 {
        desk.part(u64::from(rank) + 1, 1, 4, rank);
    }
    desk.stored(1, 4);
    desk.commit(1, 1, 4);
    desk.lose(1);
    desk.lose(2);
    assert_eq!(desk.run.phase(), Phase::Gathering);
    assert!(forms(&desk.join(7)).is_empty(), "who holds step 4 may come back");
    desk.now += BRIEF;
    let formed = forms(&desk.event(RunEvent::Tick));
    let form = &formed[0].1;
    assert_eq!((form.start_step, form.source, form.resume_from.clone()), (Some(Step(4)), None, Some("m4".into())));
    let source = desk.log.iter().rev().find_map(|e| match e {
        RunEffect::Ledger(Record::Formed { source, .. }) => Some(source.clone()),
        _ => None,
    });
    assert_eq!(source, Some(StateSource::Manifest("m4".into())));
}

#[test]
fn a_checkpoint_needs_every_rank_and_the_run_ends_with_it() {
    let mut desk = Desk::training(2, 10);
    assert!(desk.part(1, 1, 10, 0).is_empty());
    desk.finish(1, 1, 10);
    let effects = desk.part(2, 1, 10, 1);
    assert!(matches!(&effects[0], RunEffect::StoreManifest { step: Step(10), parts, .. } if parts.len() == 2));
    assert_eq!(finished(&desk.finish(2, 1, 10)), None, "not before the manifest exists");
    let effects = desk.stored(1, 10);
    assert_eq!(finished(&effects), Some((Outcome::Done, String::new())));
    let stops = effects.iter().filter(|e| matches!(e, RunEffect::Send { order: Order::Stop { .. }, .. })).count();
    assert_eq!(stops, 2);
    assert_eq!(desk.run.deadline(), None);
}

#[test]
fn a_last_checkpoint_that_fails_is_a_fault_with_its_cause() {
    let mut desk = Desk::training(1, 10);
    desk.part(1, 1, 10, 0);
    desk.finish(1, 1, 10);
    let (generation, step) = (Generation(1), Step(10));
    let effects = desk.event(RunEvent::ManifestFailed { generation, step, message: "permission denied".into() });
    let (outcome, message) = finished(&effects).expect("over");
    assert_eq!(outcome, Outcome::Fault);
    assert_eq!(
        message,
        "the run stopped at step 10 without its checkpoint: the checkpoint of step 10 could not be committed: \
         permission denied"
    );
}

#[test]
fn a_member_lost_after_its_last_word_does_not_hold_up_the_end() {
    let mut desk = Desk::training(2, 10);
    for m in 1..=2u32 {
        desk.part(u64::from(m), 1, 10, m - 1);
    }
    desk.finish(1, 1, 10);
    desk.lose(1);
    desk.finish(2, 1, 10);
    assert_eq!(finished(&desk.stored(1, 10)), Some((Outcome::Done, String::new())));
}

#[test]
fn a_drain_ends_at_the_checkpoint_and_survives_a_loss_on_the_way() {
    let mut desk = Desk::training(2, 3);
    let drains = desk.event(RunEvent::Drain);
    assert_eq!(drains.iter().filter(|e| matches!(e, RunEffect::Send { order: Order::Yield { .. }, .. })).count(), 2);
    assert_eq!(desk.run.state(), "draining");
    desk.commit(1, 1, 3);
    desk.lose(2);
    let formed = forms(&desk.leave(1, 1, Some(4), LeaveKind::Aborted));
    assert!(formed[0].1.checkpoint_only);
    desk.ready(1, 2, 4);
    desk.part(1, 2, 4, 0);
    desk.finish(1, 2, 4);
    assert_eq!(finished(&desk.stored(2, 4)), Some((Outcome::Drained, String::new())));
    assert_eq!(Outcome::Drained.exit_code(), 75);
}

#[test]
fn a_drain_before_anything_was_done_just_ends() {
    let mut desk = Desk::new(config(2));
    desk.join(1);
    assert_eq!(finished(&desk.event(RunEvent::Drain)), Some((Outcome::Drained, String::new())));
    let refused = desk.join(2);
    let over = Refusal::Over { outcome: Outcome::Drained };
    assert_eq!(refused, vec![RunEffect::Refuse { member: MemberId(2), refusal: over }]);
}

#[test]
fn a_finished_run_that_is_started_again_is_done_at_once() {
    let resume = Some(Resume { step: Step(10), key: "m10".into() });
    let mut desk = Desk::new(RunConfig { resume, first_generation: Generation(5), ..config(1) });
    assert_eq!(finished(&desk.join(1)), Some((Outcome::Done, String::new())));
}

#[test]
fn generations_without_a_step_end_in_a_fault_that_names_the_last_failure() {
    let mut desk = Desk::new(config(1));
    desk.join(1);
    let mut end = None;
    for generation in 1..=3 {
        assert_eq!(end, None);
        end = finished(&desk.leave(1, generation, Some(0), LeaveKind::Collective));
    }
    let (outcome, message) = end.expect("three attempts are enough");
    assert_eq!(outcome, Outcome::Fault);
    assert_eq!(message, "3 generations in a row reached no step; the last one ended with: w1: reset by peer");
}

#[test]
fn too_few_survivors_wait_for_more() {
    let mut desk = Desk::new(RunConfig { min_workers: 2, ..config(2) });
    desk.join(1);
    desk.join(2);
    desk.lose(2);
    assert!(forms(&desk.leave(1, 1, None, LeaveKind::Aborted)).is_empty());
    assert_eq!(desk.run.phase(), Phase::Gathering);
    assert_eq!(desk.run.message(), "waiting: 1 of at least 2 workers are left; w2 was lost: its session ended: reset");
    assert_eq!(forms(&desk.join(3)).len(), 2);
}

#[test]
fn a_generation_does_not_begin_behind_a_checkpoint_that_is_about_to_exist() {
    let mut desk = Desk::training(1, 4);
    desk.part(1, 1, 4, 0);
    desk.lose(1);
    assert!(forms(&desk.join(2)).is_empty(), "step 4 may exist in a moment");
    let formed = forms(&desk.stored(1, 4));
    assert_eq!((formed[0].1.start_step, formed[0].1.resume_from.clone()), (Some(Step(4)), Some("m4".into())));
}
