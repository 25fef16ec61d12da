//! Who is connected, by member: at most one session each, a newer one takes the older one's place. A session has a
//! number, so that what an older one still says, its end included, is nobody's word.

use pixfleet_cluster::MemberId;
use pixfleet_cluster::run::{Join, MemberView, Order};
use pixfleet_proto::{FleetError, pb};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tonic::Status;

/// Where a session's orders go.
pub(crate) type Orders = mpsc::Sender<Result<pb::Order, Status>>;

/// Names one session of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) member: MemberId,
    number: u64,
}

/// Why an order did not reach its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The worker does not read its orders.
    Full,
    /// The session has ended.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sessions {
    open: BTreeMap<MemberId, (u64, Orders)>,
    next_member: MemberId,
    next_number: u64,
}

impl Sessions {
    /// Nobody; new members are numbered from `first_member` on.
    pub(crate) fn new(first_member: MemberId) -> Self {
        Self { open: BTreeMap::new(), next_member: first_member, next_number: 0 }
    }

    /// Opens a session. `known` is the member of the run that the worker says it is, if there is one.
    pub(crate) fn open(&mut self, join: &Join, known: Option<&MemberView>, orders: Orders) -> Seat {
        let member = known.filter(|m| same_process(&m.join, join)).map(|m| m.member).unwrap_or_else(|| {
            let fresh = self.next_member;
            self.next_member = fresh.next();
            fresh
        });
        let number = self.next_number;
        self.next_number += 1;
        self.open.insert(member, (number, orders));
        Seat { member, number }
    }

    /// Whether the session is its member's newest, and open.
    pub(crate) fn is_current(&self, seat: Seat) -> bool {
        self.open.get(&seat.member).is_some_and(|(number, _)| *number == seat.number)
    }

    /// Queues an order; to whom there is no session, it is not said.
    pub(crate) fn send(&mut self, member: MemberId, order: Order) -> Result<(), Unsent> {
        let Some((_, orders)) = self.open.get(&member) else { return Ok(()) };
        match orders.try_send(Ok(order.into())) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Unsent::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
        self.close(member);
        Err(Unsent::Closed)
    }

    /// Ends the member's session once it has read what is queued.
    pub(crate) fn close(&mut self, member: MemberId) {
        self.open.remove(&member);
    }

    /// Ends the member's session with `error`.
    pub(crate) fn refuse(&mut self, member: MemberId, error: FleetError) {
        if let Some((_, orders)) = self.open.remove(&member) {
            // A session that takes no more, or is gone, ends all the same.
            let _ = orders.try_send(Err(error.into()));
        }
    }
}

/// Whether the worker that joins may be the one that is known by its number. Numbers of workers that waited while the
/// coordinator died are in no record, so another one may have been given the same since. Of those that a takeover
/// brought along nothing but the number is known.
fn same_process(known: &Join, joins: &Join) -> bool {
    known.pid == 0 || (known.pid, &known.host) == (joins.pid, &joins.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(member: u64, pid: u32) -> MemberView {
        let join = Join { pid, ..Join::default() };
        MemberView { member: MemberId(member), join, rank: None, next_step: None, state: "standby", speed: None }
    }

    fn orders() -> Orders {
        mpsc::channel(1).0
    }

    #[test]
    fn a_number_is_kept_by_its_process_and_by_no_other() {
        let mut sessions = Sessions::new(MemberId(5));
        let join = |pid| Join { pid, member: Some(MemberId(3)), ..Join::default() };
        assert_eq!(sessions.open(&join(7), None, orders()).member, MemberId(5), "nobody knows number 3");
        assert_eq!(sessions.open(&join(7), Some(&view(3, 7)), orders()).member, MemberId(3));
        assert_eq!(sessions.open(&join(8), Some(&view(3, 7)), orders()).member, MemberId(6), "another process");
        assert_eq!(sessions.open(&join(8), Some(&view(4, 0)), orders()).member, MemberId(4), "brought along");
    }

    #[test]
    fn a_newer_session_takes_the_place_of_an_older_one() {
        let mut sessions = Sessions::new(MemberId(1));
        let join = Join { pid: 7, ..Join::default() };
        let (old, mut read) = mpsc::channel(1);
        let first = sessions.open(&join, None, old);
        let second = sessions.open(&join, Some(&view(1, 7)), orders());
        assert_eq!(first.member, second.member);
        assert!(!sessions.is_current(first) && sessions.is_current(second));
        assert!(matches!(read.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)), "the older one has ended");
    }

    #[test]
    fn a_worker_that_does_not_read_and_one_that_is_gone() {
        let mut sessions = Sessions::new(MemberId(1));
        let order = || Order::Recorded { through: pixfleet_cluster::Step(1) };
        let (sender, read) = mpsc::channel(1);
        let member = sessions.open(&Join::default(), None, sender).member;
        assert_eq!(sessions.send(member, order()), Ok(()));
        assert_eq!(sessions.send(member, order()), Err(Unsent::Full));
        drop(read);
        assert_eq!(sessions.send(member, order()), Err(Unsent::Closed));
        assert_eq!(sessions.send(member, order()), Ok(()), "there is no session any more");
    }
}
