//! Deterministic tensors for golden files: a reference in another library fills its parameters by the same rule from
//! the parameter's name, so that big weights need not be kept.

use pixfleet_cluster::rng::mix;
use tch::Tensor;

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
#[must_use]
pub fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// `value[i] = ((mix(fnv1a64(name) + i) >> 40) / 2^24 - 0.5) * 2 * scale`, fp32, row-major, on the CPU.
pub fn hash_fill(name: &str, shape: &[i64], scale: f64) -> Tensor {
    let count = usize::try_from(shape.iter().product::<i64>()).expect("a shape has no negative sides");
    let start = fnv1a64(name.as_bytes());
    let values: Vec<f32> = (0..count as u64)
        .map(|i| {
            let unit = (mix(start.wrapping_add(i)) >> 40) as f64 / f64::from(1u32 << 24);
            ((unit - 0.5) * 2.0 * scale) as f32
        })
        .collect();
    Tensor::from_slice(&values).reshape(shape)
}
