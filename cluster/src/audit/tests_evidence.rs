//! Steps that were fed otherwise than planned, each with a ledger that is clean as far as it says what was meant.

use super::*;
use crate::evidence::{Evidence, FedRow, FileId, Keyed, LoggedLane, LoggedRow, Origins};
use crate::ids::{Generation, Lane, MemberId, Rank};
use crate::ledger::{Losses, StateSource, StepRecord};
use crate::order::{DatasetShape, SampleId};
use crate::rng::{Draws, Use, mix};

const ROWS: [u32; 4] = [5, 7, 4, 9];
const BATCH: u64 = 6;
const SEED: u64 = 3;
const STEPS: u64 = 11;

/// Two files of two row groups each.
fn origins() -> Vec<Origin> {
    let [a, b] = ["a", "b"].map(|name| FileId::of(name, "c"));
    [(a, 0), (a, 5), (b, 0), (b, 4)].map(|(file, row)| Origin { file, row }).to_vec()
}

fn plan() -> AuditPlan {
    let order = SampleOrder::new(SEED, DatasetShape { rows: ROWS.to_vec() }, 2).expect("has rows");
    let global_batch = BATCH as u32;
    AuditPlan { order, steps: STEPS, global_batch, seed: SEED, dataset_digest: "d".into(), origins: origins() }
}

/// What the data would say is drawn.
fn drawn_word(epoch: u64, number: u64) -> u64 {
    mix(epoch * 1000 + number)
}

fn fed(order: &SampleOrder, sample: SampleId) -> FedRow {
    let first = origins()[sample.row_group as usize];
    let number = order.row_number(sample);
    FedRow {
        origins: Origins::of(Origin { row: first.row + u64::from(sample.row), ..first }),
        keyed: Keyed::new(SEED, sample.epoch).word(number),
        drawn: drawn_word(sample.epoch, number),
    }
}

/// A run that feeds what the plan says.
struct Run {
    order: SampleOrder,
    /// By step, by position in it.
    fed: Vec<Vec<FedRow>>,
    records: Vec<StepRecord>,
}

impl Run {
    fn as_planned() -> Self {
        let mut order = plan().order;
        let fed = (0..STEPS)
            .map(|step| (step * BATCH..(step + 1) * BATCH).map(|p| fed(&order.clone(), order.locate(p))).collect());
        let record = |step: u64| StepRecord {
            step: Step(step),
            generation: Generation(1),
            world: 3,
            first_position: step * BATCH,
            samples: BATCH,
            losses: Losses::default(),
            lr: 0.0,
            seconds: 0.0,
            substitutions: vec![],
            unreported: vec![],
            evidence: None,
        };
        let fed: Vec<_> = fed.collect();
        Self { order, fed, records: (0..STEPS).map(record).collect() }
    }

    /// The ledger, with evidence of what was fed.
    fn records(&self) -> Vec<Record> {
        let rows = |step: u64| (step * BATCH..).zip(&self.fed[step as usize]);
        let sum = |step: u64| rows(step).map(|(position, fed)| fed.at(position)).sum::<Evidence>();
        self.records.iter().map(|r| Record::Step(StepRecord { evidence: Some(sum(r.step.0)), ..r.clone() })).collect()
    }

    /// `used` stands in at `position`; nobody is told.
    fn replace(&mut self, position: u64, attempt: u32) -> Substitution {
        let wanted = self.order.locate(position);
        let used = self.order.substitute(wanted, attempt);
        self.fed[(position / BATCH) as usize][(position % BATCH) as usize] = fed(&self.order, used);
        Substitution { position, wanted, used, reason: "corrupt JPEG".into() }
    }

    fn audit(&self) -> Audit {
        prove_all(&self.records())
    }

    /// The lanes of a step, two rows each, by rank.
    fn logged(&self, step: u64) -> Vec<LoggedLane> {
        let lane = |(lane, rows): (usize, &[FedRow])| LoggedLane {
            step: Step(step),
            generation: Generation(1),
            rank: Rank(lane as u32),
            lane: Lane(lane as u32),
            rows: rows.iter().map(LoggedRow::from).collect(),
        };
        self.fed[step as usize].chunks(2).enumerate().map(lane).collect()
    }
}

