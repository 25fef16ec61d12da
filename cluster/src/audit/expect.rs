//! What each step should have been fed, by the plan: its evidence computed anew while the replay walks over its positions.

use super::hidden::hidden;
use super::trail::Stretch;
use super::{AuditPlan, EvidenceAudit};
use crate::evidence::{self, Evidence, FedRow, Keyed, Origin, Origins};
use crate::ids::Step;
use crate::ledger::Substitution;
use crate::order::{SampleId, SampleOrder, Walked};
use std::collections::BTreeMap;
use std::ops::Range;

/// What is drawn in an epoch of the row of a number (in index order), as a word: what whoever has the data can tell.
pub type DrawnWords<'d> = dyn FnMut(u64, u64) -> u64 + 'd;

/// A step's evidence, as far as its positions were walked.
#[derive(Debug, Clone, Copy, Default)]
struct Partial {
    positions: u64,
    sum: Evidence,
}

/// How a step's evidence stands to the plan.
pub(super) enum Judged {
    AsPlanned,
    FedOtherwise,
    DrawnOtherwise,
}

/// See the module.
pub(super) struct Expected<'d> {
    rows: ExpectedRows<'d>,
    batch: u64,
    /// The stretch that is walked, if it has evidence, and the position that comes next.
    walking: Option<Walking>,
    /// Steps that lie in several epochs, by stretch and offset in it.
    open: BTreeMap<(usize, u64), Partial>,
    /// Steps of the stretch that is walked, by offset, with all their positions.
    finished: Vec<(u64, Evidence)>,
    pub(super) recovered: Vec<Substitution>,
    pub(super) counts: EvidenceAudit,
}

/// What the plan says of single rows.
pub(super) struct ExpectedRows<'d> {
    seed: u64,
    origins: Vec<Origin>,
    drawn: Option<&'d mut DrawnWords<'d>>,
}

struct Walking {
    number: usize,
    first_position: u64,
    next: u64,
    epoch: u64,
    keyed: Keyed,
    step: Partial,
}

impl<'d> ExpectedRows<'d> {
    pub(super) fn new(plan: &AuditPlan, drawn: Option<&'d mut DrawnWords<'d>>) -> Self {
        Self { seed: plan.seed, origins: plan.origins.clone(), drawn }
    }

    /// `sample` as it should be fed; nothing of a row that there is not.
    pub(super) fn fed(&mut self, sample: SampleId, order: &SampleOrder) -> Option<FedRow> {
        let first = self.origins.get(sample.row_group as usize).filter(|_| order.has(sample))?;
        let origins = Origins::of(Origin { row: first.row + u64::from(sample.row), ..*first });
        let number = order.row_number(sample);
        let drawn = self.drawn.as_mut().map_or(0, |drawn| drawn(sample.epoch, number));
        Some(FedRow { origins, keyed: Keyed::new(self.seed, sample.epoch).word(number), drawn })
    }

    pub(super) fn knows_draws(&self) -> bool {
        self.drawn.is_some()
    }

    /// By how much the sums change if `used` stands at `position` in place of `wanted`.
    pub(super) fn change(
        &mut self,
        position: u64,
        (wanted, used): (SampleId, SampleId),
        order: &SampleOrder,
    ) -> Evidence {
        let mut of = |sample| self.fed(sample, order).map_or_else(Evidence::default, |fed| fed.at(position));
        let (mut change, before) = (of(used), of(wanted));
        change -= before;
        change
    }
}

impl<'d> Expected<'d> {
    pub(super) fn new(plan: &AuditPlan, drawn: Option<&'d mut DrawnWords<'d>>) -> Self {
        let counts = EvidenceAudit { drawn: drawn.is_some().then_some(0), ..EvidenceAudit::default() };
        Self {
            rows: ExpectedRows::new(plan, drawn),
            batch: u64::from(plan.global_batch),
            walking: None,
            open: BTreeMap::new(),
            finished: Vec::new(),
            recovered: Vec::new(),
            counts,
        }
    }

