//! `train.reduce = "exact"`: gradients of all lanes, added along the tree of lanes (`pixfleet_cluster::lane_sum`): the same
//! additions in the same order, whatever the world size.
//!
//! A rank adds what lies wholly within its lanes. Then the parameters are cut into a slice for each rank: every rank sends
//! each other one its partial sums of that one's slice (all-to-all), adds those of its own slice, and receives the
//! finished slices of all (all-gather). With one partial sum a rank those are the bytes of a ring all-reduce, whatever the
//! world size.
//!
//! Invariant: `.grad` of every trainable parameter is a view of one vector of all; a lane's backward adds to it in place.

use pixfleet_cluster::lane_sum::{LaneSum, complete, joins_left, partial_count};
use pixfleet_cluster::{LaneMap, Rank};
use pixfleet_collective::Group;
use pixfleet_model::ModelError;
use pixfleet_model::params::Params;
use pixfleet_shim::lists;
use tch::{Kind, Tensor};

use super::error::TrainError;

/// Numbers of a slice that travel at a time: what a rank receives of them is all the memory that the exchange needs.
const PIECE: i64 = 1 << 20;

/// See the module. Of one generation.
pub(crate) struct LaneTree {
    sum: LaneSum<Tensor>,
    /// Where the gradients live, fp32 [numbers], as long as the world cuts into equal slices; zeros behind them.
    flat: Tensor,
    /// As `flat`, of no use at the moment.
    free: Vec<Tensor>,
    waited_s: f64,
    bytes: u64,
}

impl LaneTree {
    /// Moves the gradients of `params` into a vector of their own: zeros.
    ///
    /// # Errors
    /// Those of libtorch.
    pub(crate) fn new(group: &Group, params: &Params) -> Result<Self, TrainError> {
        let numbers: i64 = params.trainable().map(|param| param.tensor().numel() as i64).sum();
        let world = i64::from(group.world());
        let length = (numbers + world - 1) / world * world;
        let flat = Tensor::f_zeros([length], (Kind::Float, group.device())).map_err(torch)?;
        let mut tree = Self { sum: LaneSum::default(), flat, free: Vec::new(), waited_s: 0.0, bytes: 0 };
        tree.live_in(tree.flat.shallow_clone(), params)?;
        Ok(tree)
    }

    /// Call before the backward of the own lanes' next one, `lane`; `first` is the first of them.
    ///
    /// # Errors
    /// Those of libtorch.
    pub(crate) fn before(&mut self, lane: u32, first: u32, params: &Params) -> Result<(), TrainError> {
        // Backward itself adds a lane to its left sibling.
        if lane == first || joins_left(lane, first) {
            return Ok(());
        }
        self.take(lane - 1, first)?;
        let next = match self.free.pop() {
            Some(mut used) => used.f_zero_(),
            None => self.flat.f_zeros_like(),
        };
        self.live_in(next.map_err(torch)?, params)
    }

    /// Call after the last backward: gradients of the global batch stand in `.grad`.
    ///
    /// # Errors
    /// Those of the group and of libtorch.
    pub(crate) fn finish(&mut self, group: &Group, map: &LaneMap, params: &Params) -> Result<(), TrainError> {
        let lanes: Vec<_> = (0..map.world()).map(|rank| map.lanes_of(Rank(rank))).collect();
        let own = &lanes[group.rank() as usize];
        self.take(own.end - 1, own.start)?;
        let mut own = std::mem::take(&mut self.sum).into_partial();
        (self.waited_s, self.bytes) = (0.0, 0);
        let whole = if map.world() == 1 {
            let free = &mut self.free;
            complete(lanes, own, |left, right| add(left, right, free))?
        } else {
            let before = group.waited_s();
            self.bytes = exchange(group, &lanes, &own)?;
            self.waited_s = group.waited_s() - before;
            let whole = own.swap_remove(0);
            self.free.extend(own);
            whole
        };
        self.live_in(whole, params)
    }

    /// Seconds that the last step waited for other ranks' gradients.
    pub(crate) fn waited_s(&self) -> f64 {
        self.waited_s
    }

