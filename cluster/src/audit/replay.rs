//! The replay: epoch by epoch, every position that a surviving step used is looked up in the order, and its row marked
//! by one bit.

use super::expect::{Expected, Judged};
use super::finding::{Finding, Findings, NAMED_MAX};
use super::trail::{Stretch, Trail};
use super::{AuditPlan, EpochAudit};
use crate::ids::Step;
use crate::order::SampleOrder;
use std::collections::BTreeMap;
use std::ops::Range;

/// Positions of one epoch that were used together.
struct Slice<'a> {
    stretch: &'a Stretch,
    /// Which of all stretches.
    number: usize,
    positions: Range<u64>,
}

/// One bit for each row of an epoch.
struct Rows(Vec<u64>);

impl Rows {
    /// Marks `row`; false if it was marked before.
    #[inline]
    fn mark(&mut self, row: u64) -> bool {
        let (word, bit) = (&mut self.0[(row / 64) as usize], 1 << (row % 64));
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    fn has(&self, row: u64) -> bool {
        self.0[(row / 64) as usize] & (1 << (row % 64)) != 0
    }
}

/// A replay on its way.
pub(super) struct Replay<'a, 'd> {
    order: SampleOrder,
    batch: u64,
    /// Of the run: a record beyond them, which may be far beyond, brings no epochs with it.
    steps: u64,
    /// The rows of the epoch that is open.
    rows: Rows,
    expected: Expected<'d>,
    findings: &'a mut Findings,
    /// Hears of positions done, of how many.
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl<'a, 'd> Replay<'a, 'd> {
    pub(super) fn new(
        plan: AuditPlan,
        expected: Expected<'d>,
        findings: &'a mut Findings,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        let rows = Rows(vec![0; plan.order.epoch_len().div_ceil(64) as usize]);
        let batch = u64::from(plan.global_batch);
        Self { order: plan.order, batch, steps: plan.steps, rows, expected, findings, progress, done: 0, total: 0 }
    }

    /// Replays all surviving steps and counts by epoch, and what their evidence came to.
    pub(super) fn run(mut self, trail: &Trail) -> (BTreeMap<u64, EpochAudit>, Expected<'d>) {
        let per_epoch = self.order.epoch_len();
        let slices = self.by_epoch(trail);
        self.total = slices.values().flatten().map(|s| s.positions.end - s.positions.start).sum();
        let end = trail.end().min(self.steps).saturating_mul(self.batch);
        let reached = end.div_ceil(per_epoch);
        let beyond = slices.range(reached..).map(|(&epoch, _)| epoch);
        let mut epochs = BTreeMap::new();
        for epoch in (0..reached).chain(beyond) {
            let first = epoch * per_epoch;
            let planned = first..first + end.saturating_sub(first).min(per_epoch);
            let used = slices.get(&epoch).map_or(&[][..], Vec::as_slice);
            epochs.insert(epoch, self.epoch(planned, used));
        }
        (epochs, self.expected)
    }

    /// What was used of each epoch, in the order of steps.
    fn by_epoch<'t>(&mut self, trail: &'t Trail) -> BTreeMap<u64, Vec<Slice<'t>>> {
        let per_epoch = self.order.epoch_len();
        let mut slices: BTreeMap<u64, Vec<Slice>> = BTreeMap::new();
        let all = trail.all().enumerate();
        for (number, stretch, positions) in all.flat_map(|(n, s)| used(s, self.batch).map(move |p| (n, s, p))) {
            for s in stretch.substitutions.iter().filter(|s| !positions.contains(&s.position)) {
                let (step, position, found) = (Step(stretch.first_step), s.position, s.wanted);
                self.findings.push(Finding::WrongSubstitution { step, position, found, expected: None });
            }
            let mut start = positions.start;
            while start < positions.end {
                let epoch = start / per_epoch;
                let end = positions.end.min((epoch + 1).saturating_mul(per_epoch));
                slices.entry(epoch).or_default().push(Slice { stretch, number, positions: start..end });
                start = end;
            }
        }
        slices
    }

