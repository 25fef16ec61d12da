//! The first gather: what of a row must be known everywhere, in one matrix of a fixed width; and what comes back.

use std::ops::Range;

use pixfleet_cluster::spec::terms::{Set, Term, TermKind};
use tch::{Device, Kind as Dtype, Tensor};

use super::Leaves;
use super::pairs::Pairs;
use crate::ModelError;
use crate::host::{put, read};
use crate::items::BySet;
use crate::loss::PairFeatures;

/// Columns of a packed row.
type Place = Range<i64>;

/// The own rows, packed: the sets that need global columns in the order of [`Set::ALL`], each slot's feature (zeros where
/// there is no item), then one flag a slot of every set that the terms read, then the bytes that ride along
/// ([`super::Exchange::aside`]). bf16 holds flags and bytes exactly.
#[derive(Debug)]
pub(super) struct Packed {
    matrix: Tensor,
    features: BySet<Place>,
    flags: BySet<Place>,
    /// Columns that ride along.
    aside: i64,
}

impl Packed {
    pub(super) fn new(
        terms: &[Term],
        leaves: &Leaves,
        own: &Range<i64>,
        (dtype, aside): (Dtype, &[u8]),
    ) -> Result<Self, ModelError> {
        check(terms, leaves, own.end - own.start)?;
        let (mut features, mut flags): (BySet<Place>, BySet<Place>) = Default::default();
        let (mut parts, mut width) = (Vec::new(), 0);
        let mut place = |columns: Tensor| {
            let from = width;
            width += columns.size()[1];
            parts.push(columns);
            from..width
        };
        for set in Set::ALL.into_iter().filter(|set| terms.iter().any(|t| t.gathers(*set))) {
            *features.entry(set) = Some(place(dense(leaves, set)?));
        }
        for set in Set::ALL.into_iter().filter(|set| terms.iter().any(|t| t.kind.sets().contains(set))) {
            *flags.entry(set) = Some(place(flagged(leaves, set)?));
        }
        let like = parts.first().ok_or(ModelError::MissingInput { what: "term", hint: "a loss has at least one" })?;
        let columns = beside(aside, own.end - own.start)?;
        let (aside, columns) = (columns.size()[1], put(&columns, like.device())?);
        parts.push(columns);
        Ok(Self { matrix: Tensor::f_cat(&parts, 1)?.f_to_kind(dtype)?, features, flags, aside })
    }

    /// `[n_own, K]`.
    pub(super) fn matrix(&self) -> &Tensor {
        &self.matrix
    }

    /// The global batch from the gathered `[total, K]`, and the bytes that rode along, row by row.
    pub(super) fn unpack(self, matrix: Tensor, own: Range<i64>, total: i64) -> Result<(Gathered, Vec<u8>), ModelError> {
        let width = self.matrix.size()[1];
        if matrix.size() != [total, width] {
            return Err(ModelError::Shape {
                what: "gathered features".into(),
                expected: format!("[{total}, {width}]"),
                found: matrix.size(),
            });
        }
        // What the host must know stands last, so one read tells all of it.
        let first = self.flags.iter().map(|(_, at)| at.start).min().unwrap_or(width - self.aside);
        let wide = (width - first) as usize;
        let told = read(&matrix.f_narrow(1, first, width - first)?)?;
        let rows = || told.chunks_exact(wide);
        let mut valid = BySet::default();
        for (set, at) in self.flags.iter() {
            let (from, to) = ((at.start - first) as usize, (at.end - first) as usize);
            *valid.entry(set) = Some(rows().flat_map(|row| &row[from..to]).map(|&flag| flag > 0.5).collect::<Vec<_>>());
        }
        let aside = rows().flat_map(|row| &row[wide - self.aside as usize..]).map(|&byte| byte as u8).collect();
        Ok((Gathered { matrix, features: self.features, valid, own }, aside))
    }
}

/// `[n_own, C]`: what rides along, as numbers.
fn beside(aside: &[u8], rows: i64) -> Result<Tensor, ModelError> {
    let numbers: Vec<f32> = aside.iter().map(|&byte| f32::from(byte)).collect();
    let columns = numbers.len() as i64 / rows.max(1);
    if columns * rows != numbers.len() as i64 {
        let expected = format!("a multiple of the own {rows} rows");
        return Err(ModelError::Shape {
            what: "bytes beside the features".into(),
            expected,
            found: vec![numbers.len() as i64],
        });
    }
    Ok(Tensor::from_slice(&numbers).f_reshape([rows, columns])?)
}