fn prove_all(records: &[Record]) -> Audit {
    let mut trail = Trail::default();
    records.iter().for_each(|record| trail.apply(record));
    prove(&trail, plan(), Some(&mut |epoch, number| drawn_word(epoch, number)), &mut |_, _| {})
}

fn stripped(records: &[Record]) -> Vec<Record> {
    let strip = |record: &Record| match record {
        Record::Step(step) => Record::Step(StepRecord { evidence: None, ..step.clone() }),
        other => other.clone(),
    };
    records.iter().map(strip).collect()
}

#[test]
fn what_was_fed_as_planned_is_clean_across_the_seams_of_epochs() {
    let audit = Run::as_planned().audit();
    assert!(audit.is_clean(), "{:?}", audit.findings);
    assert_eq!(audit.evidence, EvidenceAudit { steps: STEPS, as_planned: STEPS, drawn: Some(STEPS) });
    assert!(audit.epochs.len() > 2, "the short last epoch too");
}

#[test]
fn without_evidence_nothing_is_said_of_what_was_fed() {
    let records = stripped(&Run::as_planned().records());
    let audit = prove_all(&records);
    assert!(audit.is_clean());
    assert_eq!((audit.evidence.steps, audit.evidence.as_planned), (0, 0));
}

#[test]
fn each_mistake_in_the_feed_is_named_with_its_step_and_passes_a_replay_of_the_plan() {
    let elsewhere = |fed: FedRow| {
        let [a, b] = ["a", "b"].map(|name| FileId::of(name, "c"));
        let file = if fed.origins.narrow.file == a { b } else { a };
        Origins::of(Origin { file, ..fed.origins.narrow })
    };
    let mistakes: Vec<(&str, Box<dyn Fn(&mut Run)>)> = vec![
        ("a lane swapped with its neighbour's", Box::new(|run| run.fed[4].swap(1, 3))),
        ("a batch fed twice", Box::new(|run| run.fed[4] = run.fed[3].clone())),
        (
            "a row group of another file",
            Box::new(move |run| run.fed[4].iter_mut().for_each(|f| f.origins = elsewhere(*f))),
        ),
        ("one row off by one", Box::new(|run| run.fed[4][2].origins.narrow.row += 1)),
        (
            "a picture of another row",
            Box::new(|run| run.fed[4][2].origins.picture = Some(run.fed[3][0].origins.narrow)),
        ),
        ("draws keyed by another row", Box::new(|run| run.fed[4][2].keyed = run.fed[4][3].keyed)),
        ("a stand-in that nobody told of", Box::new(|run| drop(run.replace(26, 1)))),
    ];
    for (what, make) in mistakes {
        let mut run = Run::as_planned();
        make(&mut run);
        let audit = run.audit();
        let expected = [Finding::FedOtherwise { step: Step(4), unreported: false }];
        assert_eq!(audit.findings, expected, "{what}");
        assert_eq!(audit.evidence.as_planned, STEPS - 1, "{what}");
        assert!(prove_all(&stripped(&run.records())).is_clean(), "{what}: the plan replayed against the plan");
    }
    let mut run = Run::as_planned();
    run.fed[4][2].drawn = drawn_word(0, 77);
    assert_eq!(run.audit().findings, [Finding::DrawnOtherwise(Step(4))]);
    assert!(audit(&run.records(), plan()).is_clean(), "what is drawn shows in the data alone");
}

#[test]
fn the_row_is_found_in_what_workers_logged() {
    let mut run = Run::as_planned();
    run.fed[4][2].origins.narrow.row += 1;
    run.fed[4][5].keyed = run.fed[4][4].keyed;
    run.fed[4][0].drawn ^= 1;
    let lanes: Vec<LoggedLane> = (3..6).flat_map(|step| run.logged(step)).collect();
    let mut draws = |epoch, number| drawn_word(epoch, number);
    let odd = bisect(&plan(), (Step(4), &[]), &lanes, Some(&mut draws));
    let found: Vec<_> = odd.iter().map(|o| (o.rank.0, o.lane.0, o.row, o.position)).collect();
    assert_eq!(found, [(0, 0, 0, 24), (1, 1, 0, 26), (2, 2, 1, 29)]);
    assert!(matches!(&odd[0].oddity, Oddity::Drawn) && matches!(&odd[2].oddity, Oddity::Keyed));
    let said = odd[1].said(|file| if file == odd[1].planned.file { "its file".into() } else { "another".into() });
    let planned = odd[1].planned.row;
    let expected = format!(
        "step 4, generation 1, rank 1, lane 1, row 0 (position 26) was fed row {} of its file, the plan has row {planned} of its file",
        planned + 1
    );
    assert_eq!(said, expected);
    assert_eq!(bisect(&plan(), (Step(3), &[]), &lanes, None), []);
}

