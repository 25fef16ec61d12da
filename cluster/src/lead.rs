//! The machine of a coordinator: the run, the journal of its ledger and the manifests that are being created, and what
//! each must wait for of the others. The shell asks the store, carries messages and knows the time; nothing else.
//!
//! Invariants: a generation's record is in the store before anybody hears of it; all records are in the store before a
//! manifest is created; a coordinator that meets a rival in the ledger does nothing any more.

use crate::commit::{Manifest, PartEntry};
use crate::create::{Answer, Ask, Creation, Next, Settled};
use crate::ids::{Generation, RunId, Step};
use crate::journal::{Journal, Nonces, Progress};
use crate::ledger::Record;
use crate::run::{self, Now, Run};
use crate::spec::Rung;
use std::collections::{BTreeMap, VecDeque};

#[cfg(test)]
mod tests;

/// Names an ask, so that its answer finds its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// The journal's; it has one at a time.
    Journal,
    /// A manifest's.
    Manifest(Generation, Step),
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum LeadEvent {
    /// To the run.
    Run(run::RunEvent),
    /// The store answered.
    Answered(Request, Answer),
    /// [`Lead::deadline`] has come.
    Tick,
}

/// What must now be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum LeadEffect {
    /// As the run says. [`run::RunEffect::Ledger`], [`run::RunEffect::Claim`] and [`run::RunEffect::StoreManifest`] never come
    /// out, and [`run::RunEffect::Finish`] only once all records are in the store.
    Run(run::RunEffect),
    /// Ask the store.
    Ask(Request, Ask),
    /// The first record is in the store: this coordinator leads the run.
    Lead,
    /// A manifest was created: older ones may go.
    Sweep,
    /// Another coordinator leads the run: end all sessions, write nothing, go.
    Depose,
    /// The store does not take the ledger: end.
    Break {
        /// The store's words.
        message: String,
    },
}

/// What a coordinator is made from.
#[derive(Debug)]
pub struct Opening {
    /// The run's machine.
    pub run: Run,
    /// Behind which segment the journal goes on.
    pub journal: Journal,
    /// The record that makes this coordinator the leader.
    pub opened: Record,
    /// The run's name.
    pub name: RunId,
    /// Digest of the run file.
    pub spec_digest: String,
    /// The dataset version.
    pub dataset_digest: String,
    /// For manifests.
    pub nonces: Nonces,
}

/// What waits for the ledger.
#[derive(Debug)]
enum Mark {
    Opened,
    Claim(Generation),
    Steps(Step),
    Manifest(Generation, Step, Vec<PartEntry>),
    Finish(run::RunEffect),
}

/// See the module.
#[derive(Debug)]
pub struct Lead {
    run: Run,
    journal: Journal,
    nonces: Nonces,
    name: RunId,
    spec_digest: String,
    dataset_digest: String,
    /// By the number of the record that must be in the store first; numbers grow.
    marks: VecDeque<(u64, Mark)>,
    manifests: BTreeMap<(Generation, Step), Creation>,
    over: bool,
    effects: Vec<LeadEffect>,
}

impl Lead {
    /// A coordinator that has read the run, and what it does first: write the record that makes it the leader.
    #[must_use]
    pub fn open(now: Now, opening: Opening) -> (Self, Vec<LeadEffect>) {
        let Opening { run, journal, opened, name, spec_digest, dataset_digest, nonces } = opening;
        let mut lead = Self {
            run,
            journal,
            nonces,
            name,
            spec_digest,
            dataset_digest,
            marks: VecDeque::new(),
            manifests: BTreeMap::new(),
            over: false,
            effects: Vec::new(),
        };
        lead.record(now, opened);
        lead.wait_for_ledger(Mark::Opened);
        lead.poll(now);
        let effects = std::mem::take(&mut lead.effects);
        (lead, effects)
    }

