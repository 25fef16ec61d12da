//! Polygon -> mask with the semantics of the COCO API's `rleFrPoly`: the outline is traced five times finer than the
//! pixel grid, a column changes between outside and inside where the outline crosses its centre, several rings are
//! united.

use super::Mask;
use super::decode::MAX_PIXELS;
use super::rle::{Rle, RleError};

/// The outline is traced on a grid this many times finer than the pixels.
const FINER: f64 = 5.0;
/// Points of a traced outline beyond which a polygon is refused.
const MAX_OUTLINE: u64 = 1 << 24;

/// Why coordinates are not a polygon.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PolygonError {
    /// Not x, y, x, y, ...
    #[error("ring {ring} has {found} numbers; expected pairs x, y of at least 3 points")]
    Points {
        /// Which ring.
        ring: usize,
        /// Numbers found.
        found: usize,
    },
    /// NaN, infinite or absurdly far away.
    #[error("ring {ring} has the coordinate {value}; expected a number near the image")]
    Coordinate {
        /// Which ring.
        ring: usize,
        /// The coordinate.
        value: f64,
    },
    /// The image is too large.
    #[error(transparent)]
    Size(#[from] RleError),
}

/// The union of `rings`, each x1, y1, x2, y2, ... in pixels, in an image of `height` x `width`.
///
/// # Errors
/// Fewer than 3 points, coordinates that are not finite or far outside, an image beyond [`MAX_PIXELS`].
pub fn rasterize(rings: &[Vec<f64>], height: u32, width: u32) -> Result<Rle, PolygonError> {
    if u64::from(height) * u64::from(width) > MAX_PIXELS {
        return Err(RleError::TooLarge { height, width, limit: MAX_PIXELS }.into());
    }
    if let [xy] = rings {
        // Nothing to unite: the runs are there already.
        return one(0, xy, height, width);
    }
    let mut union: Option<Mask> = None;
    for (ring, xy) in rings.iter().enumerate() {
        let part = one(ring, xy, height, width)?.decode()?;
        match &mut union {
            None => union = Some(part),
            Some(all) => all.data.iter_mut().zip(part.data).for_each(|(a, b)| *a |= b),
        }
    }
    Ok(Rle::encode(&union.unwrap_or_else(|| Mask::filled(width, height, 0))))
}

fn one(ring: usize, xy: &[f64], height: u32, width: u32) -> Result<Rle, PolygonError> {
    if xy.len() < 6 || !xy.len().is_multiple_of(2) {
        return Err(PolygonError::Points { ring, found: xy.len() });
    }
    if let Some(&value) = xy.iter().find(|v| !v.is_finite() || v.abs() > 1e6) {
        return Err(PolygonError::Coordinate { ring, value });
    }
    let fine = |v: f64| (FINER * v + 0.5) as i64;
    let corners: Vec<(i64, i64)> = xy.chunks_exact(2).map(|p| (fine(p[0]), fine(p[1]))).collect();
    let next = |j: usize| corners[(j + 1) % corners.len()];
    let steps: u64 =
        (0..corners.len()).map(|j| corners[j].0.abs_diff(next(j).0).max(corners[j].1.abs_diff(next(j).1)) + 1).sum();
    if steps > MAX_OUTLINE {
        let value = xy.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        return Err(PolygonError::Coordinate { ring, value });
    }
    let mut outline = Vec::with_capacity(steps as usize);
    for (j, &from) in corners.iter().enumerate() {
        trace(from, next(j), &mut outline);
    }
    Ok(runs(crossings(&outline, height, width), height, width))
}

