//! A PNG of some rows: each picture with its regions painted on, the captions beside it in the regions' colours.

use super::Seen;
use super::paint;
use crate::pixels::decode::{self, DecodeError};
use crate::row::ImageRow;
use resvg::tiny_skia::{IntSize, Pixmap, Transform};
use resvg::usvg;
use std::fmt::Write;
use std::sync::Arc;

/// Width of the sheet in pixels.
const WIDTH: u32 = 1280;
/// Largest side of a picture on it.
const PICTURE: u32 = 400;
const MARGIN: u32 = 20;
const FONT: f32 = 14.0;
const LINE: f32 = 19.0;
/// Mean width of DejaVu Sans' letters over their size, on the generous side.
const LETTER: f32 = 0.58;
/// Tallest sheet: what a viewer still opens.
const HEIGHT_MAX: u32 = 32_000;

/// Why there is no sheet.
#[derive(Debug, thiserror::Error)]
pub enum SheetError {
    /// The text of the sheet cannot be drawn.
    #[error("the sheet's text cannot be drawn")]
    Svg(#[from] usvg::Error),
    /// More rows than fit.
    #[error("a sheet of {height} pixels is too tall (at most {HEIGHT_MAX}); ask for fewer rows with --rows")]
    TooTall {
        /// Height it would have.
        height: u32,
    },
    /// The PNG cannot be written.
    #[error("the sheet cannot be encoded as PNG: {0}")]
    Png(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A picture on the sheet.
struct Placed {
    top: u32,
    image: crate::pixels::Rgb,
}

/// Draws `rows` below each other.
///
/// # Errors
/// [`SheetError`]; a row that cannot be shown is told on the sheet.
pub fn sheet(rows: &[Seen]) -> Result<Vec<u8>, SheetError> {
    let mut text = String::new();
    let mut pictures = Vec::new();
    let mut top = MARGIN;
    for seen in rows {
        let mut column = Column { text: &mut text, y: top as f32, x: (2 * MARGIN + PICTURE) as f32 };
        let head = format!("row group {}, row {}", seen.row_group, seen.row);
        let mut picture_height = 0;
        match &seen.found {
            Ok(row) => {
                column.captions(row, &head);
                match picture(row) {
                    Ok(Some(image)) => {
                        picture_height = image.height;
                        pictures.push(Placed { top, image });
                    }
                    Ok(None) => column.paragraph("(the row has no picture's bytes)", "#b00020", false),
                    Err(error) => column.paragraph(&error.to_string(), "#b00020", false),
                }
            }
            Err(error) => {
                column.paragraph(&head, "#000000", true);
                column.paragraph(&error.to_string(), "#b00020", false);
            }
        }
        let text_bottom = column.y as u32;
        top = text_bottom.max(top + picture_height) + 2 * MARGIN;
    }
    if top > HEIGHT_MAX {
        return Err(SheetError::TooTall { height: top });
    }
    render(&text, &pictures, top)
}

fn render(text: &str, pictures: &[Placed], height: u32) -> Result<Vec<u8>, SheetError> {
    let svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>{text}</svg>"##
    );
    let tree = usvg::Tree::from_str(&svg, &usvg::Options { fontdb: fonts(), ..usvg::Options::default() })?;
    let mut sheet = Pixmap::new(WIDTH, height).expect("the size is between 1 and HEIGHT_MAX");
    resvg::render(&tree, Transform::identity(), &mut sheet.as_mut());
    for placed in pictures {
        let rgba: Vec<u8> = placed.image.data.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
        let size = IntSize::from_wh(placed.image.width, placed.image.height);
        if let Some(picture) = size.and_then(|size| Pixmap::from_vec(rgba, size)) {
            let paint = resvg::tiny_skia::PixmapPaint::default();
            sheet.draw_pixmap(MARGIN as i32, placed.top as i32, picture.as_ref(), &paint, Transform::identity(), None);
        }
    }
    sheet.encode_png().map_err(|e| SheetError::Png(Box::new(e)))
}

fn fonts() -> Arc<usvg::fontdb::Database> {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.load_font_data(dejavu::sans::bold().to_vec());
    Arc::new(fonts)
}

/// The picture at its size on the sheet, with its regions painted on.
fn picture(row: &ImageRow) -> Result<Option<crate::pixels::Rgb>, DecodeError> {
    let Some(bytes) = &row.image.bytes else { return Ok(None) };
    let image = decode::rgb(bytes)?;
    let longest = image.width.max(image.height);
    let fit = |side: u32| ((u64::from(side) * u64::from(PICTURE) / u64::from(longest)) as u32).max(1);
    let mut small = paint::scaled(&image, fit(image.width), fit(image.height));
    for (i, region) in row.regions.iter().enumerate() {
        let mask = region.mask.as_ref().and_then(|m| m.decode().ok());
        paint::region(&mut small, region, mask.as_ref(), i);
    }
    Ok(Some(small))
}

/// Text beside a picture, line below line.
struct Column<'a> {
    text: &'a mut String,
    x: f32,
    y: f32,
}

impl Column<'_> {
    fn captions(&mut self, row: &ImageRow, head: &str) {
        let sides = format!("{}  ·  {head}  ·  {} x {}", row.image_id, row.width, row.height);
        self.paragraph(&sides, "#000000", true);
        for text in [&row.caption_short, &row.caption_long].into_iter().flatten() {
            self.paragraph(text, "#444444", false);
        }
        for text in further(&row.captions, row.caption_short.as_ref()) {
            self.paragraph(text, "#777777", false);
        }
        for (i, region) in row.regions.iter().enumerate() {
            let [r, g, b] = paint::colour(i);
            let colour = format!("#{r:02x}{g:02x}{b:02x}");
            self.y += 4.0;
            let _ = write!(
                self.text,
                r#"<rect x="{}" y="{}" width="12" height="12" fill="{colour}"/>"#,
                self.x - 18.0,
                self.y + 3.0
            );
            let title = [region.category.as_deref(), region.short_text()].into_iter().flatten();
            let title = title.collect::<Vec<_>>().join(": ");
            self.paragraph(if title.is_empty() { "(no short caption)" } else { &title }, "#000000", true);
            if let Some(text) = region.long_text() {
                self.paragraph(text, "#222222", false);
            }
            for text in further(&region.expressions, region.short_expr.as_ref()) {
                self.paragraph(text, "#777777", false);
            }
            if let Some(text) = region.caption_object.as_ref().and(region.short_expr.as_ref()) {
                let negatives = region.hard_negs.len();
                self.paragraph(&format!("{text}  ·  {negatives} hard negatives"), "#00527a", false);
            }
        }
    }