#[test]
fn a_recorded_stand_in_is_as_planned_and_those_of_a_lost_rank_are_found_out() {
    let mut run = Run::as_planned();
    let told = run.replace(13, 2);
    run.records[2].substitutions.push(told.clone());
    let mut hidden = vec![run.replace(14, 3), run.replace(17, 1), run.replace(39, 16)];
    for step in [2, 6] {
        run.records[step].unreported.push(Rank(1));
    }
    let audit = run.audit();
    assert!(audit.is_clean(), "{:?}", audit.findings);
    assert_eq!((audit.unreported, &audit.substitutions), (0, &vec![told]));
    hidden.iter_mut().zip(&audit.recovered).for_each(|(h, r)| h.reason.clone_from(&r.reason));
    assert_eq!(audit.recovered, hidden);
    assert_eq!(audit.epochs.values().map(|e| e.substituted).sum::<u64>(), 4);

    // Three in one step are too many to tell.
    run.replace(15, 1);
    assert_eq!(run.audit().findings, [Finding::FedOtherwise { step: Step(2), unreported: true }]);
}

#[test]
fn of_a_redone_step_the_evidence_that_survives_counts() {
    let run = Run::as_planned();
    let mut records = run.records();
    let mut torn = records[7].clone();
    if let Record::Step(step) = &mut torn {
        step.evidence = Some(Evidence::default());
    }
    let formed = |generation, start| Record::Formed {
        generation: Generation(generation),
        start_step: Step(start),
        members: vec![MemberId(1)],
        source: StateSource::Member(MemberId(1)),
    };
    records.splice(7..7, [torn, formed(2, 7)]);
    records.insert(0, formed(1, 0));
    let audit = prove_all(&records);
    assert!(audit.is_clean() && audit.redone == 1, "{:?}", audit.findings);
    assert_eq!(audit.evidence.as_planned, STEPS);
}

/// Batches that are larger than an epoch, smaller than a block of the walk, and of one row; stretches cut anywhere.
#[test]
fn any_batch_and_any_cut_of_the_ledger_prove_the_same() {
    for seed in 0..200 {
        let mut draws = Draws::new(seed, 0, 0, Use::Scene);
        let batch = [1, 4, 25, 60, 600][draws.below(5) as usize];
        let plan = AuditPlan { global_batch: batch as u32, steps: u64::MAX, ..plan() };
        let (mut order, shape) = (plan.order.clone(), plan.order.clone());
        let steps = 1 + draws.below(600 / batch + 3);
        let wrong = draws.below(2 * steps);
        let mut records = Vec::new();
        for step in 0..steps {
            let positions = step * batch..(step + 1) * batch;
            let mut sum: Evidence = positions.map(|p| fed(&shape, order.locate(p)).at(p)).sum();
            sum.rows += u128::from(step == wrong);
            let (first_position, evidence) = (step * batch, Some(sum));
            let like = Run::as_planned().records[0].clone();
            let record = StepRecord { step: Step(step), first_position, samples: batch, evidence, ..like };
            if draws.below(9) == 0 {
                records.push(Record::Step(StepRecord { evidence: None, ..record.clone() }));
                let (members, source) = (vec![MemberId(1)], StateSource::Member(MemberId(1)));
                let generation = Generation(step + 1);
                records.push(Record::Formed { generation, start_step: Step(step), members, source });
            }
            records.push(Record::Step(record));
        }
        let verdict = audit(&records, plan);
        let named: Vec<_> = (wrong < steps)
            .then_some(Finding::FedOtherwise { step: Step(wrong), unreported: false })
            .into_iter()
            .collect();
        assert_eq!(verdict.findings, named, "seed {seed}");
        assert_eq!(verdict.evidence.as_planned, steps - named.len() as u64, "seed {seed}");
    }
}
