//! The machine behind the ledger: records in, numbered create-only segments out, one at a time, in groups of about a
//! second or at once when somebody waits.
//!
//! Segment n is created only after segment n-1 was, and names its digest. So of two coordinators that write one run
//! exactly one gets a number: the chain is the fence, and whoever meets a rival in it leads no more. Whoever has nothing
//! to write looks for one now and then, so that workers are not kept waiting by a leader that is none.

use crate::create::{Answer, Ask, Creation, Next, Settled};
use crate::ledger::{LEDGER_SCHEMA, Record};
use crate::rng::mix;
use crate::run::Now;
use std::collections::VecDeque;
use std::time::Duration;

/// Records of this long are written together.
pub const GROUP: Duration = Duration::from_secs(1);
/// A coordinator that has had nothing to write for so long looks whether another one has.
pub const PROBE: Duration = Duration::from_secs(10);
/// Records that may wait for the store: hours of steps, some hundred megabytes at worst.
pub const WAITING_MAX: usize = 100_000;

/// Names that nobody else draws, from a seed that nobody else has.
#[derive(Debug)]
pub struct Nonces(u64);

impl Nonces {
    /// `seed` must come from the operating system (or from a simulation's seed).
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    pub fn draw(&mut self) -> String {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        format!("{:016x}", mix(self.0))
    }
}

/// What came of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Ask this.
    Ask(Ask),
    /// Nothing yet.
    Waiting,
    /// The first so many records ever pushed are in the store.
    Durable(u64),
    /// Another coordinator wrote this segment: it leads.
    Deposed,
    /// The store does not take it.
    Broken(String),
}

#[derive(Debug)]
struct Writing {
    creation: Creation,
    digest: String,
    /// Records that are in the store once it is.
    through: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Journal {
    next: u64,
    digest: String,
    nonces: Nonces,
    /// How long a store that fails is asked again.
    patience: Duration,
    queue: VecDeque<Record>,
    since: Option<Now>,
    hurry: bool,
    pushed: u64,
    writing: Option<Writing>,
    /// When the store was last heard of; `None`: never.
    heard: Option<Now>,
    /// It is asked whether somebody has written the next segment.
    probing: bool,
}

impl Journal {
    /// Goes on behind segment `next - 1`, whose blake3 is `digest`. A store that fails for as long as `patience` is given
    /// up.
    #[must_use]
    pub fn new(next: u64, digest: String, nonces: Nonces, patience: Duration) -> Self {
        let (queue, since) = (VecDeque::new(), None);
        let (heard, probing) = (None, false);
        Self { next, digest, nonces, patience, queue, since, hurry: false, pushed: 0, writing: None, heard, probing }
    }

    /// Queues a record; its number, counted from 1, or `None` if too many wait.
    pub fn push(&mut self, now: Now, record: Record) -> Option<u64> {
        if self.queue.len() >= WAITING_MAX {
            return None;
        }
        self.queue.push_back(record);
        self.since.get_or_insert(now);
        self.pushed += 1;
        Some(self.pushed)
    }

    /// Records ever pushed.
    #[must_use]
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Somebody waits for what was pushed so far: do not wait for the group's end. The number of the last record.
    pub fn hurry(&mut self) -> u64 {
        self.hurry = true;
        self.pushed
    }

