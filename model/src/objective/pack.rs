//! The first gather: what of a row must be known everywhere, in one matrix; and the batch that comes back.

use std::ops::Range;

use tch::{Device, Kind as Dtype, Tensor};

use super::{Kind, Leaves, Mask, Part, Term};
use crate::ModelError;

/// Where a part stands in a packed row.
type Place = Option<Range<i64>>;

/// The own rows, packed: the parts that need global columns in the order of [`Part::ALL`], then the validity flag.
#[derive(Debug)]
pub(super) struct Packed {
    matrix: Tensor,
    places: [Place; Part::ALL.len()],
}

impl Packed {
    pub(super) fn new(terms: &[Term], leaves: &Leaves, own: &Range<i64>) -> Result<Self, ModelError> {
        let rows = own.end - own.start;
        check(terms, leaves, rows)?;
        let mut places: [Place; Part::ALL.len()] = Default::default();
        let (mut columns, mut width) = (Vec::new(), 0);
        for part in Part::ALL {
            let global = terms.iter().any(|t| matches!(t.kind, Kind::InfoNce(a, b) if a == part || b == part));
            if let (true, Some(feature)) = (global, leaves.part(part)) {
                let d = feature.size()[1];
                places[part as usize] = Some(width..width + d);
                width += d;
                columns.push(feature.f_to_kind(Dtype::Float)?);
            }
        }
        let device = columns.first().map_or(Device::Cpu, Tensor::device);
        let flags: Vec<f32> = leaves.crop_valid().iter().map(|&v| f32::from(u8::from(v))).collect();
        columns.push(Tensor::from_slice(&flags).f_to_device(device)?.f_unsqueeze(1)?);
        Ok(Self { matrix: Tensor::f_cat(&columns, 1)?, places })
    }

    /// `[n_own, K]` fp32.
    pub(super) fn matrix(&self) -> &Tensor {
        &self.matrix
    }

    pub(super) fn unpack(self, matrix: Tensor, own: Range<i64>, total: i64) -> Result<Batch, ModelError> {
        let width = self.matrix.size()[1];
        if matrix.size() != [total, width] {
            return Err(ModelError::Shape {
                what: "gathered features".into(),
                expected: format!("[{total}, {width}]"),
                found: matrix.size(),
            });
        }
        let flags = Vec::<f32>::try_from(matrix.f_select(1, width - 1)?.f_contiguous()?)?;
        let crop = Subset::new(flags.iter().map(|&f| f > 0.5), &own, matrix.device())?;
        let all = Subset { index: None, own_index: None, count: total, own: own.clone() };
        Ok(Batch { matrix, places: self.places, own, crop, all })
    }
}

/// The terms' features are there and have the same shape.
fn check(terms: &[Term], leaves: &Leaves, rows: i64) -> Result<(), ModelError> {
    if leaves.crop_valid().len() as i64 != rows {
        return Err(ModelError::Shape {
            what: "crop validity".into(),
            expected: format!("[{rows}]"),
            found: vec![leaves.crop_valid().len() as i64],
        });
    }
    let mut width = None;
    for part in terms.iter().flat_map(|t| t.kind.parts()) {
        let hint = "the towers must be run for the same `[loss]` section as the objective";
        let feature = leaves.part(part).ok_or(ModelError::MissingInput { what: part.name(), hint })?;
        let found = feature.size();
        let expected = *width.get_or_insert_with(|| found.get(1).copied().unwrap_or(0));
        if found != [rows, expected] {
            return Err(ModelError::Shape {
                what: part.name().into(),
                expected: format!("[{rows}, {expected}]"),
                found,
            });
        }
    }
    Ok(())
}

/// The global batch as a rank sees it after the first gather.
#[derive(Debug)]
pub(super) struct Batch {
    matrix: Tensor,
    places: [Place; Part::ALL.len()],
    own: Range<i64>,
    crop: Subset,
    all: Subset,
}

impl Batch {
    pub(super) fn device(&self) -> Device {
        self.matrix.device()
    }

    pub(super) fn own_count(&self) -> i64 {
        self.own.end - self.own.start
    }

    pub(super) fn total(&self) -> i64 {
        self.matrix.size()[0]
    }

    pub(super) fn rows(&self, mask: Mask) -> &Subset {
        match mask {
            Mask::All => &self.all,
            Mask::CropValid => &self.crop,
        }
    }

    /// A gathered part, `[kept, D]`: a view unless rows are dropped.
    pub(super) fn columns(&self, part: Part, mask: Mask) -> Result<Tensor, ModelError> {
        let place = self.places[part as usize].as_ref().expect("a part of a contrastive term was packed");
        self.rows(mask).of_all(&self.matrix.f_narrow(1, place.start, place.end - place.start)?)
    }
}

/// The rows that a mask keeps.
#[derive(Debug)]
pub(super) struct Subset {
    /// Kept rows among all; `None`: every one.
    index: Option<Tensor>,
    /// Kept rows among the own, counted from the first own one.
    own_index: Option<Tensor>,
    /// How many are kept in the global batch.
    pub(super) count: i64,
    /// The own ones' places among the kept.
    pub(super) own: Range<i64>,
}

impl Subset {
    fn new(keep: impl ExactSizeIterator<Item = bool>, own: &Range<i64>, device: Device) -> Result<Self, ModelError> {
        let total = keep.len() as i64;
        let index: Vec<i64> = (0i64..).zip(keep).filter_map(|(i, kept)| kept.then_some(i)).collect();
        let count = index.len() as i64;
        if count == total {
            return Ok(Self { index: None, own_index: None, count, own: own.clone() });
        }
        let start = index.partition_point(|&i| i < own.start);
        let end = index.partition_point(|&i| i < own.end);
        let own_index: Vec<i64> = index[start..end].iter().map(|i| i - own.start).collect();
        Ok(Self {
            index: Some(Tensor::from_slice(&index).f_to_device(device)?),
            own_index: Some(Tensor::from_slice(&own_index).f_to_device(device)?),
            count,
            own: start as i64..end as i64,
        })
    }

    /// The kept rows of a matrix or vector over the global batch.
    pub(super) fn of_all(&self, rows: &Tensor) -> Result<Tensor, ModelError> {
        Ok(match &self.index {
            Some(index) => rows.f_index_select(0, index)?,
            None => rows.shallow_clone(),
        })
    }

    /// The kept rows of a matrix or vector over the own rows.
    pub(super) fn of_own(&self, rows: &Tensor) -> Result<Tensor, ModelError> {
        Ok(match &self.own_index {
            Some(index) => rows.f_index_select(0, index)?,
            None => rows.shallow_clone(),
        })
    }

    /// Kept own rows back in their places among `n_own`; dropped ones are 0.
    pub(super) fn spread(&self, kept: Tensor, n_own: i64) -> Result<Tensor, ModelError> {
        let Some(index) = &self.own_index else { return Ok(kept) };
        let mut shape = kept.size();
        shape[0] = n_own;
        let mut rows = Tensor::f_zeros(&shape, (kept.kind(), kept.device()))?;
        let _ = rows.f_index_copy_(0, index, &kept)?;
        Ok(rows)
    }
}
