//! The slots that a term is over: those valid in both of its sets. The others are dropped from it: no target, no negative,
//! not in the mean.

use std::ops::Range;

use pixfleet_cluster::spec::terms::{Set, TermKind};
use tch::{Device, Kind as Dtype, Tensor};

use super::Leaves;
use crate::ModelError;
use crate::host::put;

/// See the module. A *pair* is a slot that is valid in both sets; pairs are in global order.
#[derive(Debug)]
pub(super) struct Pairs {
    per_row: i64,
    /// Slots of the pairs among all; `None`: every one.
    all: Option<Tensor>,
    /// Slots of the own pairs, counted from the first own one; `None`: every one.
    own_slots: Option<Tensor>,
    /// The own pairs' items of either set, counted among its own items; `None`: every one, in order.
    own_items: [Option<Tensor>; 2],
    sets: [Set; 2],
    /// How many there are in the global batch.
    pub(super) count: i64,
    /// The own ones among them.
    pub(super) own: Range<i64>,
    /// Those of each own lane, counted among the own ones.
    pub(super) lanes: Vec<Range<i64>>,
}

impl Pairs {
    pub(super) fn new(
        valid: [&Vec<bool>; 2],
        rows: &Range<i64>,
        (kind, leaves): (TermKind, &Leaves),
        device: Device,
    ) -> Result<Self, ModelError> {
        let sets = kind.sets();
        let items = sets.map(|set| leaves.of(set).expect("checked when the leaves were packed"));
        let per_row = items[0].slots.per_row();
        let all: Vec<i64> =
            (0i64..).zip(valid[0].iter().zip(valid[1])).filter_map(|(i, (x, y))| (*x && *y).then_some(i)).collect();
        let before = |slot: i64| all.partition_point(|&i| i < slot) as i64;
        let own = before(rows.start * per_row)..before(rows.end * per_row);
        let own_slots: Vec<i64> =
            all[own.start as usize..own.end as usize].iter().map(|slot| slot - rows.start * per_row).collect();
        let lanes = leaves.lanes().iter().map(|lane| {
            let at = |row: i64| own_slots.partition_point(|slot| *slot < row * per_row) as i64;
            at(lane.start)..at(lane.end)
        });
        let lanes = lanes.collect();
        let index = |chosen: Vec<i64>, of: i64| -> Result<Option<Tensor>, ModelError> {
            let every = chosen.len() as i64 == of;
            Ok(if every { None } else { Some(put(&Tensor::from_slice(&chosen), device)?) })
        };
        let places = |slots: &[i64]| -> Vec<i64> {
            own_slots.iter().filter_map(|slot| slots.binary_search(slot).ok()).map(|i| i as i64).collect()
        };
        let own_items = [
            index(places(items[0].slots.valid()), items[0].slots.count())?,
            index(places(items[1].slots.valid()), items[1].slots.count())?,
        ];
        let count = all.len() as i64;
        let (slots, own_of) = (valid[0].len() as i64, (rows.end - rows.start) * per_row);
        Ok(Self {
            per_row,
            all: index(all, slots)?,
            own_slots: index(own_slots, own_of)?,
            own_items,
            sets,
            count,
            own,
            lanes,
        })
    }

    /// Slots of a row.
    pub(super) fn per_row(&self) -> i64 {
        self.per_row
    }

    /// Slots of the pairs among all, i64 [pairs]; `None`: every one.
    pub(super) fn chosen(&self) -> Option<&Tensor> {
        self.all.as_ref()
    }

    /// The own pairs of each own lane, counted over the global batch.
    pub(super) fn own_lanes(&self) -> Vec<Range<i64>> {
        self.lanes.iter().map(|lane| self.own.start + lane.start..self.own.start + lane.end).collect()
    }

    /// The pairs' rows of a matrix or vector over all slots.
    pub(super) fn of_all(&self, slots: &Tensor) -> Result<Tensor, ModelError> {
        chosen(slots, self.all.as_ref())
    }

    /// The own pairs' features of the first (0) or second (1) set: `[own pairs x width of the set, D]`.
    pub(super) fn of_own(&self, side: usize, items: &Tensor) -> Result<Tensor, ModelError> {
        let Some(index) = &self.own_items[side] else { return Ok(items.shallow_clone()) };
        self.grouped(side, items)?.f_index_select(0, index)?.f_reshape(with_rows(items, -1)).map_err(Into::into)
    }

    /// The other way round: own pairs back in their places among `like`'s items; the others get zeros.
    pub(super) fn to_own(&self, side: usize, pairs: Tensor, like: &Tensor) -> Result<Tensor, ModelError> {
        let Some(index) = &self.own_items[side] else { return Ok(pairs) };
        let mut items = self.grouped(side, &like.f_zeros_like()?)?;
        let _ = items.f_index_copy_(0, index, &self.grouped(side, &pairs)?)?;
        Ok(items.f_reshape(like.size())?)
    }

    /// A number of each own pair in its slot, `[n_own, slots a row]`; the others get 0.
    pub(super) fn spread(&self, pairs: &Tensor, n_own: i64) -> Result<Tensor, ModelError> {
        let rows = match &self.own_slots {
            None => pairs.shallow_clone(),
            Some(index) => {
                let mut rows = Tensor::f_zeros([n_own * self.per_row], (pairs.kind(), pairs.device()))?;
                let _ = rows.f_index_copy_(0, index, pairs)?;
                rows
            }
        };
        Ok(rows.f_reshape([n_own, self.per_row])?)
    }

    /// `[items, width, D]`.
    fn grouped(&self, side: usize, rows: &Tensor) -> Result<Tensor, ModelError> {
        let d = rows.size()[1];
        Ok(rows.f_reshape([-1, i64::from(self.sets[side].width()), d])?)
    }

    /// `[0, D]` of either set: the gradient of a term over no pair, to be put back among zeros.
    pub(super) fn none(like: &Tensor) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_zeros([0, like.size()[1]], (Dtype::Float, like.device()))?)
    }
}

fn with_rows(like: &Tensor, rows: i64) -> [i64; 2] {
    [rows, like.size()[1]]
}

fn chosen(rows: &Tensor, index: Option<&Tensor>) -> Result<Tensor, ModelError> {
    Ok(match index {
        Some(index) => rows.f_index_select(0, index)?,
        None => rows.shallow_clone(),
    })
}