    /// Bytes of gradients that this rank sent to others in the last step.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `flat` holds the gradient of `lane`, or the sum of it and its left sibling.
    fn take(&mut self, lane: u32, first: u32) -> Result<(), TrainError> {
        let (flat, free) = (self.flat.shallow_clone(), &mut self.free);
        let add = |left, right| add(left, right, free);
        if joins_left(lane, first) { self.sum.push_pair(lane, flat, add) } else { self.sum.push(lane, flat, add) }
    }

    fn live_in(&mut self, flat: Tensor, params: &Params) -> Result<(), TrainError> {
        let list: Vec<Tensor> = params.trainable().map(|param| param.tensor().shallow_clone()).collect();
        lists::gradients_in(&flat, &list).map_err(|failure| TrainError::Model(ModelError::from(failure)))?;
        self.flat = flat;
        Ok(())
    }
}

/// Puts the sum over all `lanes` (of each rank) in place of the first of `own`, the partial sums of this rank. Returns the bytes
/// that this rank sent.
fn exchange(group: &Group, lanes: &[std::ops::Range<u32>], own: &[Tensor]) -> Result<u64, TrainError> {
    let counts: Vec<usize> = lanes.iter().cloned().map(partial_count).collect();
    let world = lanes.len() as i64;
    let (length, mut start, mut bytes) = (own[0].size()[0], 0, 0);
    while start < length {
        let piece = PIECE.min((length - start) / world);
        let sent = for_each_rank(own, start, piece, world).map_err(torch)?;
        let to = vec![piece * own.len() as i64; lanes.len()];
        let from: Vec<i64> = counts.iter().map(|count| piece * *count as i64).collect();
        let received = group.all_to_all(&sent, &from, &to)?;
        let sums = received.f_split(piece, 0).map_err(torch)?;
        let sum = complete(lanes.iter().cloned(), sums, |left, right| add(left, right, &mut Vec::new()))?;
        let mut whole = own[0].f_narrow(0, start, piece * world).map_err(torch)?;
        group.all_gather_into(&mut whole, &sum)?;
        // All but what it sends itself, and then its sum to each other rank.
        let numbers = sent.numel() - piece as usize * own.len() + sum.numel() * (lanes.len() - 1);
        bytes += (numbers * size_of::<f32>()) as u64;
        start += piece * world;
    }
    Ok(bytes)
}

/// What goes to each rank of the numbers from `start` on: `piece` numbers of each partial sum.
fn for_each_rank(own: &[Tensor], start: i64, piece: i64, world: i64) -> Result<Tensor, tch::TchError> {
    if let [one] = own {
        return one.f_narrow(0, start, piece * world);
    }
    let cuts = own.iter().map(|sum| sum.f_narrow(0, start, piece * world)?.f_view([world, piece]));
    Tensor::f_stack(&cuts.collect::<Result<Vec<_>, _>>()?, 1)?.f_flatten(0, -1)
}

fn torch(source: tch::TchError) -> TrainError {
    TrainError::Torch { doing: "adding the gradients of all lanes", source }
}

