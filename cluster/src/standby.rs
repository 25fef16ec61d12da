//! A coordinator that stands by while another one leads: it says when to look, and when to take over.
//!
//! Two signs of life are followed: the leader's wire, which breaks at once if its process dies and soon if its machine
//! goes, and the run's ledger, which grows while it writes. Only a leader that gives neither for the silence that the
//! run file allows is taken over from, and only after a last look into the ledger. Being wrong costs no step: the ledger
//! decides who leads, and the workers go to whom it names.

use crate::run::Outcome;
use crate::spec::{Ladder, Rung};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// What the run's ledger says of who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// The leader that opened the run last; 0 if there never was one.
    pub leader: u64,
    /// Segments of the ledger.
    pub segments: u64,
    /// How it ended the run, if it did.
    pub closed: Option<Outcome>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandbyEvent {
    /// The ledger was read.
    Looked(Sighting),
    /// The ledger could not be read.
    Blind,
    /// The leader's wire is open.
    Reached,
    /// The leader's wire broke, or could not be opened.
    Unreached,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandbyEffect {
    /// Read the ledger; answer with [`StandbyEvent::Looked`] or [`StandbyEvent::Blind`].
    Look,
    /// Open the wire of this leader, and keep it open; answer with [`StandbyEvent::Reached`], and with
    /// [`StandbyEvent::Unreached`] when it is no more. An older leader's wire is of no interest any more.
    Reach {
        /// Its number.
        leader: u64,
    },
    /// Lead the run.
    TakeOver,
    /// End: the leader has ended the run.
    Retire(Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Closed,
    Opening,
    Open,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Standby {
    silence: Duration,
    follow: Duration,
    /// Leaders up to this one are the past: a run that they closed is there to be led again.
    past: Option<u64>,
    seen: Sighting,
    wire: Wire,
    /// When the leader last gave a sign of life.
    sign: Duration,
    reach_at: Duration,
    look_at: Duration,
    looking: bool,
}

impl Standby {
    /// Stands by from `now` on.
    #[must_use]
    pub fn new(now: Duration, ladder: &Ladder) -> Self {
        Self {
            silence: ladder[Rung::StandbySilence],
            follow: ladder[Rung::StandbyFollow],
            past: None,
            seen: Sighting { leader: 0, segments: 0, closed: None },
            wire: Wire::Closed,
            sign: now,
            reach_at: now,
            look_at: now,
            looking: false,
        }
    }

    /// Another one was quicker, or leads now: stands by again.
    pub fn stand_aside(&mut self, now: Duration) {
        (self.wire, self.looking) = (Wire::Closed, false);
        (self.sign, self.reach_at, self.look_at) = (now, now, now);
    }

    /// The leader that it follows; 0 before its first look.
    #[must_use]
    pub fn leader(&self) -> u64 {
        self.seen.leader
    }

    /// When it wants to hear of the time.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let look = (!self.looking).then_some(self.look_at);
        let reach = self.may_reach().then_some(self.reach_at);
        look.into_iter().chain(reach).min()
    }

    fn may_reach(&self) -> bool {
        self.wire == Wire::Closed && self.seen.leader > 0
    }

    /// One event, and what follows from it.
    pub fn handle(&mut self, now: Duration, event: StandbyEvent) -> Vec<StandbyEffect> {
        let end = match event {
            StandbyEvent::Looked(sighting) => self.looked(now, sighting),
            StandbyEvent::Blind => {
                // A store that does not answer would not take a new leader's record either.
                self.look_again(now);
                None
            }
            StandbyEvent::Reached => {
                (self.wire, self.sign) = (Wire::Open, now);
                None
            }
            StandbyEvent::Unreached => {
                self.unreached(now);
                None
            }
            StandbyEvent::Tick => None,
        };
        if let Some(end) = end {
            return vec![end];
        }
        self.due(now)
    }

    fn due(&mut self, now: Duration) -> Vec<StandbyEffect> {
        let mut effects = Vec::new();
        if !self.looking && now >= self.look_at {
            self.looking = true;
            effects.push(StandbyEffect::Look);
        }
        if self.may_reach() && now >= self.reach_at {
            self.wire = Wire::Opening;
            effects.push(StandbyEffect::Reach { leader: self.seen.leader });
        }
        effects
    }

    fn looked(&mut self, now: Duration, sighting: Sighting) -> Option<StandbyEffect> {
        let before = std::mem::replace(&mut self.seen, sighting);
        let past = *self.past.get_or_insert(match sighting.closed {
            Some(_) => sighting.leader,
            None => sighting.leader.saturating_sub(1),
        });
        if sighting.leader <= past {
            return Some(StandbyEffect::TakeOver);
        }
        if let Some(outcome) = sighting.closed {
            return Some(StandbyEffect::Retire(outcome));
        }
        if sighting.leader > before.leader {
            (self.wire, self.reach_at) = (Wire::Closed, now);
        }
        if sighting.segments > before.segments {
            self.sign = now;
        }
        if self.wire != Wire::Open && now >= self.sign + self.silence {
            return Some(StandbyEffect::TakeOver);
        }
        self.look_again(now);
        None
    }

    /// Seldom while the wire says that the leader lives, else when its silence is over: that look decides.
    fn look_again(&mut self, now: Duration) {
        self.looking = false;
        self.look_at = match self.wire {
            Wire::Open => now + self.follow,
            Wire::Closed | Wire::Opening => (self.sign + self.silence).max(now + self.silence / 4),
        };
    }

    fn unreached(&mut self, now: Duration) {
        if self.wire == Wire::Open {
            // It may have ended the run in good order, and have said so in the ledger.
            (self.sign, self.look_at) = (now, now);
        }
        (self.wire, self.reach_at) = (Wire::Closed, now + self.silence / 8);
    }
}
