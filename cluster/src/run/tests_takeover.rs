//! A coordinator that takes over, generations that hang, weights that differ, members that are slow.

use super::tests::{BRIEF, Desk, GRACE, aborted, config, forms};
use super::*;
use crate::ids::{Generation, MemberId, Step};
use crate::ledger::Record;
use crate::spec::Rung;
use crate::spec::ladder::MEDIAN_STEPS;
use std::time::Duration;

fn taken_over() -> Desk {
    let members = vec![MemberId(1), MemberId(2)];
    let adopted =
        Some(Adopted { generation: Generation(3), members, start_step: Step(0), prepared: Default::default() });
    let first_generation = Generation(4);
    Desk::new(RunConfig { adopted, first_generation, recorded: Step(2), ..config(2) })
}

#[test]
fn a_generation_of_an_earlier_leader_trains_on() {
    let mut desk = taken_over();
    for m in 1..=2 {
        desk.arrive(m, Some(m));
        for step in 1..4 {
            desk.commit(m, 3, step);
        }
        desk.stand(m, Standing::Training { generation: Generation(3), next_step: Step(4) });
    }
    assert_eq!((desk.run.phase(), desk.run.losses()), (Phase::Training(Generation(3)), 0));
    let steps = desk.log.iter().filter_map(|e| match e {
        RunEffect::Ledger(Record::Step(s)) => Some(s.step.0),
        _ => None,
    });
    assert_eq!(steps.collect::<Vec<_>>(), [2, 3], "step 1 was in the ledger");
    assert!(forms(&desk.log).is_empty() && aborted(&desk.log).is_empty());
}

#[test]
fn who_does_not_come_to_the_new_leader_is_lost() {
    let mut desk = taken_over();
    desk.arrive(1, Some(1));
    for step in 2..4 {
        desk.commit(1, 3, step);
    }
    desk.stand(1, Standing::Training { generation: Generation(3), next_step: Step(4) });
    desk.now = BRIEF;
    assert_eq!(aborted(&desk.event(RunEvent::Tick)), [1]);
    let formed = forms(&desk.leave(1, 3, Some(4), LeaveKind::Aborted));
    assert_eq!((formed[0].1.generation, formed[0].1.start_step), (Generation(4), Some(Step(4))));
}

#[test]
fn who_never_heard_of_the_newest_generation_ends_it() {
    let mut desk = taken_over();
    desk.arrive(1, Some(1));
    let effects = desk.stand(1, Standing::Free { next_step: Some(Step(4)), digest: None });
    assert_eq!(aborted(&effects), [2]);
    assert_eq!(desk.run.losses(), 1, "the other is away and cannot be told");
    desk.now += desk.run.ladder()[Rung::ParkedWindow];
    desk.event(RunEvent::Tick);
    assert_eq!(forms(&desk.log)[0].1.generation, Generation(4));
}

/// A worker and the coordinator are lost: who is left was parked, and does not wait for the dead.
#[test]
fn who_comes_out_of_a_broken_generation_waits_for_the_rest_of_it_and_no_longer() {
    let members = (1..=3).map(MemberId).collect();
    let adopted =
        Some(Adopted { generation: Generation(3), members, start_step: Step(0), prepared: Default::default() });
    let mut desk = Desk::new(RunConfig { adopted, first_generation: Generation(4), recorded: Step(4), ..config(3) });
    let free = Standing::Free { next_step: Some(Step(4)), digest: None };
    for m in 1..=2 {
        desk.arrive(m, Some(m));
        assert!(forms(&desk.stand(m, free)).is_empty(), "the third may be on its way");
    }
    let window = desk.run.ladder()[Rung::ParkedWindow];
    assert!(window < Duration::from_secs(1) && window < BRIEF);
    desk.now += window;
    let formed = forms(&desk.event(RunEvent::Tick));
    assert_eq!(formed.len(), 2);
    assert_eq!((formed[0].1.generation, formed[0].1.start_step), (Generation(4), Some(Step(4))));
}

