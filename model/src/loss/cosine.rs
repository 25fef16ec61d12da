//! 1 - cosine between paired rows of L2-normalized features (method.md 2.4 C2, 2.5 G1 and G3). Only own rows meet, so
//! nothing of this term is gathered but its per-row losses.

use tch::{Kind, Tensor};

use crate::ModelError;

/// `1 - x_i.y_i` of each row. `x`, `y`: `[rows, D]` fp32, L2-normalized. Returns `[rows]` fp32.
///
/// # Errors
/// [`ModelError::Torch`], also for shapes that differ.
pub fn row_losses(x: &Tensor, y: &Tensor) -> Result<Tensor, ModelError> {
    let dots = x.f_mul(y)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
    Ok(dots.f_neg()?.f_add_scalar(1.0)?)
}

/// Gradient on `x` of the mean loss over `count` rows of the whole batch: `-y / count`. The one on `y` is the same
/// with the roles swapped. (On normalized features; the normalization's own backward is the towers'.)
///
/// # Errors
/// [`ModelError::Torch`].
pub fn grad(y: &Tensor, count: i64) -> Result<Tensor, ModelError> {
    Ok(y.f_mul_scalar(-1.0 / count.max(1) as f64)?)
}