    fn paragraph(&mut self, text: &str, colour: &str, bold: bool) {
        let room = (WIDTH - MARGIN) as f32 - self.x;
        let letters = (room / (FONT * LETTER * if bold { 1.12 } else { 1.0 })) as usize;
        let weight = if bold { "bold" } else { "normal" };
        for line in wrap(text, letters) {
            self.y += LINE;
            let _ = write!(
                self.text,
                r#"<text x="{}" y="{}" font-family="DejaVu Sans" font-size="{FONT}" font-weight="{weight}" fill="{colour}">{}</text>"#,
                self.x,
                self.y - 4.0,
                escape(&line)
            );
        }
    }
}

/// The texts but the one that is shown already.
fn further<'a>(texts: &'a [String], shown: Option<&'a String>) -> impl Iterator<Item = &'a String> {
    texts.iter().filter(move |text| Some(*text) != shown)
}

/// Lines of at most `letters`, broken at spaces, or within words that are longer.
fn wrap(text: &str, letters: usize) -> Vec<String> {
    let letters = letters.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        while !rest.is_empty() {
            let line = lines.last_mut().expect("there is always one");
            let used = line.chars().count();
            if used > 0 && used + 1 + rest.len() > letters {
                lines.push(String::new());
                continue;
            }
            if used > 0 {
                line.push(' ');
            }
            let cut = rest.len().min(letters);
            line.extend(rest.drain(..cut));
        }
    }
    lines
}

/// Text as XML; characters that XML does not allow are left out.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c if c < ' ' || c == '\u{fffe}' || c == '\u{ffff}' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_wraps_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("a red fox on the left", 9), ["a red fox", "on the", "left"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(escape("<a & b>\u{1}"), "&lt;a &amp; b&gt;");
    }
}
