//! Everything that is there, and the one loop that lets time pass.

use super::clock::{Dice, Queue};
use super::coordinator::Coordinator;
use super::faults::{Fault, Fired};
use super::group::Group;
use super::habits::Habits;
use super::net::{Net, SessionId, Side};
use super::oracle::{Oracle, Violation};
use super::setup::Setup;
use super::store::{CLOSED, Put, Store};
use super::worker::Worker;
use crate::create::Answer;
use crate::ids::{Generation, Step};
use crate::lead::Request;
use crate::rng::mix;
use crate::run::{Now, Order, Outcome, Report};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// More happenings than any schedule needs: a world that comes to them goes round in circles.
const HAPPENINGS_MAX: u64 = 2_000_000;
/// Hosts of workers.
const HOSTS: u64 = 3;
/// How often the fleet's owner looks whether enough workers live.
const CENSUS: Duration = Duration::from_secs(5);

/// One process of a coordinator; a restarted one is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CoordinatorId(pub(super) u64);

impl fmt::Display for CoordinatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "coordinator {}", self.0)
    }
}

/// One process of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorkerId(pub(super) u64);

impl WorkerId {
    /// Its host, and its process id there: each host counts its own.
    pub(super) fn process(self) -> (String, u32) {
        let pid = u32::try_from(self.0 / HOSTS + 1).expect("no schedule starts that many");
        (format!("host-{}", self.0 % HOSTS), pid)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.0)
    }
}

/// Something happens to a coordinator.
#[derive(Debug)]
pub(super) enum ToCoordinator {
    /// It reads the ledger.
    ReadsLedger,
    /// It has read the ledger, and reads which manifests there are.
    ReadsManifests(Vec<crate::ledger::Record>),
    /// It has read all.
    Opens(Vec<crate::ledger::Record>, Vec<(Step, Generation)>),
    Answered(Request, Answer),
    /// What the machine asked to be woken for at this time.
    Tick(Now),
    Said(SessionId, Report),
    Ended(SessionId),
    /// A child process ended.
    ChildEnded {
        host: String,
        pid: u32,
    },
    /// It tries to announce itself.
    Announces,
    /// It tries to write that the run is over.
    Concludes(Outcome),
    /// It is done.
    Goes,
}

/// Something happens to a worker.
#[derive(Debug)]
pub(super) enum ToWorker {
    /// The control side is up.
    Wakes,
    /// Model and data are open.
    Warm,
    Tick(Now),
    /// The attempt of this number to find the leader is over.
    Finds(u64),
    Ordered(SessionId, Order),
    Ended(SessionId),
    /// SIGTERM.
    Term,
    /// The trainer's activity of this token is over.
    Activity(u64),
    /// Its collective is over.
    Collective(u64),
    /// It has waited long enough for its collective.
    TimedOut(u64),
    /// Its part of a checkpoint is in the store.
    Uploaded(super::trainer::Upload),
}

/// Something happens.
#[derive(Debug)]
pub(super) enum What {
    Fault(usize),
    Coordinator(CoordinatorId, ToCoordinator),
    Worker(WorkerId, ToWorker),
    /// The next message arrives at this end.
    Arrive(SessionId, Side),
    /// This end notices that its session broke.
    Notice(SessionId, Side),
    Put(Put),
    StartCoordinator,
    StartWorker,
    Kill(WorkerId, bool),
    Census,
    /// Whether those go on who trained when nobody led any more.
    Vigil(Now),
}

