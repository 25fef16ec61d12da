//! Encoded image -> RGB. The size is read from the header and held against a limit before any pixel is allocated.

use super::Rgb;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use std::io::Cursor;

/// Images and masks beyond this are refused: 8192 x 8192.
pub const MAX_PIXELS: u64 = 1 << 26;

/// Why bytes are not an image.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Neither JPEG nor PNG nor WebP.
    #[error("the bytes are no JPEG, PNG or WebP image (they begin with {0:02x?})")]
    Format(Vec<u8>),
    /// The header promises more pixels than are decoded.
    #[error(
        "the image header says {width} x {height} pixels; more than {limit} are not decoded: shrink the image or drop the row"
    )]
    TooLarge {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// The header promises no pixels.
    #[error("the image header says {width} x {height} pixels: there is nothing to decode")]
    Empty {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Damaged data.
    #[error("the {format} data is damaged")]
    Damaged {
        /// `JPEG`, `PNG` or `WebP`.
        format: &'static str,
        /// What the decoder found.
        source: ImageError,
    },
}

fn recognise(bytes: &[u8]) -> Result<(ImageFormat, &'static str), DecodeError> {
    match image::guess_format(bytes) {
        Ok(f @ ImageFormat::Jpeg) => Ok((f, "JPEG")),
        Ok(f @ ImageFormat::Png) => Ok((f, "PNG")),
        Ok(f @ ImageFormat::WebP) => Ok((f, "WebP")),
        _ => Err(DecodeError::Format(bytes.iter().take(8).copied().collect())),
    }
}

/// Columns and rows by the header alone, within [`MAX_PIXELS`].
///
/// # Errors
/// Unknown format, damaged header, no pixels, too many pixels.
pub fn dimensions(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    let (format, name) = recognise(bytes)?;
    let size = ImageReader::with_format(Cursor::new(bytes), format)
        .into_dimensions()
        .map_err(|source| DecodeError::Damaged { format: name, source })?;
    check(size)
}

fn check((width, height): (u32, u32)) -> Result<(u32, u32), DecodeError> {
    if width == 0 || height == 0 {
        return Err(DecodeError::Empty { width, height });
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooLarge { width, height, limit: MAX_PIXELS });
    }
    Ok((width, height))
}

/// Decodes a JPEG, PNG or WebP image to RGB; an alpha channel is dropped, as PIL's `convert("RGB")` does.
///
/// # Errors
/// Unknown format, too large by its header (nothing is allocated then), damaged data.
pub fn rgb(bytes: &[u8]) -> Result<Rgb, DecodeError> {
    let (format, name) = recognise(bytes)?;
    let damaged = |source| DecodeError::Damaged { format: name, source };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The limit below is ours and comes first; the crate's own would answer with a message about memory.
    reader.no_limits();
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = check(decoder.dimensions())?;
    let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    Ok(Rgb { width, height, data: image.into_rgb8().into_raw() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageEncoder, codecs::png::PngEncoder};

    fn png(rgb: &Rgb) -> Vec<u8> {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes)
            .write_image(&rgb.data, rgb.width, rgb.height, image::ExtendedColorType::Rgb8)
            .expect("encodes");
        bytes
    }

    #[test]
    fn a_giant_header_is_refused_before_allocation() {
        let mut bytes = png(&Rgb::filled(4, 4, [1, 2, 3]));
        bytes[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        let crc = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.to_be_bytes());
        let expected = "the image header says 60000 x 60000 pixels; more than 67108864 are not decoded: shrink the image or drop the row";
        assert_eq!(rgb(&bytes).expect_err("too large").to_string(), expected);
        assert_eq!(dimensions(&bytes).expect_err("too large").to_string(), expected);
    }

    #[test]
    fn a_giant_jpeg_header_is_refused_before_allocation() {
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new(&mut bytes)
            .encode(&[90; 48], 4, 4, image::ExtendedColorType::Rgb8)
            .expect("encodes");
        let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0]).expect("has a frame header");
        bytes[frame + 5..frame + 7].copy_from_slice(&60_000u16.to_be_bytes());
        bytes[frame + 7..frame + 9].copy_from_slice(&60_000u16.to_be_bytes());
        assert!(matches!(rgb(&bytes), Err(DecodeError::TooLarge { width: 60_000, height: 60_000, .. })));
    }

    #[test]
    fn damage_and_foreign_bytes_are_named() {
        let bytes = png(&Rgb::filled(32, 32, [9, 8, 7]));
        let error = rgb(&bytes[..bytes.len() / 2]).expect_err("cut");
        assert_eq!(error.to_string(), "the PNG data is damaged");
        let error = rgb(b"GIF89a..").expect_err("foreign");
        assert_eq!(
            error.to_string(),
            "the bytes are no JPEG, PNG or WebP image (they begin with [47, 49, 46, 38, 39, 61, 2e, 2e])"
        );
        assert_eq!(rgb(&bytes).expect("whole"), Rgb::filled(32, 32, [9, 8, 7]));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &b| {
            (0..8).fold(crc ^ u32::from(b), |c, _| (c >> 1) ^ (0xEDB8_8320 & (!(c & 1)).wrapping_add(1)))
        })
    }
}
