use super::*;
use crate::ids::{Generation, MemberId, Rank};
use crate::ledger::{Losses, StateSource, StepRecord};
use crate::order::DatasetShape;

const BATCH: u32 = 6;

fn plan() -> AuditPlan {
    let order = SampleOrder::new(3, DatasetShape { rows: vec![5, 7, 4] }, 2).expect("has rows");
    AuditPlan { order, steps: 7, global_batch: BATCH, seed: 3, dataset_digest: "d".into(), origins: Vec::new() }
}

fn step(number: u64) -> StepRecord {
    StepRecord {
        step: Step(number),
        generation: Generation(1),
        world: 2,
        first_position: number * u64::from(BATCH),
        samples: u64::from(BATCH),
        losses: Losses::default(),
        lr: 0.0,
        seconds: 0.0,
        substitutions: vec![],
        unreported: vec![],
        evidence: None,
    }
}

/// Two epochs of 16 rows and a third begun: 7 steps of 6.
fn whole() -> Vec<Record> {
    (0..7).map(|s| Record::Step(step(s))).collect()
}

#[test]
fn a_whole_run_is_clean_across_the_seams_of_epochs() {
    let audit = audit(&whole(), plan());
    assert!(audit.is_clean(), "{:?}", audit.findings);
    let expected: Vec<u64> = audit.epochs.values().map(|e| e.expected).collect();
    assert_eq!(expected, vec![16, 16, 10]);
    assert!(audit.epochs.values().all(|e| e.once == e.expected));
}

#[test]
fn a_lost_step_names_its_samples() {
    let mut records = whole();
    records.remove(1);
    let audit = audit(&records, plan());
    assert!(!audit.is_clean());
    assert_eq!(audit.epochs[&0].missing, 6);
    assert!(audit.findings.contains(&Finding::StepMissing(Step(1))));
    let lost = plan().order.locate(6);
    assert!(audit.findings.contains(&Finding::Missing(lost)), "{:?}", audit.findings);
}

#[test]
fn a_step_applied_twice_doubles_its_samples() {
    let mut records = whole();
    records.push(Record::Step(step(2)));
    let audit = audit(&records, plan());
    assert_eq!(audit.epochs.values().map(|e| e.doubled).sum::<u64>(), 6);
    assert!(audit.findings.contains(&Finding::Doubled(plan().order.locate(12))));
}

#[test]
fn a_redone_step_is_clean_because_a_generation_cut_it_off() {
    let mut records = whole();
    let formed = |generation, start| Record::Formed {
        generation: Generation(generation),
        start_step: Step(start),
        members: vec![MemberId(1)],
        source: StateSource::Member(MemberId(1)),
    };
    records.insert(0, formed(1, 0));
    records.push(formed(2, 6));
    records.push(Record::Step(step(6)));
    let audit = audit(&records, plan());
    assert!(audit.is_clean(), "{:?}", audit.findings);
    assert_eq!(audit.redone, 1);
}

#[test]
fn a_substitute_is_counted_and_clean() {
    let mut records = whole();
    let mut plan_order = plan().order;
    let wanted = plan_order.locate(13);
    if let Record::Step(s) = &mut records[2] {
        let used = plan_order.substitute(wanted, 1);
        s.substitutions.push(Substitution { position: 13, wanted, used, reason: "corrupt JPEG".into() });
        s.unreported.push(Rank(1));
    }
    let audit = audit(&records, plan());
    assert!(audit.is_clean());
    assert_eq!((audit.epochs[&0].substituted, audit.unreported), (1, 1));
}

#[test]
fn shifted_positions_and_another_plan_are_found() {
    let mut records = whole();
    if let Record::Step(s) = &mut records[3] {
        s.first_position += 1;
    }
    records.push(Record::Opened {
        run: "r".into(),
        spec_digest: String::new(),
        dataset_digest: "e".into(),
        seed: 3,
        global_batch: BATCH,
        leader: 1,
        address: String::new(),
    });
    let text: Vec<String> = audit(&records, plan()).findings.iter().map(ToString::to_string).collect();
    assert!(text.contains(&"step 3 should start at position 18 but has 6 samples from 19".to_string()), "{text:?}");
    assert!(text.contains(&"the ledger was opened with dataset e, the plan says d".to_string()), "{text:?}");
}

#[test]
fn a_record_of_a_step_that_the_run_does_not_have_is_named_and_costs_nothing() {
    let mut records = whole();
    records.push(Record::Step(step(u64::MAX / 16)));
    let audit = audit(&records, plan());
    assert_eq!(audit.epochs.values().map(|e| e.expected).sum::<u64>(), 7 * 6);
    assert!(audit.findings.contains(&Finding::StepBeyond { step: Step(u64::MAX / 16), steps: 7 }));
}
