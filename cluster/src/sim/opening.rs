//! How a coordinator's process takes a run over from its store, as `pixfleet-coordinator` does.

use super::coordinator::AGAIN;
use super::setup::{DATASET, RUN, Setup};
use super::world::{CoordinatorId, ToCoordinator, What, World};
use crate::ids::{Generation, RunId, Step};
use crate::journal::{Journal, Nonces};
use crate::lead::{Lead, Opening};
use crate::ledger::{History, Record, parse_lines};
use crate::run::{Now, Outcome, Resume, Run, RunConfig};
use crate::sessions::Sessions;
use crate::spec::Rung;
use crate::takeover::Takeover;

fn newest_surviving(history: &History, manifests: &[(Step, Generation)]) -> Option<Resume> {
    let surviving = manifests.iter().filter(|&&(step, generation)| history.survives(generation, step));
    surviving.max().map(|&(step, generation)| Resume { step, key: crate::Manifest::key(step, generation) })
}

fn config(setup: &Setup, takeover: &Takeover, resume: Option<Resume>) -> RunConfig {
    RunConfig {
        first_generation: takeover.first_generation,
        resume,
        recorded: takeover.recorded,
        adopted: takeover.adopted.clone(),
        ..setup.config()
    }
}

impl World {
    pub(super) fn read_ledger(&mut self, id: CoordinatorId) {
        if self.is_closed() {
            return self.end_coordinator(id, "the run is over");
        }
        let later = self.now + AGAIN;
        if self.store.is_down(self.now) {
            return self.queue.push(later, What::Coordinator(id, ToCoordinator::ReadsLedger));
        }
        let text = |body: &[u8]| std::str::from_utf8(body).map(parse_lines);
        let mut records = Vec::new();
        for segment in self.store.segments() {
            match text(segment) {
                Ok(Ok(lines)) => records.extend(lines),
                other => return self.accuse("unreadable_segment", || format!("{other:?}")),
            }
        }
        let at = self.now + self.store.latency(self.now);
        self.queue.push(at, What::Coordinator(id, ToCoordinator::ReadsManifests(records)));
    }

    /// As `pixfleet-coordinator` opens a run.
    pub(super) fn open(&mut self, id: CoordinatorId, records: &[Record], manifests: &[(Step, Generation)]) {
        let last = records.iter().rfind(|r| !matches!(r, Record::Segment { .. } | Record::Opened { .. }));
        if matches!(last, Some(Record::Closed { outcome, .. }) if outcome == "done") {
            // Whoever ended it fell silent before it could say so.
            return self.conclude(id, Outcome::Done);
        }
        let history = History::replay(records);
        let takeover = self.habits.takeover(Takeover::assess(&history, manifests));
        let resume = newest_surviving(&history, manifests);
        let headers = || records.iter().filter(|r| matches!(r, Record::Segment { .. }));
        let next = headers().count() as u64;
        let segments = self.store.segments();
        let last = next.checked_sub(1).map(|n| segments[n as usize]);
        let digest = last.map_or(String::new(), |body| blake3::hash(body).to_hex().to_string());
        let Some(c) = self.coordinators.get_mut(&id) else { return };
        c.zero = self.now;
        c.leader = takeover.leader;
        c.sessions = Sessions::new(takeover.leader, takeover.first_member);
        c.seats.clear();
        c.tick_at = None;
        let opened = Record::Opened {
            run: RUN.into(),
            spec_digest: String::new(),
            dataset_digest: DATASET.into(),
            seed: self.setup.seed,
            global_batch: self.setup.global_batch(),
            leader: takeover.leader,
            address: id.to_string(),
        };
        let opening = Opening {
            run: Run::new(config(&self.setup, &takeover, resume)),
            journal: Journal::new(next, digest, Nonces::new(c.dice.bits()), self.setup.ladder[Rung::LedgerPatience]),
            opened,
            name: RunId(RUN.into()),
            spec_digest: String::new(),
            dataset_digest: DATASET.into(),
            nonces: Nonces::new(c.dice.bits()),
        };
        self.log(|| format!("{id} opens the run: {takeover:?}"));
        let (lead, effects) = Lead::open(Now::ZERO, opening);
        if let Some(c) = self.coordinators.get_mut(&id) {
            c.lead = Some(Box::new(lead));
        }
        self.perform(id, effects);
        self.wind(id);
    }
}
