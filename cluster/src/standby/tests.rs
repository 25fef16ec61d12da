//! A standby beside leaders that live, die, hide and end.

use super::*;
use proptest::prelude::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What a standby can see of the world.
#[derive(Debug, Clone, Copy)]
struct World {
    /// `None`: the store does not answer.
    ledger: Option<Sighting>,
    reachable: bool,
}

/// A standby whose looks and attempts are answered at once.
struct Desk {
    standby: Standby,
    now: Duration,
    wire: bool,
    looks: u32,
}

impl Desk {
    fn new() -> Self {
        Self { standby: Standby::new(ms(0), &Ladder::default()), now: ms(0), wire: false, looks: 0 }
    }

    /// Runs in steps of 10 ms until `until`, or until it takes over or retires: what and when.
    fn run(&mut self, until: Duration, world: impl Fn(Duration) -> World) -> Option<(StandbyEffect, Duration)> {
        while self.now < until {
            let world = world(self.now);
            let mut events = vec![StandbyEvent::Tick];
            if self.wire && !world.reachable {
                self.wire = false;
                events.push(StandbyEvent::Unreached);
            }
            while let Some(event) = events.pop() {
                for effect in self.standby.handle(self.now, event) {
                    match effect {
                        StandbyEffect::Look => {
                            self.looks += 1;
                            events.push(world.ledger.map_or(StandbyEvent::Blind, StandbyEvent::Looked));
                        }
                        StandbyEffect::Reach { .. } => {
                            self.wire = world.reachable;
                            events.push(if self.wire { StandbyEvent::Reached } else { StandbyEvent::Unreached });
                        }
                        StandbyEffect::TakeOver | StandbyEffect::Retire(_) => return Some((effect, self.now)),
                    }
                }
            }
            self.now += ms(10);
        }
        None
    }
}

fn led(leader: u64, segments: u64) -> Sighting {
    Sighting { leader, segments, closed: None }
}

fn seen(sighting: Sighting, reachable: bool) -> World {
    World { ledger: Some(sighting), reachable }
}

#[test]
fn a_run_that_nobody_leads_is_led_at_once() {
    let closed = Sighting { leader: 3, segments: 9, closed: Some(Outcome::Drained) };
    for sighting in [led(0, 0), closed] {
        assert_eq!(Desk::new().run(ms(100), |_| seen(sighting, false)), Some((StandbyEffect::TakeOver, ms(0))));
    }
}

#[test]
fn a_leader_that_answers_is_left_alone_and_asked_seldom() {
    let mut desk = Desk::new();
    assert_eq!(desk.run(ms(600_000), |_| seen(led(1, 4), true)), None);
    assert!((55..=65).contains(&desk.looks), "{} looks in ten minutes", desk.looks);
}

#[test]
fn a_leader_that_dies_is_taken_over_from_after_its_silence() {
    let died = ms(60_000);
    let mut desk = Desk::new();
    let (effect, at) = desk.run(ms(70_000), |now| seen(led(1, 4), now < died)).expect("an end");
    let silence = Ladder::default()[Rung::StandbySilence];
    assert_eq!(effect, StandbyEffect::TakeOver);
    assert!(at >= died + silence && at <= died + silence + ms(20), "{at:?}");
}

#[test]
fn a_leader_that_only_this_standby_cannot_reach_leads_on_while_its_ledger_grows() {
    let mut desk = Desk::new();
    let world = |now: Duration| seen(led(1, 4 + now.as_millis() as u64 / 900), false);
    assert_eq!(desk.run(ms(600_000), world), None);
    assert_eq!(
        desk.run(ms(610_000), |_| seen(led(1, 10_000), false)).map(|(effect, _)| effect),
        Some(StandbyEffect::TakeOver)
    );
}

#[test]
fn a_run_that_its_leader_ended_is_over_for_who_stood_by() {
    for outcome in [Outcome::Done, Outcome::Drained, Outcome::Fault] {
        let mut desk = Desk::new();
        let ended = ms(5_000);
        let world = |now| match now < ended {
            true => seen(led(1, 4), true),
            false => seen(Sighting { leader: 1, segments: 5, closed: Some(outcome) }, false),
        };
        assert_eq!(desk.run(ms(20_000), world), Some((StandbyEffect::Retire(outcome), ended)), "the broken wire tells");
    }
}

#[test]
fn a_standby_that_was_not_the_quickest_follows_who_was() {
    let mut desk = Desk::new();
    assert_eq!(desk.run(ms(100), |_| seen(led(0, 0), false)), Some((StandbyEffect::TakeOver, ms(0))));
    desk.standby.stand_aside(desk.now);
    assert_eq!(desk.run(ms(5_000), |_| seen(led(1, 1), true)), None);
    assert_eq!(desk.standby.leader(), 1);
    // Another one took over from that one while the wire was open.
    assert_eq!(desk.run(ms(20_000), |_| seen(led(2, 3), true)), None);
    assert_eq!(desk.standby.leader(), 2);
    let over = Sighting { leader: 2, segments: 8, closed: Some(Outcome::Done) };
    assert_eq!(
        desk.run(ms(40_000), |_| seen(over, false)).map(|(effect, _)| effect),
        Some(StandbyEffect::Retire(Outcome::Done))
    );
}

#[test]
fn nobody_takes_over_without_having_looked() {
    let (died, sees) = (ms(5_000), ms(60_000));
    let mut desk = Desk::new();
    let world = |now| World { ledger: (now < died || now >= sees).then_some(led(1, 4)), reachable: now < died };
    let (effect, at) = desk.run(ms(90_000), world).expect("an end");
    assert_eq!(effect, StandbyEffect::TakeOver);
    assert!(at >= sees && at < sees + ms(500), "{at:?}");
}

proptest! {
    #[test]
    fn it_waits_for_the_silence_after_any_sign_of_life(
        reachable in prop::collection::vec(any::<bool>(), 40),
        grows in prop::collection::vec(any::<bool>(), 40),
    ) {
        // Each of forty half seconds the leader may be reached or not, and write or not.
        let slot = |now: Duration| (now.as_millis() / 500) as usize;
        let world = |now: Duration| {
            let at = slot(now).min(39);
            let segments = 1 + grows[..=at].iter().filter(|g| **g).count() as u64;
            seen(led(1, segments), reachable[at])
        };
        let mut desk = Desk::new();
        if let Some((effect, at)) = desk.run(ms(20_000), world) {
            prop_assert_eq!(effect, StandbyEffect::TakeOver);
            let quiet = slot(at.saturating_sub(Ladder::default()[Rung::StandbySilence])) + 1..slot(at);
            prop_assert!(quiet.clone().all(|s| !reachable[s] && !grows[s]), "reached within {:?}", quiet);
        }
    }
}
