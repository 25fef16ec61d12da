//! `train.reduce = "exact"`: gradients of all lanes, added along the tree of lanes (`pixfleet_cluster::lane_sum`): the same
//! additions in the same order, whatever the world size.
//!
//! A rank adds what lies wholly within its lanes. Then the parameters are cut into a slice for each rank: every rank sends
//! each other one its partial sums of that one's slice (all-to-all), adds those of its own slice, and receives the
//! finished slices of all (all-gather). With one partial sum a rank those are the bytes of a ring all-reduce, whatever the
//! world size; [`exchanged`] counts them.
//!
//! Invariant: `.grad` of every trainable parameter is a view of one vector of all; a lane's backward adds to it in place.

use pixfleet_cluster::lane_sum::{LaneSum, complete, exchanged, joins_left, partial_count};
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

    /// Bytes of gradients that this rank sent and received in the last step.
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
/// that this rank sent and received.
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
        bytes += exchanged(&counts, group.rank() as usize) as u64 * piece.cast_unsigned() * size_of::<f32>() as u64;
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