/// The fine points from `a` to `b`, both included, one for each step along the longer axis.
fn trace(a: (i64, i64), b: (i64, i64), out: &mut Vec<(i64, i64)>) {
    let (dx, dy) = ((a.0 - b.0).abs(), (a.1 - b.1).abs());
    let wide = dx >= dy;
    // Always computed in the growing direction, so that both rings along a shared edge round alike.
    let flip = if wide { a.0 > b.0 } else { a.1 > b.1 };
    let (s, e) = if flip { (b, a) } else { (a, b) };
    let n = dx.max(dy);
    let slope = match (wide, n) {
        (_, 0) => 0.0,
        (true, _) => (e.1 - s.1) as f64 / dx as f64,
        (false, _) => (e.0 - s.0) as f64 / dy as f64,
    };
    for d in 0..=n {
        let t = if flip { n - d } else { d };
        let across = slope * t as f64 + 0.5;
        out.push(if wide { (s.0 + t, (s.1 as f64 + across) as i64) } else { ((s.0 as f64 + across) as i64, s.1 + t) });
    }
}

/// Column-major offsets at which a column changes between outside and inside, sorted.
fn crossings(outline: &[(i64, i64)], height: u32, width: u32) -> Vec<u64> {
    let mut at = Vec::new();
    for pair in outline.windows(2) {
        let ((px, py), (x, y)) = (pair[0], pair[1]);
        if x == px {
            continue;
        }
        let column = ((if x < px { x } else { x - 1 }) as f64 + 0.5) / FINER - 0.5;
        if column.floor() != column || column < 0.0 || column > f64::from(width) - 1.0 {
            continue;
        }
        let row = (y.min(py) as f64 + 0.5) / FINER - 0.5;
        let row = row.clamp(0.0, f64::from(height)).ceil();
        at.push(column as u64 * u64::from(height) + row as u64);
    }
    at.sort_unstable();
    at
}

/// Sorted crossings -> runs; two crossings at one place cancel.
fn runs(crossings: Vec<u64>, height: u32, width: u32) -> Rle {
    let end = u64::from(height) * u64::from(width);
    let mut counts: Vec<u32> = Vec::with_capacity(crossings.len() + 1);
    let (mut before, mut join) = (0, false);
    for at in crossings.into_iter().chain([end]) {
        let run = (at - before) as u32;
        before = at;
        match counts.last_mut() {
            Some(last) if join => {
                *last += run;
                join = false;
            }
            Some(_) if run == 0 => join = true,
            _ => counts.push(run),
        }
    }
    Rle { height, width, counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_covers_its_pixels() {
        let rle = rasterize(&[vec![1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0]], 6, 6).expect("a polygon");
        assert_eq!((rle.area(), rle.bbox()), (6, Some([1, 1, 4, 3])));
    }

    #[test]
    fn one_ring_is_the_union_of_it_with_itself() {
        for n in 0..200u64 {
            let at = |i: u64| (pixfleet_cluster::rng::mix(n << 8 | i) % 90) as f64 / 5.0 - 3.0;
            let ring: Vec<f64> = (0..8).map(at).collect();
            let (once, twice) =
                (rasterize(std::slice::from_ref(&ring), 9, 12), rasterize(&[ring.clone(), ring], 9, 12));
            assert_eq!(once, twice, "{n}");
        }
    }

    #[test]
    fn rings_unite_and_clip() {
        let rings = [vec![-5.0, -5.0, 3.0, -5.0, 3.0, 9.0, -5.0, 9.0], vec![2.0, 0.0, 20.0, 0.0, 20.0, 2.0, 2.0, 2.0]];
        let rle = rasterize(&rings, 4, 6).expect("polygons");
        assert_eq!((rle.area(), rle.bbox()), (3 * 4 + 3 * 2, Some([0, 0, 6, 4])));
    }

    #[test]
    fn what_is_no_polygon_is_refused() {
        assert_eq!(rasterize(&[vec![1.0; 5]], 4, 4), Err(PolygonError::Points { ring: 0, found: 5 }));
        let far = vec![0.0, 0.0, 1e9, 0.0, 0.0, 1.0];
        assert_eq!(rasterize(&[far], 4, 4), Err(PolygonError::Coordinate { ring: 0, value: 1e9 }));
        let nan = vec![0.0, 0.0, f64::NAN, 0.0, 0.0, 1.0];
        assert!(matches!(rasterize(&[nan], 4, 4), Err(PolygonError::Coordinate { ring: 0, .. })));
        assert_eq!(rasterize(&[], 4, 4).expect("empty").counts, [16]);
    }
}