/// The sum stands where `left` did.
fn add(mut left: Tensor, right: Tensor, free: &mut Vec<Tensor>) -> Result<Tensor, TrainError> {
    let sum = left.f_add_(&right).map_err(torch)?;
    free.push(right);
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixfleet_collective::{Backend, GroupConfig, HashStore, RendezvousStore};
    use std::sync::Arc;
    use tch::Device;

    const SHAPES: [&[i64]; 3] = [&[7, 11], &[1], &[3, 5]];

    /// Numbers whose sum depends on the order of additions.
    fn gradient(step: u32, lane: u32, shape: &[i64]) -> Tensor {
        let numbers = Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, Device::Cpu));
        let scale = 10f64.powi((step + 3 * lane) as i32 % 5);
        ((numbers + f64::from(7 * step + lane + 1)).sin() * scale).view(shape)
    }

    /// Gradients and the bytes sent, by step.
    type Told = Vec<(Vec<Tensor>, u64)>;

    fn reduced(store: &Arc<dyn RendezvousStore>, map: LaneMap, rank: u32, shapes: &[&[i64]]) -> Told {
        let config = GroupConfig::loopback(rank, map.world(), 1);
        let group = Group::new(Backend::Gloo, Arc::clone(store), config).expect("a group");
        let mut params = Params::new(Device::Cpu);
        for (i, shape) in shapes.iter().enumerate() {
            params.push(&i.to_string(), &Tensor::zeros(*shape, (Kind::Float, Device::Cpu)), true);
        }
        let mut tree = LaneTree::new(&group, &params).expect("gradients");
        let lanes = map.lanes_of(Rank(rank));
        let mut told = Vec::new();
        for step in 0..2 {
            params.zero_grad().expect("gradients");
            for lane in lanes.clone() {
                tree.before(lane, lanes.start, &params).expect("sums");
                for param in params.trainable() {
                    let _ =
                        param.tensor().grad().f_add_(&gradient(step, lane, &param.tensor().size())).expect("one shape");
                }
            }
            tree.finish(&group, &map, &params).expect("sums");
            told.push((params.trainable().map(|param| param.tensor().grad().copy()).collect(), tree.bytes()));
        }
        drop(tree);
        group.finish().expect("all came");
        told
    }

    /// What `lanes` and `world` come to, by rank; ranks are threads.
    fn of_all(lanes: u32, world: u32, shapes: &[&[i64]]) -> Vec<Told> {
        let store: Arc<dyn RendezvousStore> = Arc::new(HashStore::new());
        let map = LaneMap::new(lanes, 1, world).expect("fewer ranks than lanes");
        std::thread::scope(|scope| {
            let reduced = |rank| reduced(&store, map, rank, shapes);
            let ranks: Vec<_> = (0..world).map(|rank| scope.spawn(move || reduced(rank))).collect();
            ranks.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        })
    }

    /// What one process makes of both steps: the tree of four or of six lanes, written out.
    fn plain(lanes: u32, shapes: &[&[i64]]) -> Vec<Vec<Tensor>> {
        let sum = |step: u32, shape: &[i64]| {
            let of = |lane| gradient(step, lane, shape);
            let four = (of(0) + of(1)) + (of(2) + of(3));
            if lanes == 4 { four } else { four + (of(4) + of(5)) }
        };
        (0..2).map(|step| shapes.iter().map(|shape| sum(step, shape)).collect()).collect()
    }

    fn assert_same_bits(told: &Told, plain: &[Vec<Tensor>], what: &str) {
        let bits = |tensors: &[Tensor]| tensors.iter().map(|t| t.view_dtype(Kind::Int)).collect::<Vec<_>>();
        assert_eq!(told.len(), plain.len());
        for (step, ((found, _), expected)) in told.iter().zip(plain).enumerate() {
            assert!(bits(found) == bits(expected), "{what}, step {step}");
        }
    }

    #[test]
    fn the_sum_is_that_of_one_process_whatever_the_world_size() {
        for (lanes, worlds) in [(4, 1..5), (6, 1..7)] {
            let plain = plain(lanes, &SHAPES);
            for world in worlds {
                for told in of_all(lanes, world, &SHAPES) {
                    assert_same_bits(&told, &plain, &format!("{lanes} lanes, {world} ranks"));
                }
            }
        }
    }

    /// Each number once to be added and once as a sum, but for the own slice, `1 / W` of them: less than twice the gradients
    /// however many ranks there are.
    #[test]
    fn the_bytes_of_a_rank_are_the_fewest_there_can_be_whatever_the_world_size() {
        // A piece of each of two ranks, and a rest.
        let shapes: [&[i64]; 2] = [&[PIECE], &[PIECE + 12_345]];
        let all = (2 * PIECE + 12_345) as f64 * 4.0;
        let plain = plain(4, &shapes);
        for world in 2..5 {
            for told in of_all(4, world, &shapes) {
                assert_same_bits(&told, &plain, &format!("{world} ranks"));
                for (_, bytes) in &told {
                    let (bytes, world) = (*bytes as f64, f64::from(world));
                    let with_own_slice = bytes * world / (world - 1.0);
                    assert!((with_own_slice / (2.0 * all) - 1.0).abs() < 0.01, "{bytes} of {all}, {world} ranks");
                    assert!(bytes < 2.0 * all, "{bytes} of {all}, {world} ranks");
                }
            }
        }
    }
}