    /// Marks what was used of one epoch, and looks for `planned` positions whose rows were not.
    fn epoch(&mut self, planned: Range<u64>, used: &[Slice]) -> EpochAudit {
        self.rows.0.fill(0);
        let mut counts = EpochAudit { expected: planned.end - planned.start, ..EpochAudit::default() };
        for slice in used {
            self.mark(slice, &mut counts);
        }
        // As many rows as planned, none of them from elsewhere: these are they.
        let within = used.iter().all(|s| s.positions.end <= planned.end);
        if !within || counts.once + counts.substituted < counts.expected {
            counts.missing = self.look_for_missing(planned);
        }
        counts
    }

    fn mark(&mut self, slice: &Slice, counts: &mut EpochAudit) {
        let substituted = self.substituted(slice);
        self.expected.begin((slice.number, slice.stretch), slice.positions.clone(), &mut self.order);
        let Self { order, rows, expected, progress, done, total, .. } = self;
        let (mut fresh, mut again) = (0, Vec::new());
        let mut next = slice.positions.start;
        order.walk(slice.positions.clone(), |walked| {
            for (position, row) in (next..).zip(walked) {
                if rows.mark(row.number) {
                    fresh += 1;
                } else if again.len() < NAMED_MAX {
                    again.push(position);
                }
            }
            expected.walked(walked);
            next += walked.len() as u64;
            *done += walked.len() as u64;
            progress(*done, *total);
        });
        counts.once += fresh - substituted;
        counts.substituted += substituted;
        counts.doubled += slice.positions.end - slice.positions.start - fresh;
        for position in again {
            self.findings.push(Finding::Doubled(self.order.locate(position)));
        }
        self.judge(slice.stretch);
    }

    /// Holds the evidence of the steps that were walked to their end against what it should be.
    fn judge(&mut self, stretch: &Stretch) {
        for (offset, expected) in self.expected.finished() {
            let step = Step(stretch.first_step + offset);
            match self.expected.judge(stretch, (step, offset), expected, &mut self.order) {
                Judged::AsPlanned => {}
                Judged::FedOtherwise => {
                    self.findings.push(Finding::FedOtherwise { step, unreported: stretch.unreported });
                }
                Judged::DrawnOtherwise => self.findings.push(Finding::DrawnOtherwise(step)),
            }
        }
    }

    /// How many rows that nobody used before `slice` have a substitute in it.
    fn substituted(&mut self, slice: &Slice) -> u64 {
        let mut count = 0;
        let mut before = None;
        for s in slice.stretch.substitutions.iter().filter(|s| slice.positions.contains(&s.position)) {
            let sample = self.order.locate(s.position);
            if sample != s.wanted {
                let (step, position, found) = (Step(slice.stretch.first_step), s.position, s.wanted);
                self.findings.push(Finding::WrongSubstitution { step, position, found, expected: Some(sample) });
            }
            let known = before.replace(s.position) == Some(s.position);
            count += u64::from(!known && !self.rows.has(self.order.row_number(sample)));
        }
        count
    }

    /// Counts and names the samples at `planned` positions whose rows nobody used.
    fn look_for_missing(&mut self, planned: Range<u64>) -> u64 {
        let Self { order, rows, .. } = self;
        let (mut count, mut named) = (0, Vec::new());
        let mut next = planned.start;
        order.walk(planned, |walked| {
            for (position, _) in (next..).zip(walked).filter(|(_, row)| !rows.has(row.number)) {
                count += 1;
                if named.len() < NAMED_MAX {
                    named.push(position);
                }
            }
            next += walked.len() as u64;
        });
        for position in named {
            self.findings.push(Finding::Missing(self.order.locate(position)));
        }
        count
    }
}

/// The positions that a stretch used, as few ranges: all at once where they are as planned. Of a step that has more
/// than it should no more than twice its share is looked at.
fn used(stretch: &Stretch, batch: u64) -> impl Iterator<Item = Range<u64>> {
    let planned = stretch.is_as_planned(batch);
    let whole = planned.then(|| stretch.first_position..stretch.first_position.saturating_add(stretch.steps * batch));
    let share = stretch.samples.min(2 * batch);
    let each = (!planned).then(|| stretch.each().map(move |(_, first)| first..first.saturating_add(share)));
    whole.into_iter().chain(each.into_iter().flatten())
}