/// See the module.
pub(super) struct World {
    pub(super) now: Now,
    pub(super) queue: Queue<What>,
    pub(super) setup: Setup,
    pub(super) store: Store,
    pub(super) net: Net,
    pub(super) coordinators: BTreeMap<CoordinatorId, Coordinator>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    /// Generations' collective groups.
    pub(super) groups: BTreeMap<Generation, Group>,
    pub(super) oracle: Oracle,
    pub(super) habits: Box<dyn Habits>,
    pub(super) dice: Dice,
    pub(super) faults: Vec<Fault>,
    pub(super) fired: Fired,
    pub(super) born: (u64, u64),
    /// Phases and causes so far, folded.
    pub(super) path: u64,
    /// When everything happened, folded.
    pub(super) fingerprint: u64,
    pub(super) traced: bool,
    trace: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, faults: Vec<Fault>, habits: Box<dyn Habits>, traced: bool) -> Self {
        let setup = Setup::draw(seed);
        let mut world = Self {
            now: Now::ZERO,
            queue: Queue::new(),
            store: Store::new(seed),
            net: Net::new(seed),
            coordinators: BTreeMap::new(),
            workers: BTreeMap::new(),
            groups: BTreeMap::new(),
            oracle: Oracle::default(),
            habits,
            dice: Dice::new(seed, &[4]),
            fired: Fired::default(),
            born: (0, 0),
            path: 0,
            fingerprint: 0,
            traced,
            trace: Vec::new(),
            setup,
            faults,
        };
        for (i, fault) in world.faults.iter().enumerate() {
            world.queue.push(fault.at, What::Fault(i));
        }
        world.queue.push(Now::ZERO, What::StartCoordinator);
        for _ in 0..world.setup.workers {
            let at = world.dice.ms(0..=3000);
            world.queue.push(at, What::StartWorker);
        }
        world.queue.push(CENSUS, What::Census);
        world
    }

    /// Lets time pass until everything is over or something is wrong.
    pub(super) fn run(&mut self) {
        let last = self.faults.last().map_or(Now::ZERO, |f| f.at);
        let end = self.setup.bound(last);
        for _ in 0..HAPPENINGS_MAX {
            let Some((at, number, what)) = self.queue.pop() else { return };
            self.now = at;
            self.fingerprint = mix(self.fingerprint ^ at.as_nanos() as u64 ^ mix(number));
            self.happens(what);
            if self.oracle.violation.is_some() || self.is_over() {
                return;
            }
            if self.now > end {
                let stands = self.stands();
                return self
                    .accuse("no_end", || format!("{} s after the last fault: {stands}", (end - last).as_secs()));
            }
        }
        let stands = self.stands();
        self.accuse("goes_in_circles", || stands);
    }

    fn is_over(&self) -> bool {
        self.is_closed() && self.workers.is_empty() && self.coordinators.is_empty()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.store.objects.contains_key(CLOSED)
    }

    /// For people: who is where.
    pub(super) fn stands(&self) -> String {
        let lead = |c: &Coordinator| c.lead.as_ref().map(|l| format!("{:?} {:?}", l.run().phase(), l.run().message()));
        let coordinators: Vec<_> = self.coordinators.iter().map(|(id, c)| format!("{id}: {:?}", lead(c))).collect();
        let worker = |(id, w): (&WorkerId, &Worker)| format!("{id}: {:?} {:?}", w.peer.member(), w.trainer);
        let workers: Vec<_> = self.workers.iter().map(worker).collect();
        format!("{}; {}", coordinators.join(", "), workers.join(", "))
    }

    fn happens(&mut self, what: What) {
        match what {
            What::Fault(i) => self.strike(i),
            What::Coordinator(id, event) => match self.coordinators.get(&id) {
                Some(c) if c.frozen_until > self.now => {
                    self.queue.push(c.frozen_until, What::Coordinator(id, event));
                }
                Some(_) => self.happens_to_coordinator(id, event),
                None => {}
            },
            What::Worker(id, event) => match self.workers.get(&id) {
                Some(w) if w.frozen_until > self.now => self.queue.push(w.frozen_until, What::Worker(id, event)),
                Some(_) => self.happens_to_worker(id, event),
                None => {}
            },
            What::Arrive(session, side) => self.arrive(session, side),
            What::Notice(session, side) => self.ended(session, side),
            What::Put(put) => self.put(put),
            What::StartCoordinator => {
                if !self.is_closed() && self.coordinators.is_empty() {
                    self.start_coordinator();
                }
            }
            What::StartWorker => self.start_worker(),
            What::Kill(worker, host) => self.kill_worker(worker, host),
            What::Census => self.census(),
            What::Vigil(since) => self.keep_vigil(since),
        }
    }

    /// The fleet's owner brings as many workers as the run needs.
    fn census(&mut self) {
        if self.is_closed() {
            return;
        }
        let short = u64::from(self.setup.min_workers).saturating_sub(self.workers.len() as u64);
        for _ in 0..short {
            self.start_worker();
        }
        self.queue.push(self.now + CENSUS, What::Census);
    }

    /// Adds a line to the trace, if there is one.
    pub(super) fn log(&mut self, line: impl FnOnce() -> String) {
        if self.traced {
            self.trace.push(format!("{:>11.6} {}", self.now.as_secs_f64(), line()));
        }
    }

    /// Something must not be; the first finding counts.
    pub(super) fn accuse(&mut self, name: &'static str, detail: impl FnOnce() -> String) {
        if self.oracle.violation.is_none() {
            let violation = Violation { name, at: self.now, detail: detail() };
            self.log(|| format!("VIOLATION {violation}"));
            self.oracle.violation = Some(violation);
        }
    }

    pub(super) fn walk(&mut self, word: u64) {
        self.path = mix(self.path ^ mix(word));
    }

    pub(super) fn take_trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trace)
    }
}
