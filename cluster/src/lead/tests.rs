//! What waits for what, on a virtual clock and a store that answers when told.

use super::*;
use crate::ids::{MemberId, Rank};
use crate::ledger::parse_lines;
use crate::run::{Join, Order, PartReport, Report, Standing, StepReport};
use crate::spec::Ladder;
use std::time::Duration;

fn lead() -> (Lead, Vec<LeadEffect>) {
    let opened = Record::Opened {
        run: "r".into(),
        spec_digest: String::new(),
        dataset_digest: String::new(),
        seed: 1,
        global_batch: 8,
        leader: 1,
        address: "here".into(),
    };
    let opening = Opening {
        run: Run::new(crate::run::tests::config(1)),
        journal: Journal::new(0, String::new(), Nonces::new(1), Ladder::default()[Rung::LedgerPatience]),
        opened,
        name: RunId("r".into()),
        spec_digest: String::new(),
        dataset_digest: String::new(),
        nonces: Nonces::new(2),
    };
    Lead::open(Now::ZERO, opening)
}

const M: MemberId = MemberId(1);
const G: Generation = Generation(1);

fn said(report: Report) -> LeadEvent {
    LeadEvent::Run(run::RunEvent::Reported { member: M, report })
}

fn created(request: Request) -> LeadEvent {
    LeadEvent::Answered(request, Answer::Created)
}

/// The records of the segment that is asked to be written, and the orders that go out.
fn look(effects: &[LeadEffect]) -> (Vec<Record>, Vec<Order>) {
    let (mut records, mut orders) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            LeadEffect::Ask(Request::Journal, Ask::Create { body, .. }) => {
                records = parse_lines(std::str::from_utf8(body).expect("text")).expect("records");
            }
            LeadEffect::Run(run::RunEffect::Send { order, .. }) => orders.push(order.clone()),
            _ => {}
        }
    }
    (records, orders)
}

fn training() -> Lead {
    let (mut lead, first) = lead();
    assert!(matches!(look(&first).0[1], Record::Opened { .. }));
    assert_eq!(lead.handle(Now::ZERO, created(Request::Journal)), [LeadEffect::Lead]);
    let join = Join { name: "w".into(), ..Join::default() };
    lead.handle(Now::ZERO, LeadEvent::Run(run::RunEvent::Joined { member: M, join }));
    let standing = Standing::Free { next_step: None, digest: None };
    let effects = lead.handle(Now::ZERO, said(Report::Standing(standing)));
    let (records, orders) = look(&effects);
    assert!(matches!(records[1], Record::Formed { generation: G, .. }), "{records:?}");
    assert!(orders.is_empty(), "nobody hears of a generation that is not in the store: {orders:?}");
    let (_, orders) = look(&lead.handle(Now::ZERO, created(Request::Journal)));
    assert!(matches!(orders[0], Order::Form(_)));
    lead.handle(Now::ZERO, said(Report::Ready { generation: G, next_step: Step(0) }));
    lead
}

#[test]
fn a_generation_is_in_the_store_before_anybody_hears_of_it() {
    training();
}

#[test]
fn records_are_durable_before_the_manifest_and_before_their_reports_are_forgotten() {
    let mut lead = training();
    let step = StepReport { generation: G, step: Step(0), samples: 8, ..StepReport::default() };
    let (records, orders) = look(&lead.handle(Now::ZERO, said(Report::Committed(step))));
    assert!(records.is_empty() && orders.is_empty(), "the group's time is not over");

    let entry = PartEntry { path: "p".into(), rank: Rank(0), bytes: 1, blake3: String::new(), tensors: vec![] };
    let part = PartReport { generation: G, step: Step(1), entry };
    let effects = lead.handle(Now::ZERO, said(Report::Part(part)));
    let manifest = Request::Manifest(G, Step(1));
    let asked = |effects: &[LeadEffect]| effects.iter().any(|e| matches!(e, LeadEffect::Ask(r, _) if *r == manifest));
    assert!(!asked(&effects), "the step's record comes first");
    assert!(matches!(look(&effects).0[1], Record::Step(_)), "and at once");

    let effects = lead.handle(Now::ZERO, created(Request::Journal));
    assert!(asked(&effects));
    assert!(look(&effects).1.contains(&Order::Recorded { through: Step(0) }));
    let effects = lead.handle(Now::ZERO, created(manifest));
    assert!(effects.contains(&LeadEffect::Sweep));
    assert!(matches!(look(&effects).1[..], [Order::Checkpointed { .. }]));
}

#[test]
fn whoever_meets_a_rival_in_the_ledger_says_nothing_any_more() {
    let mut lead = training();
    lead.handle(Now::ZERO, LeadEvent::Run(run::RunEvent::Drain));
    let step = StepReport { generation: G, step: Step(0), samples: 8, ..StepReport::default() };
    lead.handle(Now::ZERO, said(Report::Committed(step)));
    let later = Duration::from_secs(1);
    let effects = lead.handle(later, LeadEvent::Tick);
    assert!(matches!(effects[..], [LeadEffect::Ask(Request::Journal, Ask::Create { .. })]));
    lead.handle(later, LeadEvent::Answered(Request::Journal, Answer::Exists));
    let effects = lead.handle(later, LeadEvent::Answered(Request::Journal, Answer::Body(b"theirs".to_vec())));
    assert_eq!(effects, [LeadEffect::Depose]);
    assert_eq!(lead.handle(later, LeadEvent::Tick), []);
    assert_eq!(lead.deadline(), None);
}
