//! What one seed's run looks like before anything goes wrong.

use super::clock::Dice;
use crate::LaneMap;
use crate::evidence::{Evidence, FedRow, FileId, Keyed, Origin, Origins};
use crate::ids::{Generation, Rank, Step};
use crate::order::{DatasetShape, SampleOrder};
use crate::run::{Now, RunConfig};
use crate::spec::{Ladder, Rung};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The run's name.
pub(super) const RUN: &str = "sim";
/// The dataset's version.
pub(super) const DATASET: &str = "d0";
const LANES: u32 = 6;
const LANE_SIZE: u32 = 2;
/// One seed in so many is of a large fleet, with as many lanes as it can have members;
const LARGE_EVERY: u64 = 2000;
/// it is this one of them,
const LARGE_AT: u64 = 1234;
/// and has so many members,
const LARGE: RangeInclusive<u64> = 100..=1000;
/// which do few steps: each of them is many happenings.
const LARGE_STEPS: RangeInclusive<u64> = 6..=12;
/// Members that may stand by.
const STANDBY_MAX: u32 = 58;
/// Of each row group.
const ROWS: [u32; 5] = [17, 29, 5, 41, 23];
/// Far more generations in a row than any schedule's faults can spoil.
const FRUITLESS_MAX: u32 = 1000;

const JOIN_WINDOW: Duration = Duration::from_secs(10);
const JOIN_BATCH: Duration = Duration::from_secs(2);
/// A run that goes on undisturbed for so long after its last fault is done.
pub(super) const HEALING: Duration = Duration::from_secs(900);

/// A patience and what follows from it, here and there with a rung that a run file sets, as far as run files may.
fn ladder(dice: &mut Dice) -> Ladder {
    let patience = dice.ms(2500..=8000);
    let ms = |rung: Duration| rung.as_millis() as u64;
    let mut ladder = Ladder::of_patience(patience);
    if dice.percent(50) {
        ladder = ladder.with(Rung::ReconnectGrace, dice.ms(ms(patience) / 10..=ms(patience)));
    }
    if dice.percent(50) {
        let least = ms(ladder[Rung::Stall]) + 1;
        ladder = ladder.with(Rung::CollectiveTimeout, dice.ms(least..=least * 3));
    }
    if dice.percent(25) {
        let (least, most) = (ms(patience) + 1, ms(ladder[Rung::CollectiveTimeout]) - 1);
        ladder = ladder.with(Rung::Stall, dice.ms(least..=most));
    }
    debug_assert!(ladder.problems().is_empty(), "a run file may say so: {ladder}");
    ladder
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) seed: u64,
    /// Workers at the start.
    pub(super) workers: u32,
    pub(super) min_workers: u32,
    max_workers: u32,
    lanes: u32,
    pub(super) steps: u64,
    /// Checkpoints every so many steps.
    pub(super) every: u64,
    /// A forward pass of this run takes about so long.
    pub(super) forward_ms: u64,
    /// How long everybody waits for what.
    pub(super) ladder: Ladder,
}

impl Setup {
    pub(super) fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, &[1]);
        let workers = dice.within(1..=5) as u32;
        let setup = Self {
            seed,
            workers,
            min_workers: dice.within(1..=u64::from(workers.min(3))) as u32,
            max_workers: dice.within(3..=6) as u32,
            lanes: LANES,
            steps: dice.within(20..=60),
            every: dice.within(3..=12),
            forward_ms: dice.within(100..=1200),
            ladder: ladder(&mut dice),
        };
        if seed % LARGE_EVERY == LARGE_AT { setup.enlarged() } else { setup }
    }

    /// The same with hundreds of members.
    fn enlarged(self) -> Self {
        let mut dice = Dice::new(self.seed, &[8]);
        let workers = dice.within(LARGE) as u32;
        let lanes = workers + dice.within(0..=24) as u32;
        let (steps, every) = (dice.within(LARGE_STEPS), dice.within(3..=6));
        Self { workers, lanes, max_workers: lanes, min_workers: workers / 2, steps, every, ..self }
    }

    /// What a coordinator is told; the rest it finds in the store.
    pub(super) fn config(&self) -> RunConfig {
        RunConfig {
            expect: self.workers,
            join_window: JOIN_WINDOW,
            min_workers: self.min_workers,
            max_workers: self.max_workers.max(self.min_workers),
            lanes: self.lanes,
            global_batch: self.global_batch(),
            steps: self.steps,
            join_batch: JOIN_BATCH,
            ladder: self.ladder,
            fruitless_max: FRUITLESS_MAX,
            members_max: self.lanes + STANDBY_MAX,
            first_generation: Generation(1),
            resume: None,
            recorded: Step(0),
            adopted: None,
        }
    }

    /// The positions of `step` that `rank` works on.
    pub(super) fn positions(&self, step: Step, rank: Rank, world: u32) -> std::ops::Range<u64> {
        let map = LaneMap::new(self.lanes, LANE_SIZE, world).expect("a run has no more ranks than lanes");
        let first = map.first_position(step).0;
        let rows = map.rows_of(rank);
        first + u64::from(rows.start)..first + u64::from(rows.end)
    }

    /// All positions of `step`.
    pub(super) fn whole(&self, step: Step) -> std::ops::Range<u64> {
        self.positions(step, Rank(0), 1)
    }

    /// The order that the ledger is audited against: epochs end in the midst of batches.
    pub(super) fn order(&self) -> SampleOrder {
        SampleOrder::new(self.seed, DatasetShape { rows: ROWS.to_vec() }, 2).expect("the shape has rows")
    }

    /// Where the first row of each row group lies: two files.
    pub(super) fn origins() -> Vec<Origin> {
        let [a, b] = ["a", "b"].map(|name| FileId::of(name, DATASET));
        [(a, 0), (a, ROWS[0]), (b, 0), (b, ROWS[2]), (b, ROWS[2] + ROWS[3])]
            .map(|(file, row)| Origin { file, row: row.into() })
            .to_vec()
    }

    /// The evidence of rows on their `positions`: at each, the row that the order has at the position that `read` says.
    pub(super) fn fed(&self, positions: std::ops::Range<u64>, read: impl Fn(u64) -> u64) -> Evidence {
        let (mut order, origins) = (self.order(), Self::origins());
        let fed = |position| {
            let sample = order.locate(read(position));
            let first = origins[sample.row_group as usize];
            let origins = Origins::of(Origin { row: first.row + u64::from(sample.row), ..first });
            let keyed = Keyed::new(self.seed, sample.epoch).word(order.row_number(sample));
            FedRow { origins, keyed, drawn: 0 }.at(position)
        };
        positions.map(fed).sum()
    }

    pub(super) fn global_batch(&self) -> u32 {
        self.lanes * LANE_SIZE
    }

    /// When a run whose last fault came at `last` must be over.
    pub(super) fn bound(&self, last: Now) -> Now {
        last + HEALING
    }
}
