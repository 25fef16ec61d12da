//! Two-dimensional rotary positions (method.md 1.2.3, `VisionRotaryEmbeddingFast`): the first half of a head's
//! channels turns with the row, the second with the column; adjacent channels form a pair.
//!
//! A pair (x0, x1) is the complex number x0 + i x1 and the rotation is a product with `exp(i phi)`: the same maths as
//! `x cos + rot(x) sin` in one pass and without a copy. The class token's factor is 1.

use tch::{Device, Kind, Tensor};

/// Angles [patches, head_width / 2] of a `grid` x `grid` map, one per pair of channels, in f64 on the CPU. Positions are
/// scaled to a grid of `rope_grid` (`intp_freq`).
pub fn angles(grid: i64, rope_grid: i64, head_width: i64) -> Tensor {
    let half = head_width / 2;
    let pairs = half / 2;
    let frequency: Vec<f64> = (0..pairs).map(|j| 10_000f64.powf(-2.0 * j as f64 / half as f64)).collect();
    let mut values = Vec::with_capacity((grid * grid * half) as usize);
    for row in 0..grid {
        for col in 0..grid {
            for position in [row, col] {
                let t = position as f64 / grid as f64 * rope_grid as f64;
                values.extend(frequency.iter().map(|f| t * f));
            }
        }
    }
    Tensor::from_slice(&values).reshape([grid * grid, half])
}

/// The factors `exp(i phi)` [1 + patches, 1, head_width / 2], complex fp32, the class token's first.
pub fn factors(grid: i64, rope_grid: i64, head_width: i64, device: Device) -> Tensor {
    let angles = angles(grid, rope_grid, head_width);
    let class = Tensor::zeros([1, head_width / 2], (Kind::Double, Device::Cpu));
    let angles = Tensor::cat(&[class, angles], 0).unsqueeze(1);
    let one = angles.ones_like();
    Tensor::polar(&one, &angles).to_kind(Kind::ComplexFloat).to_device(device)
}

/// Rotates `x` [B, 1 + patches, heads, head_width], any float dtype. Product and result are fp32.
pub fn rotate(x: &Tensor, factors: &Tensor) -> Tensor {
    let size = x.size();
    let (heads, width) = (size[2], size[3]);
    let pairs = x.to_kind(Kind::Float).reshape([size[0], size[1], heads, width / 2, 2]).view_as_complex();
    (pairs * factors).view_as_real().reshape(size.as_slice())
}
