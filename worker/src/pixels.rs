//! Bytes of images and masks on the model's device, normalized there: a quarter of the memory and of the traffic of fp32.

use pixfleet_shards::sample::{MASK_STD, MEAN, STD};
use tch::{Device, Kind, TchError, Tensor};

/// `[n, 3, S, S]` bytes -> fp32, `(v / 255 - mean) / std` by channel (method.md 1.4).
///
/// # Errors
/// Bytes that are no whole images of side `side`, or a device that fails.
pub(crate) fn images(bytes: &[u8], side: i64, device: Device) -> Result<Tensor, TchError> {
    let by_channel = |values: [f32; 3]| Tensor::from_slice(&values).reshape([3, 1, 1]).to_device(device);
    let scale = by_channel(STD.map(|std| 1.0 / (255.0 * std)));
    let shift = by_channel(std::array::from_fn(|c| -MEAN[c] / STD[c]));
    on_device(bytes, [-1, 3, side, side], device)?.f_mul_(&scale)?.f_add_(&shift)
}

/// `[n, 1, S, S]` bytes -> fp32, `(v / 255 - 0.5) / 0.26`; the rows of `ones` hold their value everywhere.
///
/// # Errors
/// As [`images`].
pub(crate) fn masks(bytes: &[u8], ones: &[(u32, f32)], side: i64, device: Device) -> Result<Tensor, TchError> {
    let (scale, shift) = (1.0 / (255.0 * MASK_STD), -0.5 / MASK_STD);
    let mut masks = on_device(bytes, [-1, 1, side, side], device)?;
    let masks = masks.f_mul_scalar_(f64::from(scale))?.f_add_scalar_(f64::from(shift))?;
    for &(row, value) in ones {
        let _ = masks.f_select(0, i64::from(row))?.f_fill_(f64::from(value))?;
    }
    Ok(masks)
}

fn on_device(bytes: &[u8], shape: [i64; 4], device: Device) -> Result<Tensor, TchError> {
    Tensor::f_from_slice(bytes)?.f_reshape(shape)?.f_to_device(device)?.f_to_kind(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_normalized_by_channel() {
        let bytes: Vec<u8> = (0..=255).cycle().take(2 * 3 * 16).collect();
        let found =
            Vec::<f32>::try_from(images(&bytes, 4, Device::Cpu).expect("images").reshape([-1])).expect("numbers");
        for (i, (&byte, found)) in bytes.iter().zip(&found).enumerate() {
            let c = i / 16 % 3;
            let want = (f64::from(byte) / 255.0 - f64::from(MEAN[c])) / f64::from(STD[c]);
            assert!((f64::from(*found) - want).abs() < 1e-5, "{byte} of channel {c}: {found} and {want}");
        }
        assert!(images(&bytes[1..], 4, Device::Cpu).is_err());
    }

    #[test]
    fn an_all_ones_mask_has_the_value_that_the_run_file_gives() {
        let masks = masks(&[0, 255, 255, 0, 255, 255, 255, 255], &[(1, 1.0)], 2, Device::Cpu).expect("masks");
        let found = Vec::<f32>::try_from(masks.reshape([-1])).expect("numbers");
        let inside = 0.5 / 0.26;
        let want = [-inside, inside, inside, -inside, 1.0, 1.0, 1.0, 1.0];
        assert!(found.iter().zip(want).all(|(found, want)| (found - want).abs() < 1e-5), "{found:?}");
    }
}