    /// The run, to look at.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// When [`LeadEvent::Tick`] must come at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        if self.over {
            return None;
        }
        let manifests = self.manifests.values().filter_map(Creation::deadline).min();
        [self.run.deadline(), self.journal.deadline(), manifests].into_iter().flatten().min()
    }

    /// Takes in what happened at `now` and says what must be done.
    pub fn handle(&mut self, now: Now, event: LeadEvent) -> Vec<LeadEffect> {
        if self.over {
            return Vec::new();
        }
        match event {
            LeadEvent::Run(event) => self.run_event(now, event),
            LeadEvent::Answered(Request::Journal, answer) => self.journal_answered(now, answer),
            LeadEvent::Answered(Request::Manifest(generation, step), answer) => {
                self.manifest_answered(now, (generation, step), answer);
            }
            LeadEvent::Tick => self.run_event(now, run::RunEvent::Tick),
        }
        self.poll(now);
        std::mem::take(&mut self.effects)
    }

    fn run_event(&mut self, now: Now, event: run::RunEvent) {
        for effect in self.run.handle(now, event) {
            match effect {
                run::RunEffect::Ledger(record) => self.record(now, record),
                run::RunEffect::Claim { generation } => self.wait_for_ledger(Mark::Claim(generation)),
                run::RunEffect::StoreManifest { generation, step, parts } => {
                    self.wait_for_ledger(Mark::Manifest(generation, step, parts));
                }
                run::RunEffect::Finish { .. } => self.wait_for_ledger(Mark::Finish(effect)),
                other => self.effects.push(LeadEffect::Run(other)),
            }
        }
    }

    fn record(&mut self, now: Now, record: Record) {
        let step = if let Record::Step(step) = &record { Some(step.step) } else { None };
        let Some(number) = self.journal.push(now, record) else {
            return self.end(LeadEffect::Break { message: "the store has taken no record for too long".into() });
        };
        if let Some(step) = step {
            self.marks.push_back((number, Mark::Steps(step)));
        }
    }

    fn wait_for_ledger(&mut self, mark: Mark) {
        let number = self.journal.hurry();
        self.marks.push_back((number, mark));
    }

    fn end(&mut self, how: LeadEffect) {
        self.over = true;
        self.effects.push(how);
    }

    /// Whatever is due now.
    fn poll(&mut self, now: Now) {
        if self.over {
            return;
        }
        if self.journal.is_idle() {
            // Records that this brings about are not in the store yet.
            let through = self.journal.pushed();
            self.durable(now, through);
        }
        if let Some(ask) = self.journal.poll(now) {
            self.effects.push(LeadEffect::Ask(Request::Journal, ask));
        }
        for (&(generation, step), creation) in &mut self.manifests {
            if let Some(ask) = creation.tick(now) {
                self.effects.push(LeadEffect::Ask(Request::Manifest(generation, step), ask));
            }
        }
    }

    fn journal_answered(&mut self, now: Now, answer: Answer) {
        match self.journal.answered(now, answer) {
            Progress::Ask(ask) => self.effects.push(LeadEffect::Ask(Request::Journal, ask)),
            Progress::Waiting => {}
            Progress::Durable(through) => self.durable(now, through),
            Progress::Deposed => self.end(LeadEffect::Depose),
            Progress::Broken(message) => self.end(LeadEffect::Break { message }),
        }
    }

    /// The first `through` records are in the store.
    fn durable(&mut self, now: Now, through: u64) {
        let mut recorded = None;
        while let Some((_, mark)) = self.marks.pop_front_if(|(number, _)| *number <= through) {
            match mark {
                Mark::Opened => self.effects.push(LeadEffect::Lead),
                Mark::Claim(generation) => self.run_event(now, run::RunEvent::Claimed { generation }),
                Mark::Steps(step) => recorded = Some(step),
                Mark::Manifest(generation, step, parts) => self.create_manifest(now, (generation, step), parts),
                Mark::Finish(finish) => {
                    self.effects.push(LeadEffect::Run(finish));
                    self.over = true;
                }
            }
        }
        if let Some(through) = recorded.filter(|_| !self.over) {
            self.run_event(now, run::RunEvent::Recorded { through });
        }
    }

    fn create_manifest(&mut self, now: Now, (generation, step): (Generation, Step), parts: Vec<PartEntry>) {
        let manifest = Manifest {
            version: Manifest::VERSION,
            run: self.name.clone(),
            step,
            generation,
            world: u32::try_from(parts.len()).expect("one part a rank, and ranks are u32"),
            nonce: self.nonces.draw(),
            spec_digest: self.spec_digest.clone(),
            dataset_digest: self.dataset_digest.clone(),
            parts,
        };
        let body = serde_json::to_vec_pretty(&manifest).expect("a manifest has only JSON types");
        let patience = self.run.ladder()[Rung::LedgerPatience];
        let (creation, ask) = Creation::begin(now, patience, Manifest::key(step, generation), body);
        self.manifests.insert((generation, step), creation);
        self.effects.push(LeadEffect::Ask(Request::Manifest(generation, step), ask));
    }

    fn manifest_answered(&mut self, now: Now, at: (Generation, Step), answer: Answer) {
        let Some(creation) = self.manifests.get_mut(&at) else { return };
        let (generation, step) = at;
        let verdict = match creation.answered(now, answer) {
            Next::Ask(ask) => return self.effects.push(LeadEffect::Ask(Request::Manifest(generation, step), ask)),
            Next::Wait => return,
            Next::Over(verdict) => verdict,
        };
        self.manifests.remove(&at);
        let key = Manifest::key(step, generation);
        let event = match verdict {
            Settled::Created => {
                self.effects.push(LeadEffect::Sweep);
                run::RunEvent::ManifestStored { generation, step, key }
            }
            // An earlier leader created it and fell silent before it could say so: the parts are the same objects.
            Settled::Rival(body) if serde_json::from_slice::<Manifest>(&body).is_ok() => {
                run::RunEvent::ManifestStored { generation, step, key }
            }
            Settled::Rival(_) => {
                let message = format!("{key} is taken by something that is no manifest");
                run::RunEvent::ManifestFailed { generation, step, message }
            }
            Settled::Failed(message) => run::RunEvent::ManifestFailed { generation, step, message },
        };
        self.run_event(now, event);
    }
}
