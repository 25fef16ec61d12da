//! The items of a batch, set by set: which slots hold one, what towers read, and the features that losses are computed
//! from. Only valid items are stored; slots say where they belong.

use std::ops::Range;

use pixfleet_cluster::spec::terms::Set;
use tch::Tensor;

use crate::error::ModelError;

/// Which slots of a set hold an item, over some rows: slot `row * per_row + k` for the `k`th of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    rows: i64,
    per_row: i64,
    valid: Vec<i64>,
}

impl Slots {
    /// Every slot holds an item.
    #[must_use]
    pub fn all(rows: i64, per_row: i64) -> Self {
        Self { rows, per_row, valid: (0..rows * per_row).collect() }
    }

    /// The slots `valid` hold items.
    ///
    /// # Errors
    /// [`ModelError::Slots`] unless they ascend and lie within the rows.
    pub fn of(rows: i64, per_row: i64, valid: Vec<i64>) -> Result<Self, ModelError> {
        let ascends = valid.windows(2).all(|w| w[0] < w[1]);
        if ascends && valid.iter().all(|slot| (0..rows * per_row).contains(slot)) {
            return Ok(Self { rows, per_row, valid });
        }
        Err(ModelError::Slots { rows, per_row })
    }

    /// The slots whose flag is set, one flag a slot.
    #[must_use]
    pub fn flagged(per_row: i64, flags: impl IntoIterator<Item = bool>) -> Self {
        let (mut valid, mut slot) = (Vec::new(), 0);
        for flag in flags {
            if flag {
                valid.push(slot);
            }
            slot += 1;
        }
        Self { rows: slot / per_row.max(1), per_row, valid }
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.rows
    }

    /// Slots of a row.
    #[must_use]
    pub fn per_row(&self) -> i64 {
        self.per_row
    }

    /// Valid slots, ascending.
    #[must_use]
    pub fn valid(&self) -> &[i64] {
        &self.valid
    }

    /// How many slots are valid.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.valid.len() as i64
    }

    /// Whether every slot is valid.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count() == self.rows * self.per_row
    }

    /// The items, counted among the valid ones, of some rows.
    #[must_use]
    pub fn items_of(&self, rows: &Range<i64>) -> Range<i64> {
        let before = |row: i64| self.valid.partition_point(|slot| *slot < row * self.per_row) as i64;
        before(rows.start)..before(rows.end)
    }

    /// The rows that own the items, in their order.
    #[must_use]
    pub fn owners(&self) -> Vec<i64> {
        self.valid.iter().map(|slot| slot / self.per_row).collect()
    }

    /// One after the other. All have the same number of slots a row.
    #[must_use]
    pub fn joined<'s>(parts: impl IntoIterator<Item = &'s Self>) -> Self {
        let mut whole = Self { rows: 0, per_row: 1, valid: Vec::new() };
        for part in parts {
            whole.per_row = part.per_row;
            let start = whole.rows * part.per_row;
            whole.valid.extend(part.valid.iter().map(|slot| slot + start));
            whole.rows += part.rows;
        }
        whole
    }
}

/// The items of one set: `features` [count x width of the set, D] fp32, L2-normalized, in the order of the slots.
#[derive(Debug)]
pub struct Items {
    /// One row an item.
    pub features: Tensor,
    /// Where they belong.
    pub slots: Slots,
}

/// A value by set.
#[derive(Debug)]
pub struct BySet<T>([Option<T>; Set::ALL.len()]);

impl<T> Default for BySet<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| None))
    }
}

impl<T> BySet<T> {
    /// That of `set`.
    #[must_use]
    pub fn get(&self, set: Set) -> Option<&T> {
        self.0[set as usize].as_ref()
    }

    /// That of `set`, to be changed or put there.
    pub fn entry(&mut self, set: Set) -> &mut Option<T> {
        &mut self.0[set as usize]
    }

    /// With another value for `set`.
    #[must_use]
    pub fn with(mut self, set: Set, value: T) -> Self {
        self.0[set as usize] = Some(value);
        self
    }

    /// Those that are there, in the order of [`Set::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Set, &T)> {
        Set::ALL.into_iter().filter_map(|set| Some((set, self.get(set)?)))
    }
}

/// The texts of one set as a tower reads them, one a valid item (of hard negatives [`Set::width`] a slot).
#[derive(Debug)]
pub enum TextItems {
    /// [k, E] stored vectors, fp32.
    Vectors(Tensor),
    /// Token ids.
    Tokens(TokenIds),
}

impl TextItems {
    /// The same numbers once more.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        match self {
            Self::Vectors(vectors) => Self::Vectors(vectors.shallow_clone()),
            Self::Tokens(TokenIds { ids, lengths }) => {
                Self::Tokens(TokenIds { ids: ids.shallow_clone(), lengths: lengths.clone() })
            }
        }
    }
}

/// [k, L] token ids on the host, i64, each row filled up behind its end; and how many of a row count.
#[derive(Debug)]
pub struct TokenIds {
    /// [k, L].
    pub ids: Tensor,
    /// Start and end among them.
    pub lengths: Vec<i64>,
}

/// A lane's batch on the model's device, fp32. `S` is the tower's image side, `n` the rows.
#[derive(Debug)]
pub struct Inputs {
    /// [n, 3, S, S], normalized.
    pub pixels: Tensor,
    /// [n, 1, S, S], normalized; `None` runs the tower without the alpha path.
    pub mask: Option<Tensor>,
    /// [n, 3, S, S], normalized; only for losses that use the crop. Rows whose crop does not count hold anything.
    pub crop_pixels: Option<Tensor>,
    /// [n, 1, S, S], normalized.
    pub crop_mask: Option<Tensor>,
    /// [regions, 4] xyxy in 0..1 of the square, one a valid region; only for losses that pool a region by its box.
    pub boxes: Option<Tensor>,
    /// The valid slots of every set but the image's that the loss uses.
    pub slots: BySet<Slots>,
    /// The texts of each text set that the loss uses.
    pub texts: BySet<TextItems>,
}

/// What the losses of one lane are computed from, with the graph that they need: no more sets than a loss uses.
///
/// An image, a crop that learns, a region and a text have a graph (a text unless its tower is frozen); a crop that only
/// teaches and a teacher's crop have none.
#[derive(Debug)]
pub struct Features {
    /// Rows of the lane.
    pub rows: i64,
    /// The items.
    pub sets: BySet<Items>,
}

impl Features {
    /// The features of a set, [items, D].
    #[must_use]
    pub fn of(&self, set: Set) -> Option<&Tensor> {
        self.sets.get(set).map(|items| &items.features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_know_their_rows_and_join_in_order() {
        let some = Slots::of(3, 2, vec![0, 1, 4]).expect("ascending");
        assert_eq!((some.count(), some.is_full(), some.owners()), (3, false, vec![0, 0, 2]));
        assert_eq!((some.items_of(&(0..1)), some.items_of(&(1..2)), some.items_of(&(1..3))), (0..2, 2..2, 2..3));
        let none = Slots::of(2, 2, Vec::new()).expect("empty");
        let whole = Slots::joined([&some, &none, &Slots::all(1, 2)]);
        assert_eq!((whole.rows(), whole.valid()), (6, &[0i64, 1, 4, 10, 11][..]));
        assert_eq!(Slots::flagged(2, [true, true, false, false, true, false]), some);
        for bad in [vec![1, 0], vec![0, 0], vec![6], vec![-1]] {
            assert!(Slots::of(3, 2, bad).is_err());
        }
    }
}
