//! Who is connected to a coordinator: at most one session a member, a newer one takes the older one's place. A session
//! has a number, so that what an older one still says, its end included, is nobody's word.
//!
//! A member is a process. A worker that comes back names the number that it was given; it keeps it if the run knows that
//! number as this process (host and process id), and is a new member otherwise.

use crate::ids::MemberId;
use crate::run::{Join, LossCause, Report, Run, RunEvent};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// Names one session of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Whose.
    pub member: MemberId,
    leader: u64,
    number: u64,
}

/// What became of a join.
#[derive(Debug, PartialEq, Eq)]
pub struct Seated<W> {
    /// The new session.
    pub seat: Seat,
    /// The worker goes on under the number that it had.
    pub again: bool,
    /// The member's older session, whose place this one takes: it is to end.
    pub replaced: Option<W>,
}

/// See the module. `W` is what a shell reaches a session by.
#[derive(Debug)]
pub struct Sessions<W> {
    open: BTreeMap<MemberId, (u64, W)>,
    leader: u64,
    next_member: MemberId,
    next_number: u64,
}

impl<W> Sessions<W> {
    /// Nobody yet has a session with this leader; new members are numbered from `first_member` on. One process may lead
    /// more than once, and what is still said to its earlier self is nobody's word.
    #[must_use]
    pub fn new(leader: u64, first_member: MemberId) -> Self {
        Self { open: BTreeMap::new(), leader, next_member: first_member, next_number: 0 }
    }

    /// Opens a session of a worker that joins `run`, which is to hear of it.
    pub fn open(&mut self, run: &Run, join: &Join, way: W) -> Seated<W> {
        let known = join.member.filter(|&member| run.join_of(member).is_some_and(|known| same_process(known, join)));
        let member = known.unwrap_or_else(|| {
            let fresh = self.next_member;
            self.next_member = fresh.next();
            fresh
        });
        let number = self.next_number;
        self.next_number += 1;
        let replaced = self.open.insert(member, (number, way)).map(|(_, way)| way);
        Seated { seat: Seat { member, leader: self.leader, number }, again: known.is_some(), replaced }
    }

    /// The way to the member, if it has a session.
    #[must_use]
    pub fn way(&self, member: MemberId) -> Option<&W> {
        self.open.get(&member).map(|(_, way)| way)
    }

    /// The member's session is no more; the way to its end.
    pub fn close(&mut self, member: MemberId) -> Option<W> {
        self.open.remove(&member).map(|(_, way)| way)
    }

    /// What the run hears when a session says something; `None`: it was replaced, or has ended.
    #[must_use]
    pub fn said(&self, seat: Seat, report: Report) -> Option<RunEvent> {
        self.is_current(seat).then_some(RunEvent::Reported { member: seat.member, report })
    }

    /// What the run hears when a session breaks; `None`: another one has taken its place, or it was closed.
    pub fn broke(&mut self, seat: Seat, how: String) -> Option<RunEvent> {
        if !self.is_current(seat) {
            return None;
        }
        self.close(seat.member);
        Some(RunEvent::Disconnected { member: seat.member, how })
    }

    fn is_current(&self, seat: Seat) -> bool {
        let stands = self.open.get(&seat.member).is_some_and(|(number, _)| *number == seat.number);
        stands && seat.leader == self.leader
    }
}

/// What `run` hears when the parent of a worker saw it end: whoever it was is lost, and nobody waits for it.
#[must_use]
pub fn process_ended(run: &Run, host: &str, pid: u32, how: &str) -> Vec<RunEvent> {
    let lost = |member| RunEvent::Lost { member, cause: LossCause::Exited { how: how.into() } };
    run.of_process(host, pid).map(lost).chain([RunEvent::WillNotJoin]).collect()
}

/// Whether the worker that joins may be the one that is known by its number. Numbers of workers that waited while the
/// coordinator died are in no record, so another one may have been given the same since. Of those that a takeover
/// brought along nothing but the number is known.
fn same_process(known: &Join, joins: &Join) -> bool {
    known.pid == 0 || (known.pid, &known.host) == (joins.pid, &joins.host)
}
