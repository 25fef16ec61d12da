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
            let mut peers = Peers::new(group, &lanes, Wish::Nothing);
            let own = rows(peers.own_rows());
            let both = [peers.all_gather_rows(&own), peers.all_gather_rows(&own)].map(|all| all.expect("gathered"));
            assert_eq!(peers.asked(), Wish::Nothing);
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
fn the_highest_wish_of_any_rank_reaches_all_in_the_same_step() {
    use Wish::{Boundary, Checkpoint, Nothing};
    let lanes = LaneMap::new(3, 2, 3).expect("as many lanes as ranks");
    let steps = [[Nothing; 3], [Nothing, Nothing, Boundary], [Checkpoint, Nothing, Boundary], [Nothing; 3]];
    let heard = ranks(3, |group| {
        steps.map(|wishes| {
            let mut peers = Peers::new(group, &lanes, wishes[group.rank() as usize]);
            let own = Tensor::full([2, 1], i64::from(peers.aside()), (Kind::Float, tch::Device::Cpu));
            let all = peers.all_gather_rows(&own).expect("gathered");
            peers.heard(all.max().double_value(&[]) as u8);
            peers.asked()
        })
    });
    assert_eq!(heard, vec![[Nothing, Boundary, Checkpoint, Nothing]; 3]);
}