    /// When [`Journal::poll`] must come.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        match &self.writing {
            _ if self.probing => None,
            Some(writing) => writing.creation.deadline(),
            None if self.queue.is_empty() => self.heard.map(|heard| heard + PROBE),
            None => self.since.map(|since| if self.hurry { since } else { since + GROUP }),
        }
    }

    /// The next ask, if its time has come.
    pub fn poll(&mut self, now: Now) -> Option<Ask> {
        if let Some(writing) = &mut self.writing {
            return writing.creation.tick(now);
        }
        if self.queue.is_empty() {
            self.hurry = false;
        }
        self.deadline().filter(|&at| now >= at)?;
        if self.queue.is_empty() {
            self.probing = true;
            return Some(Ask::Read { key: Record::segment_key(self.next) });
        }
        let header = Record::Segment {
            schema: LEDGER_SCHEMA,
            number: self.next,
            previous: self.digest.clone(),
            nonce: self.nonces.draw(),
        };
        let text: String = std::iter::once(&header).chain(&self.queue).map(Record::to_line).collect();
        self.queue.clear();
        (self.since, self.hurry) = (None, false);
        let digest = blake3::hash(text.as_bytes()).to_hex().to_string();
        let key = Record::segment_key(self.next);
        let (creation, ask) = Creation::begin(now, self.patience, key, text.into_bytes());
        self.writing = Some(Writing { creation, digest, through: self.pushed });
        Some(ask)
    }

    /// Takes in the answer to the last ask.
    pub fn answered(&mut self, now: Now, answer: Answer) -> Progress {
        self.heard = Some(now);
        if std::mem::take(&mut self.probing) {
            return if matches!(answer, Answer::Body(_)) { Progress::Deposed } else { Progress::Waiting };
        }
        let Some(writing) = &mut self.writing else { return Progress::Waiting };
        match writing.creation.answered(now, answer) {
            Next::Ask(ask) => Progress::Ask(ask),
            Next::Wait => Progress::Waiting,
            Next::Over(Settled::Rival(_)) => Progress::Deposed,
            Next::Over(Settled::Failed(message)) => Progress::Broken(message),
            Next::Over(Settled::Created) => {
                let through = writing.through;
                self.digest = std::mem::take(&mut writing.digest);
                self.next += 1;
                self.writing = None;
                Progress::Durable(through)
            }
        }
    }

    /// Whether everything is in the store.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.writing.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::parse_lines;

    fn journal() -> Journal {
        Journal::new(3, "before".into(), Nonces::new(1), 100 * GROUP)
    }

    fn record(n: u64) -> Record {
        Record::Closed { outcome: n.to_string(), message: String::new() }
    }

    #[test]
    fn records_are_grouped_and_chained() {
        let mut journal = journal();
        assert_eq!(journal.push(Now::ZERO, record(1)), Some(1));
        assert_eq!(journal.push(GROUP / 2, record(2)), Some(2));
        assert_eq!(journal.poll(GROUP / 2), None, "the group's time is not over");
        let Some(Ask::Create { key, body }) = journal.poll(GROUP) else { panic!("the group's time is over") };
        assert_eq!(key, Record::segment_key(3));
        let records = parse_lines(std::str::from_utf8(&body).expect("text")).expect("records");
        assert!(matches!(&records[0], Record::Segment { number: 3, previous, .. } if previous == "before"));
        assert_eq!(records[1..], [record(1), record(2)]);

        // What comes meanwhile waits for the next segment, which names this one.
        journal.push(GROUP, record(3));
        assert_eq!(journal.hurry(), 3);
        assert_eq!(journal.poll(GROUP), None, "one at a time");
        assert_eq!(journal.answered(GROUP, Answer::Created), Progress::Durable(2));
        let Some(Ask::Create { body: second, .. }) = journal.poll(GROUP) else { panic!("somebody waits") };
        let records = parse_lines(std::str::from_utf8(&second).expect("text")).expect("records");
        let digest = blake3::hash(&body).to_hex().to_string();
        assert!(matches!(&records[0], Record::Segment { number: 4, previous, .. } if *previous == digest));
        assert_eq!(journal.answered(GROUP, Answer::Created), Progress::Durable(3));
        assert!(journal.is_idle());
    }

    #[test]
    fn whoever_has_nothing_to_write_looks_for_a_rival() {
        let mut journal = journal();
        journal.push(Now::ZERO, record(1));
        journal.hurry();
        assert!(journal.poll(Now::ZERO).is_some());
        journal.answered(Now::ZERO, Answer::Created);
        assert_eq!((journal.deadline(), journal.poll(PROBE / 2)), (Some(PROBE), None));
        let ask = Some(Ask::Read { key: Record::segment_key(4) });
        assert_eq!(journal.poll(PROBE), ask);
        let absent = Answer::Failed { retry: true, message: "404".into() };
        assert_eq!(journal.answered(PROBE, absent), Progress::Waiting);
        assert_eq!(journal.poll(2 * PROBE), ask);
        // What is pushed meanwhile waits for the answer.
        journal.push(2 * PROBE, record(2));
        assert_eq!((journal.hurry(), journal.poll(2 * PROBE)), (2, None));
        assert_eq!(journal.answered(2 * PROBE, Answer::Body(b"theirs".to_vec())), Progress::Deposed);
    }

    #[test]
    fn a_rival_in_the_chain_deposes() {
        let mut journal = journal();
        journal.push(Now::ZERO, record(1));
        journal.hurry();
        assert!(journal.poll(Now::ZERO).is_some());
        assert!(matches!(journal.answered(Now::ZERO, Answer::Exists), Progress::Ask(Ask::Read { .. })));
        assert_eq!(journal.answered(Now::ZERO, Answer::Body(b"theirs".to_vec())), Progress::Deposed);
    }
}