#[test]
fn a_generation_that_reaches_no_step_is_given_up() {
    let mut desk = Desk::training(2, 3);
    let mut effects = Vec::new();
    while desk.now < 2 * GRACE {
        desk.now += Duration::from_secs(1);
        for m in 1..=2 {
            effects.extend(desk.say(m, Report::Heartbeat { next_step: Some(Step(3)) }));
        }
    }
    assert_eq!(aborted(&effects), [1, 2]);
    assert_eq!(desk.run.losses(), 0, "who leaves in time is no loss");
}

/// A worker cannot leave in the midst of its forward, however long that takes.
#[test]
fn where_steps_are_slow_there_is_time_to_end_the_one_in_flight() {
    let mut desk = Desk::training(3, 1);
    let alive = |desk: &mut Desk, seconds: u64, members: std::ops::RangeInclusive<u64>| {
        let mut effects = Vec::new();
        for _ in 0..seconds {
            desk.now += Duration::from_secs(1);
            for m in members.clone() {
                effects.extend(desk.say(m, Report::Heartbeat { next_step: None }));
            }
        }
        effects
    };
    let step = Duration::from_secs(30);
    for s in 1..6 {
        alive(&mut desk, step.as_secs(), 1..=3);
        for m in 1..=3 {
            desk.commit(m, 1, s);
        }
    }
    desk.leave(1, 1, Some(6), LeaveKind::Collective);
    alive(&mut desk, (step * MEDIAN_STEPS).as_secs() - 1, 1..=3);
    assert!(desk.now > GRACE && step * MEDIAN_STEPS > GRACE && desk.run.losses() == 0, "they compute yet");
    desk.leave(2, 1, Some(6), LeaveKind::Aborted);
    assert_eq!(forms(&alive(&mut desk, 1, 1..=3)).len(), 2, "the one that hangs is lost");
    assert_eq!(desk.run.losses(), 1);
}

#[test]
fn the_odd_digest_is_outvoted_and_receives() {
    let mut desk = Desk::training(3, 3);
    desk.lose(1);
    let mut formed = Vec::new();
    for (m, digest) in [(2, 7), (3, 8)] {
        let left = Left {
            generation: Generation(1),
            next_step: Some(Step(3)),
            digest: Some(digest),
            kind: LeaveKind::Aborted,
            message: String::new(),
            lost_rank: None,
        };
        formed = forms(&desk.say(m, Report::Left(left)));
    }
    assert!(formed.iter().all(|(_, f)| f.source.is_none()), "of two nobody is to be trusted: {formed:?}");

    let candidate = |member, digest| Candidate { member: MemberId(member), next_step: Some(Step(4)), digest };
    assert_eq!(odd_ones(&[candidate(1, Some(7)), candidate(2, Some(8)), candidate(3, Some(8))]), [MemberId(1)]);
    assert_eq!(odd_ones(&[candidate(1, Some(7)), candidate(2, Some(8))]), [MemberId(1), MemberId(2)]);
    assert!(odd_ones(&[candidate(1, None), candidate(2, Some(8)), candidate(3, Some(8))]).is_empty());
}

#[test]
fn a_slow_member_is_named_once() {
    let mut desk = Desk::training(2, 0);
    let mut named = Vec::new();
    for step in 0..10 {
        for (m, collective_wait_s) in [(1, 0.0), (2, 0.7)] {
            let report = StepReport {
                generation: Generation(1),
                step: Step(step),
                seconds: 1.0,
                collective_wait_s,
                ..StepReport::default()
            };
            named.extend(desk.say(m, Report::Committed(report)).into_iter().filter_map(|e| match e {
                RunEffect::Announce(Notice::Straggler { member, .. }) => Some(member.0),
                _ => None,
            }));
        }
    }
    assert_eq!(named, [1]);
}
