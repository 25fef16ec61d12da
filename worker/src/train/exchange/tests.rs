use super::*;
use pixfleet_collective::{Backend, GroupConfig, HashStore, RendezvousStore};
use std::sync::Arc;
use tch::Kind;

/// Runs `work` as every rank of a group of threads; results by rank.
fn ranks<T: Send>(world: u32, work: impl Fn(&Group) -> T + Sync) -> Vec<T> {
    let store: Arc<dyn RendezvousStore> = Arc::new(HashStore::new());
    std::thread::scope(|scope| {
        let spawn = |rank| {
            let (store, work) = (Arc::clone(&store), &work);
            scope.spawn(move || {
                let config = GroupConfig::loopback(rank, world, 1);
                let group = Group::new(Backend::Gloo, store, config).expect("a group");
                let result = work(&group);
                group.finish().expect("all came");
                result
            })
        };
        let threads: Vec<_> = (0..world).map(spawn).collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    })
}

/// Row r holds r and 10 r.
fn rows(own: Range<i64>) -> Tensor {
    let r = Tensor::arange_start(own.start, own.end, (Kind::Float, tch::Device::Cpu));
    Tensor::stack(&[r.shallow_clone(), r * 10.0], 1)
}

#[test]
fn rows_come_in_global_order_on_every_rank_of_any_world() {
    for world in 1..=3 {
        // Five lanes of two rows: ranks hold unequal shares.
        let lanes = LaneMap::new(5, 2, world).expect("fewer ranks than lanes");
        let gathered = ranks(world, |group| {
            let mut peers = Peers::new(group, &lanes, (Wish::default(), Evidence::default()));
            let own = rows(peers.own_rows());
            let both = [peers.all_gather_rows(&own), peers.all_gather_rows(&own)].map(|all| all.expect("gathered"));
            assert_eq!(peers.asked(), Wish::default());
            assert_eq!(peers.total_rows(), 10);
            both.map(|all| Vec::<f32>::try_from(all.reshape([-1])).expect("numbers"))
        });
        let expected = Vec::<f32>::try_from(rows(0..10).reshape([-1])).expect("numbers");
        for all in gathered.iter().flatten() {
            assert_eq!(*all, expected, "world {world}");
        }
    }
}

#[test]
fn what_all_do_next_and_what_all_fed_reach_every_rank_in_the_same_step() {
    let nothing = Wish::default();
    let finish = Wish { finish: true, next: None };
    let held = |number: u64| Wish { finish: false, next: Some(Generation(number)) };
    // Far numbers, so that each byte of them travels.
    let [old, new] = [held(u64::MAX - 1), held(u64::MAX)];
    let steps = [[nothing; 3], [old, nothing, old], [old, old, new], [finish, nothing, old], [new; 3], [nothing; 3]];
    let fed = |step: u64, rank: usize| Evidence {
        rows: (u128::MAX / 3 * (rank as u128 + 1)).wrapping_add(step.into()),
        drawn: (0xfe01_80ff << 96 | 0xff) >> rank,
    };
    // Lanes of two rows: a note takes many columns; of forty: one. bf16 has eight bits for it, as a byte needs.
    for (lane_size, kind) in [(2, Kind::Float), (40, Kind::Float), (2, Kind::BFloat16), (40, Kind::BFloat16)] {
        let lanes = LaneMap::new(5, lane_size, 3).expect("fewer ranks than lanes");
        let heard = ranks(3, |group| {
            (0..)
                .zip(steps)
                .map(|(step, wishes)| {
                    let rank = group.rank() as usize;
                    let mut peers = Peers::new(group, &lanes, (wishes[rank], fed(step, rank)));
                    let rows = peers.own.end - peers.own.start;
                    let own: Vec<f32> = peers.aside().into_iter().map(f32::from).collect();
                    let own = Tensor::from_slice(&own).reshape([rows, -1]).to_kind(kind);
                    assert_eq!(own.size()[1], (NOTE as i64 - 1) / i64::from(lane_size) + 1);
                    let all = peers.all_gather_rows(&own).expect("gathered").to_kind(Kind::Uint8).reshape([-1]);
                    peers.heard(&Vec::<u8>::try_from(all).expect("bytes"));
                    (peers.asked(), peers.fed())
                })
                .collect::<Vec<_>>()
        });
        let expected: Vec<_> = [nothing, nothing, nothing, finish, new, nothing]
            .into_iter()
            .zip(0..)
            .map(|(wish, step)| (wish, Some((0..3).map(|rank| fed(step, rank)).sum())))
            .collect();
        assert_eq!(heard, vec![expected; 3], "lanes of {lane_size}, {kind:?}");
    }
}
