use super::permutation::{BLOCK, Permutation};
use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

proptest! {
    #[test]
    fn an_epoch_deals_every_row_once(rows in prop::collection::vec(0u32..40, 1..30), window in 1u32..8, seed: u64) {
        let shape = DatasetShape { rows };
        prop_assume!(shape.total() > 0);
        let total = shape.total();
        let mut order = SampleOrder::new(seed, shape.clone(), window).expect("has rows");
        for epoch in 0..2 {
            let seen: HashSet<_> = (0..total).map(|q| order.locate(epoch * total + q)).collect();
            prop_assert_eq!(seen.len() as u64, total);
            for s in seen {
                prop_assert!(s.epoch == epoch && s.row < shape.rows[s.row_group as usize]);
            }
        }
    }

    #[test]
    fn a_walk_is_what_locate_says_of_each_position(
        rows in prop::collection::vec(prop_oneof![Just(0u32), 1u32..9, 1u32..300], 1..30),
        window in 1u32..12,
        seed: u64,
        from in 0.0f64..3.0,
        part in 0.0f64..2.0,
    ) {
        let shape = DatasetShape { rows };
        prop_assume!(shape.total() > 0);
        let share = |part: f64| (part * shape.total() as f64) as u64;
        let positions = share(from)..share(from) + share(part);
        let mut order = SampleOrder::new(seed, shape.clone(), window).expect("has rows");
        let mut walked = Vec::new();
        order.walk(positions.clone(), |rows| walked.extend_from_slice(rows));
        let one_by_one = positions.map(|p| {
            let sample = order.locate(p);
            Walked { number: order.row_number(sample), row_group: sample.row_group, row: sample.row }
        });
        prop_assert_eq!(walked, one_by_one.collect::<Vec<_>>());
    }

    #[test]
    fn many_values_go_where_one_goes(key: u64, n in 1u64..70_000, first in 0.0f64..1.0, len in 1u64..=BLOCK as u64) {
        let permutation = Permutation::new(key, n);
        let first = ((first * n as f64) as u64).min(n - 1);
        let len = len.min(n - first);
        let alone: Vec<u64> = (first..first + len).map(|v| permutation.of(v)).collect();
        for (values, looked_up) in [(0, false), (u64::MAX, true)] {
            let many = permutation.many(values);
            prop_assert_eq!(many.looks_up(), looked_up);
            let mut block = vec![0; len as usize];
            many.fill(first, &mut block);
            prop_assert_eq!(&block, &alone);
        }
    }

    #[test]
    fn a_substitute_is_another_row(rows in prop::collection::vec(1u32..9, 2..9), seed: u64, attempt in 1u32..5) {
        let mut order = SampleOrder::new(seed, DatasetShape { rows }, 4).expect("has rows");
        let bad = order.locate(0);
        prop_assert_ne!(order.substitute(bad, attempt), bad);
    }
}

#[test]
fn epochs_and_seeds_differ() {
    let shape = DatasetShape { rows: vec![50; 20] };
    let list = |seed: u64, epoch: u64| {
        let mut order = SampleOrder::new(seed, shape.clone(), 4).expect("has rows");
        (0..1000).map(|q| order.locate(epoch * 1000 + q)).map(|s| (s.row_group, s.row)).collect::<Vec<_>>()
    };
    assert_ne!(list(1, 0), list(1, 1));
    assert_ne!(list(1, 0), list(2, 0));
    assert_eq!(list(1, 0), list(1, 0));
}

/// Ledgers, checkpoints and runs under way depend on it: whoever changes the order orphans them.
#[test]
fn the_order_stays_as_it_is() {
    let rows = (0..40).map(|i| (i * 37) % 90).collect();
    let mut order = SampleOrder::new(2026, DatasetShape { rows }, 6).expect("has rows");
    let mut hash = blake3::Hasher::new();
    for position in 0..3 * order.epoch_len() {
        let sample = order.locate(position);
        hash.update(&sample.epoch.to_le_bytes());
        hash.update(&sample.row_group.to_le_bytes());
        hash.update(&sample.row.to_le_bytes());
    }
    assert_eq!(&hash.finalize().to_hex()[..16], "d8ce018f23b4de19");
}