    /// The walk begins that comes to `positions` of a stretch, all of one epoch.
    pub(super) fn begin(
        &mut self,
        (number, stretch): (usize, &Stretch),
        positions: Range<u64>,
        order: &mut SampleOrder,
    ) {
        // Of a step on other positions than its own nothing can be said; that itself is told.
        let judged = !stretch.evidence.is_empty() && stretch.is_as_planned(self.batch);
        self.walking = judged.then(|| {
            let epoch = positions.start / order.epoch_len();
            let mut step = Partial::default();
            let mut before = None;
            for s in stretch.substitutions.iter().filter(|s| positions.contains(&s.position)) {
                if before.replace(s.position) != Some(s.position) {
                    let wanted = order.locate(s.position);
                    step.sum += self.rows.change(s.position, (wanted, s.used), order);
                }
            }
            let (first_position, next) = (stretch.first_position, positions.start);
            Walking { number, first_position, next, epoch, keyed: Keyed::new(self.rows.seed, epoch), step }
        });
    }

    /// The walk came to these rows.
    pub(super) fn walked(&mut self, mut rows: &[Walked]) {
        let Some(walking) = &mut self.walking else { return };
        while !rows.is_empty() {
            let done = (walking.next - walking.first_position) % self.batch;
            let (these, rest) = rows.split_at(rows.len().min((self.batch - done) as usize));
            walking.add(these, &mut self.rows);
            rows = rest;
            let offset = (walking.next - 1 - walking.first_position) / self.batch;
            if (walking.next - walking.first_position).is_multiple_of(self.batch) {
                let mut whole = std::mem::take(&mut walking.step);
                if let Some(earlier) = self.open.remove(&(walking.number, offset)) {
                    (whole.positions, whole.sum) = (whole.positions + earlier.positions, sum(whole.sum, earlier.sum));
                }
                if whole.positions == self.batch {
                    self.finished.push((offset, whole.sum));
                }
            }
        }
    }

    /// The steps that were walked to their end since this was asked last, by their offset in the stretch. What has begun
    /// goes on in another epoch.
    pub(super) fn finished(&mut self) -> Vec<(u64, Evidence)> {
        if let Some(walking) = self.walking.take().filter(|w| w.step.positions > 0) {
            let offset = (walking.next - 1 - walking.first_position) / self.batch;
            let open = self.open.entry((walking.number, offset)).or_default();
            *open =
                Partial { positions: open.positions + walking.step.positions, sum: sum(open.sum, walking.step.sum) };
        }
        std::mem::take(&mut self.finished)
    }

    /// Holds a step's evidence against what it should be.
    pub(super) fn judge(
        &mut self,
        stretch: &Stretch,
        (step, offset): (Step, u64),
        mut expected: Evidence,
        order: &mut SampleOrder,
    ) -> Judged {
        let Some(&found) = stretch.evidence.get(offset as usize) else { return Judged::AsPlanned };
        self.counts.steps += 1;
        if found.rows != expected.rows {
            let positions = step.0 * self.batch..(step.0 + 1) * self.batch;
            let untold = (stretch.unreported).then(|| {
                hidden(found.rows.wrapping_sub(expected.rows), positions, stretch, (&mut self.rows, &mut *order))
            });
            let Some(untold) = untold.flatten() else { return Judged::FedOtherwise };
            for s in &untold {
                expected += self.rows.change(s.position, (s.wanted, s.used), order);
            }
            self.recovered.extend(untold);
        }
        self.counts.as_planned += 1;
        match &mut self.counts.drawn {
            Some(_) if found.drawn != expected.drawn => Judged::DrawnOtherwise,
            Some(drawn) => {
                *drawn += 1;
                Judged::AsPlanned
            }
            None => Judged::AsPlanned,
        }
    }
}

fn sum(mut one: Evidence, other: Evidence) -> Evidence {
    one += other;
    one
}

impl Walking {
    /// Rows of one step.
    fn add(&mut self, rows: &[Walked], of: &mut ExpectedRows<'_>) {
        let mut sum = 0u128;
        for (position, row) in (self.next..).zip(rows) {
            let first = of.origins[row.row_group as usize];
            let origin = Origin { row: first.row + u64::from(row.row), ..first };
            let record = evidence::row(evidence::mixed(position), origin.words(), self.keyed.word(row.number));
            sum = sum.wrapping_add(record);
        }
        self.step.sum.rows = self.step.sum.rows.wrapping_add(sum);
        if let Some(drawn) = &mut of.drawn {
            for (position, row) in (self.next..).zip(rows) {
                let record = evidence::drawn(evidence::mixed(position), drawn(self.epoch, row.number));
                self.step.sum.drawn = self.step.sum.drawn.wrapping_add(record);
            }
        }
        self.step.positions += rows.len() as u64;
        self.next += rows.len() as u64;
    }
}
