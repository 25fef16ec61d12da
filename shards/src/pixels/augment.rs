//! Mask augmentation (method.md 2.9): dilation and erosion by a square element.

use super::Mask;

/// The mask grown by `radius` pixels on every side.
#[must_use]
pub fn dilate(mask: &Mask, radius: u32) -> Mask {
    filter(mask, radius, |inside, _| inside > 0)
}

/// The mask shrunk by `radius` pixels on every side; the image's border does not eat into it.
#[must_use]
pub fn erode(mask: &Mask, radius: u32) -> Mask {
    filter(mask, radius, |inside, window| inside == window)
}

/// Both passes of a separable window of side 2 radius + 1: `keep(pixels inside, pixels of the window)`.
fn filter(mask: &Mask, radius: u32, keep: fn(u32, u32) -> bool) -> Mask {
    let (w, h, r) = (mask.width as usize, mask.height as usize, radius as usize);
    let mut rows = Mask::filled(mask.width, mask.height, 0);
    for y in 0..h {
        line(w, r, keep, |x| mask.data[y * w + x] >= 128, |x| rows.data[y * w + x] = 255);
    }
    let mut out = Mask::filled(mask.width, mask.height, 0);
    for x in 0..w {
        line(h, r, keep, |y| rows.data[y * w + x] >= 128, |y| out.data[y * w + x] = 255);
    }
    out
}

fn line(n: usize, r: usize, keep: fn(u32, u32) -> bool, inside: impl Fn(usize) -> bool, mut set: impl FnMut(usize)) {
    let mut count = (0..r.min(n)).filter(|&i| inside(i)).count() as u32;
    for i in 0..n {
        if i + r < n {
            count += u32::from(inside(i + r));
        }
        if i > r {
            count -= u32::from(inside(i - r - 1));
        }
        let window = (i + r).min(n - 1) - i.saturating_sub(r) + 1;
        if keep(count, window as u32) {
            set(i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_grows_to_a_square_and_shrinks_back() {
        let mut mask = Mask::filled(9, 9, 0);
        mask.data[4 * 9 + 4] = 255;
        let grown = dilate(&mask, 2);
        assert_eq!(grown, Mask::from_box(9, 9, [2.0 / 9.0, 2.0 / 9.0, 7.0 / 9.0, 7.0 / 9.0]));
        assert_eq!(erode(&grown, 2), mask);
        assert_eq!(dilate(&mask, 0), mask);
    }

    #[test]
    fn a_full_mask_stays_full_and_a_large_radius_is_fine() {
        let full = Mask::filled(5, 3, 255);
        assert_eq!(erode(&full, 2), full);
        assert_eq!(erode(&full, 90), full);
        assert_eq!(dilate(&full, 90), full);
    }
}
