//! One drawing as premultiplied RGBA, rasterized once, and its stamp at any size, angle and mirroring.

use resvg::{tiny_skia, usvg};

/// Longest side of a rasterized drawing in pixels.
const SIDE: u32 = 160;

/// A drawing in falling sizes, each half of the one before, cut tightly.
#[derive(Debug, Clone)]
pub struct Sprite {
    levels: Vec<Level>,
}

#[derive(Debug, Clone)]
struct Level {
    width: usize,
    height: usize,
    /// Premultiplied RGBA.
    data: Vec<[u8; 4]>,
}

/// How a drawing is put into a scene.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pose {
    /// Centre in pixels of the scene.
    pub centre: [f32; 2],
    /// Longest side of the drawing before it is turned, in pixels.
    pub longest: f32,
    /// Clockwise turn in degrees.
    pub angle: f32,
    /// Left and right changed.
    pub mirror: bool,
}

/// A drawn rectangle of premultiplied RGBA.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// First column in the scene, may be negative.
    pub left: i32,
    /// First row in the scene, may be negative.
    pub top: i32,
    /// Columns.
    pub width: usize,
    /// Premultiplied RGBA, row-major.
    pub data: Vec<[u8; 4]>,
}

impl Sprite {
    /// Rasterizes an SVG. `None` if nothing of it is opaque.
    ///
    /// # Errors
    /// Not an SVG.
    pub fn from_svg(svg: &[u8]) -> Result<Option<Self>, usvg::Error> {
        let tree = usvg::Tree::from_data(svg, &usvg::Options::default())?;
        let size = tree.size();
        let scale = SIDE as f32 / size.width().max(size.height());
        let side = |v: f32| ((v * scale).ceil() as u32).clamp(1, SIDE);
        let Some(mut pixmap) = tiny_skia::Pixmap::new(side(size.width()), side(size.height())) else {
            return Ok(None);
        };
        resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixmap.as_mut());
        let data = pixmap.data().chunks_exact(4).map(|p| [p[0], p[1], p[2], p[3]]).collect();
        Ok(Self::from_premultiplied(pixmap.width() as usize, pixmap.height() as usize, data))
    }

    /// Decodes a PNG or WebP with an alpha channel. `None` if nothing of it is opaque.
    ///
    /// # Errors
    /// Not such an image.
    pub fn from_image(bytes: &[u8]) -> Result<Option<Self>, image::ImageError> {
        let image = image::load_from_memory(bytes)?.thumbnail(SIDE, SIDE).into_rgba8();
        let premultiply = |p: &[u8]| {
            let by_alpha = |v: u8| (u32::from(v) * u32::from(p[3]) / 255) as u8;
            [by_alpha(p[0]), by_alpha(p[1]), by_alpha(p[2]), p[3]]
        };
        let (width, height) = (image.width() as usize, image.height() as usize);
        Ok(Self::from_premultiplied(width, height, image.chunks_exact(4).map(premultiply).collect()))
    }

    fn from_premultiplied(width: usize, height: usize, data: Vec<[u8; 4]>) -> Option<Self> {
        let opaque = |x: usize, y: usize| data[y * width + x][3] > 127;
        let columns: Vec<usize> = (0..width).filter(|&x| (0..height).any(|y| opaque(x, y))).collect();
        let rows: Vec<usize> = (0..height).filter(|&y| (0..width).any(|x| opaque(x, y))).collect();
        let (x0, x1, y0, y1) = (*columns.first()?, *columns.last()?, *rows.first()?, *rows.last()?);
        let cut = (y0..=y1).flat_map(|y| data[y * width + x0..=y * width + x1].iter().copied()).collect();
        let mut levels = vec![Level { width: x1 - x0 + 1, height: y1 - y0 + 1, data: cut }];
        while let Some(smaller) = levels.last().and_then(Level::halved) {
            levels.push(smaller);
        }
        Some(Self { levels })
    }

    /// Columns and rows of the turned drawing, in pixels.
    #[must_use]
    pub fn extent(&self, pose: &Pose) -> [f32; 2] {
        let full = &self.levels[0];
        let scale = pose.longest / full.width.max(full.height) as f32;
        let (w, h) = (full.width as f32 * scale, full.height as f32 * scale);
        let (sin, cos) = pose.angle.to_radians().sin_cos();
        [w * cos.abs() + h * sin.abs(), w * sin.abs() + h * cos.abs()]
    }

    /// The drawing in its pose.
    #[must_use]
    pub fn stamp(&self, pose: &Pose) -> Stamp {
        let [w, h] = self.extent(pose);
        let (left, top) = ((pose.centre[0] - w / 2.0).floor() as i32, (pose.centre[1] - h / 2.0).floor() as i32);
        let (width, height) = (w.ceil() as usize + 1, h.ceil() as usize + 1);
        // The smallest level that still has a pixel for each of the stamp: bilinear reading of it does not alias.
        let fits = |l: &&Level| l.width.max(l.height) as f32 >= pose.longest;
        let level = self.levels.iter().rev().find(fits).unwrap_or(&self.levels[0]);
        let scale = level.width.max(level.height) as f32 / pose.longest;
        let (sin, cos) = pose.angle.to_radians().sin_cos();
        let flip = if pose.mirror { -1.0 } else { 1.0 };
        let mut data = Vec::with_capacity(width * height);
        for y in 0..height {
            let dy = (top + y as i32) as f32 + 0.5 - pose.centre[1];
            for x in 0..width {
                let dx = (left + x as i32) as f32 + 0.5 - pose.centre[0];
                let u = (dx * cos + dy * sin) * flip * scale + level.width as f32 / 2.0;
                let v = (dy * cos - dx * sin) * scale + level.height as f32 / 2.0;
                data.push(level.read(u, v));
            }
        }
        Stamp { left, top, width, data }
    }

    /// Mean difference in 0..1 between the drawing and itself turned by `angle`, over the pixels of either: whether a
    /// turn can be seen at all.
    #[must_use]
    pub fn turn_shows(&self, angle: f32) -> f32 {
        const N: usize = 40;
        let on_canvas = |angle| {
            let stamp = self.stamp(&Pose { centre: [20.0, 20.0], longest: 27.0, angle, mirror: false });
            let mut canvas = vec![[0u8; 4]; N * N];
            for (i, &p) in stamp.data.iter().enumerate() {
                let (x, y) = (stamp.left + (i % stamp.width) as i32, stamp.top + (i / stamp.width) as i32);
                if (0..N as i32).contains(&x) && (0..N as i32).contains(&y) {
                    canvas[y as usize * N + x as usize] = p;
                }
            }
            canvas
        };
        let (a, b) = (on_canvas(0.0), on_canvas(angle));
        let (mut sum, mut n) = (0u32, 0u32);
        for (p, q) in a.iter().zip(&b).filter(|(p, q)| p[3] > 127 || q[3] > 127) {
            sum += p.iter().zip(q).map(|(s, t)| u32::from(s.abs_diff(*t))).max().unwrap_or(0);
            n += 1;
        }
        sum as f32 / (255 * n.max(1)) as f32
    }
}