/// `[n_own, slots x D]`: an item's feature in its slot.
fn dense(leaves: &Leaves, set: Set) -> Result<Tensor, ModelError> {
    let items = leaves.of(set).expect("checked before");
    let (slots, d) = (&items.slots, items.features.size()[1]);
    let feature = items.features.f_to_kind(Dtype::Float)?;
    let rows = if slots.is_full() {
        feature
    } else {
        let mut rows = Tensor::f_zeros([slots.rows() * slots.per_row(), d], (Dtype::Float, feature.device()))?;
        let index = put(&Tensor::from_slice(slots.valid()), feature.device())?;
        rows.f_index_copy_(0, &index, &feature)?
    };
    Ok(rows.f_reshape([slots.rows(), slots.per_row() * d])?)
}

/// `[n_own, slots]`: 1 where there is an item.
fn flagged(leaves: &Leaves, set: Set) -> Result<Tensor, ModelError> {
    let items = leaves.of(set).expect("checked before");
    let slots = &items.slots;
    let mut flags = vec![0f32; (slots.rows() * slots.per_row()) as usize];
    for &slot in slots.valid() {
        flags[slot as usize] = 1.0;
    }
    let flags = put(&Tensor::from_slice(&flags), items.features.device())?;
    Ok(flags.f_reshape([slots.rows(), slots.per_row()])?)
}

/// The terms' sets are there, two by two with as many slots, and of one width.
fn check(terms: &[Term], leaves: &Leaves, rows: i64) -> Result<(), ModelError> {
    let mut width = None;
    for term in terms {
        let mut per_row = None;
        for set in term.kind.sets() {
            let hint = "the towers must be run for the same `[loss]` section as the objective";
            let items = leaves.of(set).ok_or(ModelError::MissingInput { what: set.name(), hint })?;
            let found = items.features.size();
            let d = *width.get_or_insert_with(|| found.get(1).copied().unwrap_or(0));
            let expected = [items.slots.count() * i64::from(set.width()), d];
            if found != expected {
                let (what, expected) = (format!("features of set `{}`", set.name()), format!("{expected:?}"));
                return Err(ModelError::Shape { what, expected, found });
            }
            let slots = [items.slots.rows(), items.slots.per_row()];
            let expected = [rows, *per_row.get_or_insert(slots[1])];
            if slots != expected {
                return Err(ModelError::Shape {
                    what: format!("slots of set `{}` in term `{}`", set.name(), term.name),
                    expected: format!("{expected:?}"),
                    found: slots.to_vec(),
                });
            }
        }
    }
    Ok(())
}

/// The global batch as a rank sees it after the first gather.
#[derive(Debug)]
pub(super) struct Gathered {
    matrix: Tensor,
    features: BySet<Place>,
    valid: BySet<Vec<bool>>,
    own: Range<i64>,
}

impl Gathered {
    pub(super) fn device(&self) -> Device {
        self.matrix.device()
    }

    pub(super) fn own_count(&self) -> i64 {
        self.own.end - self.own.start
    }

    pub(super) fn total(&self) -> i64 {
        self.matrix.size()[0]
    }

    /// The slots that a term is over.
    pub(super) fn pairs(&self, kind: TermKind, leaves: &Leaves) -> Result<Pairs, ModelError> {
        let valid = |set: Set| self.valid.get(set).expect("a set of a term was packed");
        Pairs::new(kind.sets().map(valid), &self.own, (kind, leaves), self.device())
    }

    /// A gathered set's features over all pairs of the batch.
    pub(super) fn pair_features(&self, set: Set, pairs: &Pairs) -> Result<PairFeatures, ModelError> {
        let at = self.features.get(set).expect("a set of a global contrast was packed");
        let (slots, wide) = (pairs.per_row(), at.end - at.start);
        let rows = self.matrix.f_narrow(1, at.start, wide)?.f_unflatten(1, [slots, wide / slots])?;
        Ok(PairFeatures::slots(rows, pairs.chosen()))
    }
}
