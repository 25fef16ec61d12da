//! Pictures of the gallery: a region drawn on its image (what is outside is dimmed, mask outlined, box thin), and
//! which texts are worth showing. Pictures become JPEG data URIs, so the report is one file.

use crate::eval::retrieve::AnswerRank;
use base64::Engine;
use image::imageops::FilterType;
use image::{Rgb, RgbImage};

/// A text and what it found.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// The text.
    pub(crate) text: String,
    /// Rank of the right region among all, 1 for the best.
    pub(crate) rank: f64,
    /// The right region.
    pub(crate) wanted: Panel,
    /// The regions found, best first.
    pub(crate) found: Vec<Panel>,
}

/// One drawn region.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    /// The picture, as a data URI.
    pub(crate) uri: String,
    /// The region's own short caption.
    pub(crate) caption: String,
    /// Cosine to the query's text.
    pub(crate) similarity: f32,
    /// Whether it is the region that the text was written for.
    pub(crate) right: bool,
}

/// What is drawn on a picture.
pub(crate) struct Region<'a> {
    /// Row-major, `width * height` of the picture; true inside.
    pub(crate) mask: &'a [bool],
    /// xyxy in 0..1 of the picture.
    pub(crate) bbox: [f32; 4],
    /// Green for the right one, amber for another.
    pub(crate) right: bool,
}

/// Longest side of a drawn picture, pixels: twice what the page shows, for dense screens.
const SIDE: u32 = 288;
const RIGHT: Rgb<u8> = Rgb([0x1f, 0xc4, 0x8b]);
const OTHER: Rgb<u8> = Rgb([0xf2, 0x9a, 0x38]);
const JPEG_QUALITY: u8 = 80;

/// Draws `region` on `picture` and encodes it. `None` for a picture or mask of no size.
pub(crate) fn draw(picture: &RgbImage, region: &Region<'_>) -> Option<String> {
    let (w, h) = picture.dimensions();
    if w == 0 || h == 0 || region.mask.len() != w as usize * h as usize {
        return None;
    }
    let scale = f64::from(SIDE) / f64::from(w.max(h));
    let (dw, dh) = (side(w, scale), side(h, scale));
    let mut drawn = image::imageops::resize(picture, dw, dh, FilterType::Triangle);
    let source = |d: u32, from: u32, to: u32| ((u64::from(d) * 2 + 1) * u64::from(from) / (u64::from(to) * 2)) as usize;
    let inside: Vec<bool> = (0..dh)
        .flat_map(|y| (0..dw).map(move |x| (x, y)))
        .map(|(x, y)| region.mask[source(y, h, dh) * w as usize + source(x, w, dw)])
        .collect();
    let at = |x: i64, y: i64| {
        (0..i64::from(dw)).contains(&x) && (0..i64::from(dh)).contains(&y) && inside[(y * i64::from(dw) + x) as usize]
    };
    let ink = if region.right { RIGHT } else { OTHER };
    for (x, y, pixel) in drawn.enumerate_pixels_mut() {
        let (x, y) = (i64::from(x), i64::from(y));
        if at(x, y) {
            continue;
        }
        let near = (-2i64..=2).any(|dy| (-2i64..=2).any(|dx| dx * dx + dy * dy <= 4 && at(x + dx, y + dy)));
        *pixel = if near { ink } else { dim(*pixel) };
    }
    outline(&mut drawn, region.bbox, ink);
    encode(&drawn)
}

fn side(pixels: u32, scale: f64) -> u32 {
    ((f64::from(pixels) * scale).round() as u32).max(1)
}

/// Three quarters as bright and half as colourful: what is not the region stays readable but steps back.
fn dim(Rgb([r, g, b]): Rgb<u8>) -> Rgb<u8> {
    let grey = (u32::from(r) * 77 + u32::from(g) * 150 + u32::from(b) * 29) >> 8;
    Rgb([r, g, b].map(|c| ((u32::from(c) + grey) * 3 / 8) as u8))
}

/// The box, one pixel wide.
fn outline(picture: &mut RgbImage, bbox: [f32; 4], ink: Rgb<u8>) {
    let (w, h) = picture.dimensions();
    let px = |v: f32, n: u32| ((v.clamp(0.0, 1.0) * n as f32) as u32).min(n - 1);
    let (x0, y0, x1, y1) = (px(bbox[0], w), px(bbox[1], h), px(bbox[2], w), px(bbox[3], h));
    for x in x0..=x1.max(x0) {
        picture.put_pixel(x, y0, ink);
        picture.put_pixel(x, y1, ink);
    }
    for y in y0..=y1.max(y0) {
        picture.put_pixel(x0, y, ink);
        picture.put_pixel(x1, y, ink);
    }
}

fn encode(picture: &RgbImage) -> Option<String> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
    picture.write_with_encoder(encoder).ok()?;
    Some(format!("data:image/jpeg;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes)))
}

/// Queries to show: some found at once, some found among the first five, some not found among the first ten, spread
/// over the split. A pure function of the places; nothing is picked by hand.
pub(crate) fn choose(places: &[AnswerRank], found: usize, near: usize, missed: usize) -> Vec<usize> {
    let mut chosen = spread(places, |p| p.above == 0, found);
    chosen.extend(spread(places, |p| (1..5).contains(&p.above), near));
    chosen.extend(spread(places, |p| p.above >= 10, missed));
    chosen
}

/// At most `n` of the queries whose places are to be kept, evenly over all of them.
pub(crate) fn spread(places: &[AnswerRank], keep: impl Fn(&AnswerRank) -> bool, n: usize) -> Vec<usize> {
    let fit: Vec<usize> = places.iter().enumerate().filter(|(_, p)| keep(p)).map(|(i, _)| i).collect();
    let n = n.min(fit.len());
    (0..n).map(|i| fit[(2 * i + 1) * fit.len() / (2 * n)]).collect()
}