impl Level {
    fn halved(&self) -> Option<Self> {
        if self.width.max(self.height) < 24 {
            return None;
        }
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let at =
            |x: usize, y: usize| if x < self.width && y < self.height { self.data[y * self.width + x] } else { [0; 4] };
        let data = (0..width * height)
            .map(|i| {
                let (x, y) = (i % width * 2, i / width * 2);
                let four = [at(x, y), at(x + 1, y), at(x, y + 1), at(x + 1, y + 1)];
                std::array::from_fn(|c| (four.iter().map(|p| u32::from(p[c])).sum::<u32>() / 4) as u8)
            })
            .collect();
        Some(Self { width, height, data })
    }

    /// Bilinear at (u, v), pixel centres at halves, transparent outside.
    fn read(&self, u: f32, v: f32) -> [u8; 4] {
        let (u, v) = (u - 0.5, v - 0.5);
        let (x, y) = (u.floor(), v.floor());
        let (fx, fy) = (u - x, v - y);
        if x < -1.0 || y < -1.0 || x >= self.width as f32 || y >= self.height as f32 {
            return [0; 4];
        }
        let at = |x: f32, y: f32| {
            let inside = x >= 0.0 && y >= 0.0 && x < self.width as f32 && y < self.height as f32;
            if inside { self.data[y as usize * self.width + x as usize] } else { [0; 4] }
        };
        let [a, b, c, d] = [at(x, y), at(x + 1.0, y), at(x, y + 1.0), at(x + 1.0, y + 1.0)];
        std::array::from_fn(|i| {
            let mix = |p: [u8; 4], q: [u8; 4]| f32::from(p[i]) * (1.0 - fx) + f32::from(q[i]) * fx;
            (mix(a, b) * (1.0 - fy) + mix(c, d) * fy + 0.5) as u8
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAR: &[u8] = br##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><rect x="10" y="18" width="20" height="4" fill="#f00"/></svg>"##;
    const DISC: &[u8] =
        br#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><circle cx="20" cy="20" r="15"/></svg>"#;

    fn sprite(svg: &[u8]) -> Sprite {
        Sprite::from_svg(svg).expect("an SVG").expect("not empty")
    }

    #[test]
    fn a_stamp_has_the_drawing_s_size_and_turns_with_it() {
        let bar = sprite(BAR);
        let count = |angle| {
            let stamp = bar.stamp(&Pose { centre: [50.0, 50.0], longest: 40.0, angle, mirror: false });
            (stamp.data.iter().filter(|p| p[3] > 127).count(), stamp.width, stamp.data.len() / stamp.width)
        };
        assert_eq!(count(0.0), (320, 41, 9));
        let (area, w, h) = count(90.0);
        assert!(area.abs_diff(320) < 30 && w < 11 && h > 39, "{area} {w} {h}");
    }

    #[test]
    fn a_turned_bar_shows_and_a_turned_disc_does_not() {
        assert!(sprite(BAR).turn_shows(70.0) > 0.5);
        assert!(sprite(BAR).turn_shows(180.0) < 0.05);
        assert!(sprite(DISC).turn_shows(70.0) < 0.05);
    }

    #[test]
    fn an_empty_drawing_is_none() {
        let empty = br#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"></svg>"#;
        assert!(Sprite::from_svg(empty).expect("an SVG").is_none());
    }
}
