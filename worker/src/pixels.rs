//! Bytes of images and masks on the model's device, normalized there: a quarter of the memory and of the traffic of fp32.

use pixfleet_model::ModelError;
use pixfleet_model::host::put;
use pixfleet_shards::sample::{MASK_STD, MEAN, STD};
use tch::{Kind, TchError, Tensor};

/// Bytes of whole planes as `[n, channels, S, S]`, on the host.
///
/// # Errors
/// Bytes that are no whole planes of side `side`.
pub(crate) fn planes(bytes: &[u8], channels: i64, side: i64) -> Result<Tensor, TchError> {
    Tensor::f_from_slice(bytes)?.f_reshape([-1, channels, side, side])
}

/// `[n, 3, S, S]` bytes -> fp32, `(v / 255 - mean) / std` by channel (method.md 1.4), where the bytes are.
///
/// # Errors
/// A device that fails.
pub(crate) fn images(bytes: &Tensor) -> Result<Tensor, ModelError> {
    let by_channel = |values: [f32; 3]| put(&Tensor::from_slice(&values).reshape([3, 1, 1]), bytes.device());
    let scale = by_channel(STD.map(|std| 1.0 / (255.0 * std)))?;
    let shift = by_channel(std::array::from_fn(|c| -MEAN[c] / STD[c]))?;
    Ok(bytes.f_to_kind(Kind::Float)?.f_mul_(&scale)?.f_add_(&shift)?)
}

/// `[n, 1, S, S]` bytes -> fp32, `(v / 255 - 0.5) / 0.26`; the rows of `ones` hold their value everywhere.
///
/// # Errors
/// A device that fails.
pub(crate) fn masks(bytes: &Tensor, ones: &[(u32, f32)]) -> Result<Tensor, ModelError> {
    let (scale, shift) = (1.0 / (255.0 * MASK_STD), -0.5 / MASK_STD);
    let mut masks = bytes.f_to_kind(Kind::Float)?;
    let masks = masks.f_mul_scalar_(f64::from(scale))?.f_add_scalar_(f64::from(shift))?;
    for &(row, value) in ones {
        let _ = masks.f_select(0, i64::from(row))?.f_fill_(f64::from(value))?;
    }
    Ok(masks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_normalized_by_channel() {
        let bytes: Vec<u8> = (0..=255).cycle().take(2 * 3 * 16).collect();
        let found = Vec::<f32>::try_from(images(&planes(&bytes, 3, 4).expect("planes")).expect("images").reshape([-1]))
            .expect("numbers");
        for (i, (&byte, found)) in bytes.iter().zip(&found).enumerate() {
            let c = i / 16 % 3;
            let want = (f64::from(byte) / 255.0 - f64::from(MEAN[c])) / f64::from(STD[c]);
            assert!((f64::from(*found) - want).abs() < 1e-5, "{byte} of channel {c}: {found} and {want}");
        }
        assert!(planes(&bytes[1..], 3, 4).is_err());
    }

    #[test]
    fn an_all_ones_mask_has_the_value_that_the_run_file_gives() {
        let bytes = planes(&[0, 255, 255, 0, 255, 255, 255, 255], 1, 2).expect("planes");
        let masks = masks(&bytes, &[(1, 1.0)]).expect("masks");
        let found = Vec::<f32>::try_from(masks.reshape([-1])).expect("numbers");
        let inside = 0.5 / 0.26;
        let want = [-inside, inside, inside, -inside, 1.0, 1.0, 1.0, 1.0];
        assert!(found.iter().zip(want).all(|(found, want)| (found - want).abs() < 1e-5), "{found:?}");
    }
}
