//! What is done to tensors on their way, as small pure functions.

use super::plan::{Change, MadeUp};
use anyhow::{Result, bail};
use pixfleet_model::clip::{KEPT_POSITIONS, stretch_positions};
use pixfleet_model::params::resize_positions;
use tch::Tensor;

/// `tensor` after `changes`, of shape `expected`.
///
/// # Errors
/// If libtorch refuses; the plan has made sure that the shapes fit.
pub(super) fn apply(tensor: Tensor, changes: &[Change], expected: &[i64]) -> Result<Tensor> {
    changes.iter().try_fold(tensor, |tensor, change| {
        Ok(match *change {
            // Files are read as fp32.
            Change::Cast(_) => tensor,
            Change::Transposed => tensor.f_transpose(0, 1)?,
            Change::Third(third) => {
                let rows = tensor.size()[0] / 3;
                tensor.f_narrow(0, i64::from(third) * rows, rows)?
            }
            Change::Resized { .. } => match resize_positions(&tensor, expected) {
                Some(resized) => resized,
                None => bail!("positions {:?} cannot become {expected:?}", tensor.size()),
            },
            Change::Reshaped => tensor.f_reshape(expected)?,
        })
    })
}

/// A parameter that no file holds; `of` is the parameter that the rule begins with, `None` keeps the fresh start.
///
/// # Errors
/// If libtorch refuses.
pub(super) fn make_up<'t>(
    rule: MadeUp,
    fresh: &Tensor,
    of: impl Fn(&str) -> Option<&'t Tensor>,
) -> Result<Option<Tensor>> {
    let base = |name: &str| match of(name) {
        Some(tensor) => Ok(tensor),
        None => bail!("the model has no `{name}`"),
    };
    Ok(match rule {
        MadeUp::Zero => Some(fresh.zeros_like()),
        MadeUp::Copied(from) => Some(base(from)?.copy()),
        MadeUp::Stretched(from) => Some(stretch_positions(base(from)?, KEPT_POSITIONS)?),
        MadeUp::Fresh => None,
    })
}
