//! Names of colours, by the nearest of a fixed list in CIELAB (CIE 15:2004, D65), over the pixels that are visible.

use std::collections::HashMap;
use std::sync::OnceLock;

/// The names and the sRGB colours they stand for.
pub const NAMES: [(&str, [u8; 3]); 29] = [
    ("black", [20, 20, 20]),
    ("dark grey", [75, 77, 80]),
    ("grey", [128, 130, 132]),
    ("light grey", [198, 204, 209]),
    ("white", [248, 248, 248]),
    ("red", [221, 40, 48]),
    ("dark red", [140, 22, 30]),
    ("pink", [246, 150, 185]),
    ("orange", [244, 135, 28]),
    ("brown", [125, 72, 42]),
    ("light brown", [188, 132, 88]),
    ("beige", [242, 212, 178]),
    ("golden", [208, 156, 36]),
    ("yellow", [254, 220, 60]),
    ("olive green", [128, 126, 40]),
    ("light green", [155, 210, 90]),
    ("green", [70, 150, 60]),
    ("dark green", [28, 88, 45]),
    ("teal", [25, 135, 135]),
    ("turquoise", [80, 205, 200]),
    ("light blue", [145, 205, 240]),
    ("blue", [48, 120, 205]),
    ("dark blue", [32, 58, 120]),
    ("purple", [130, 70, 160]),
    ("lilac", [195, 165, 225]),
    ("pale green", [203, 228, 196]),
    ("pale pink", [250, 216, 220]),
    ("pale yellow", [252, 240, 186]),
    ("pale blue", [196, 226, 250]),
];

/// Greys come last in a description: a chromatic pixel counts this many times.
const CHROMATIC: f32 = 1.6;
/// The first names are greys.
const GREYS: usize = 5;
const BITS: u32 = 5;

/// What the visible pixels of an object look like.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Palette {
    /// Indices into [`NAMES`] with their shares of the pixels, by how much they strike the eye.
    pub shares: Vec<(usize, f32)>,
    /// Shares of the pixels that one might call by each of [`NAMES`]; several names may claim a pixel.
    possible: Vec<f32>,
}

impl Palette {
    /// The palette of some pixels.
    #[must_use]
    pub fn of(pixels: impl Iterator<Item = [u8; 3]>) -> Self {
        let table = table();
        let mut cells = vec![0u32; table.classes.len()];
        pixels.for_each(|p| cells[usize::from(table.cells[cell(p)])] += 1);
        let total = cells.iter().sum::<u32>().max(1) as f32;
        let (mut counts, mut possible) = ([0u32; NAMES.len()], vec![0.0; NAMES.len()]);
        for (class, &count) in table.classes.iter().zip(&cells).filter(|(_, count)| **count > 0) {
            counts[class.nearest] += count;
            let named = possible.iter_mut().enumerate().filter(|(i, _)| class.possible >> i & 1 == 1);
            named.for_each(|(_, share)| *share += count as f32 / total);
        }
        let mut shares: Vec<(usize, f32)> =
            counts.iter().enumerate().filter(|(_, c)| **c > 0).map(|(i, &c)| (i, c as f32 / total)).collect();
        let weight = |(i, share): (usize, f32)| share * if i < GREYS { 1.0 } else { CHROMATIC };
        shares.sort_by(|&a, &b| weight(b).total_cmp(&weight(a)).then(a.0.cmp(&b.0)));
        Self { shares, possible }
    }

    /// The most striking colour.
    #[must_use]
    pub fn first(&self) -> &'static str {
        self.shares.first().map_or("grey", |&(i, _)| NAMES[i].0)
    }

    /// The second one, if it covers enough to be worth a word.
    #[must_use]
    pub fn second(&self) -> Option<&'static str> {
        self.shares.get(1).filter(|&&(_, share)| share >= 0.2).map(|&(i, _)| NAMES[i].0)
    }

    /// The colour of most pixels and its share.
    #[must_use]
    pub fn most(&self) -> (&'static str, f32) {
        let best = self.shares.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        best.map_or(("grey", 0.0), |&(i, share)| (NAMES[i].0, share))
    }

    /// Whether hardly a pixel has a colour that one might call `name`.
    #[must_use]
    pub fn lacks(&self, name: &str) -> bool {
        NAMES.iter().zip(&self.possible).all(|((n, _), &share)| *n != name || share < TRACE)
    }

    /// Whether a colour covers at least `share`.
    #[must_use]
    pub fn has(&self, name: &str, share: f32) -> bool {
        self.shares.iter().any(|&(i, s)| NAMES[i].0 == name && s >= share)
    }
}

/// A name within this distance of a colour in CIELAB may be its name: brown and olive green are closer.
const ALIKE: f32 = 40.0;
/// So may one that is farther than the nearest name by this at most.
const UNDECIDED: f32 = 14.0;
/// With less of a colour nobody would call an object by it.
const TRACE: f32 = 0.03;

/// Whether one might call the colour `a` by the name `b`: they are close, or have a word in common (`dark blue`).
#[must_use]
pub fn alike(a: &str, b: &str) -> bool {
    let index = |name: &str| NAMES.iter().position(|(n, _)| *n == name);
    // A name that is not in the list might be any colour's.
    let both = index(a).zip(index(b));
    both.is_none_or(|(i, j)| table().classes[usize::from(table().cells[cell(NAMES[i].1)])].possible >> j & 1 == 1)
}

/// Index into [`NAMES`] of the nearest colour.
#[must_use]
pub fn nearest(rgb: [u8; 3]) -> usize {
    table().classes[usize::from(table().cells[cell(rgb)])].nearest
}

/// Colours that have the same names.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct Class {
    nearest: usize,
    /// A bit for each of [`NAMES`] that one might use.
    possible: u32,
}

/// Colours by the first bits of red, green and blue, each with its class.
struct Table {
    cells: Vec<u16>,
    classes: Vec<Class>,
}

fn cell(rgb: [u8; 3]) -> usize {
    rgb.iter().fold(0, |at, &v| (at << BITS) | usize::from(v >> (8 - BITS)))
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let named = NAMES.map(|(_, c)| lab(c));
        let centre = |v: u32| ((v << (8 - BITS)) + (1 << (7 - BITS))) as u8;
        let side = 1u32 << BITS;
        let mut known = HashMap::new();
        let mut classes = Vec::new();
        let mut class_of = |class: Class| {
            *known.entry(class).or_insert_with(|| {
                classes.push(class);
                u16::try_from(classes.len() - 1).expect("there are 2^15 cells, so no more classes")
            })
        };
        let cells = (0..side.pow(3))
            .map(|i| [centre(i / (side * side)), centre(i / side % side), centre(i % side)])
            .map(|rgb| class_of(search(&named, rgb)))
            .collect();
        Table { cells, classes }
    })
}

fn search(named: &[[f32; 3]; NAMES.len()], rgb: [u8; 3]) -> Class {
    let p = lab(rgb);
    let distances = named.map(|c| c.iter().zip(p).map(|(a, b)| (a - b).powi(2)).sum::<f32>());
    let nearest = (0..NAMES.len()).min_by(|&a, &b| distances[a].total_cmp(&distances[b])).unwrap_or(0);
    let hue = |i: usize| NAMES[i].0.rsplit(' ').next();
    let limit = ALIKE.max(distances[nearest].sqrt() + UNDECIDED);
    let may = |&i: &usize| hue(i) == hue(nearest) || distances[i].sqrt() < limit;
    Class { nearest, possible: (0..NAMES.len()).filter(may).fold(0, |bits, i| bits | 1 << i) }
}

/// sRGB -> CIELAB, D65.
fn lab(rgb: [u8; 3]) -> [f32; 3] {
    let linear = rgb.map(|v| {
        let v = f32::from(v) / 255.0;
        if v <= 0.040_45 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    });
    let row = |m: [f32; 3]| m.iter().zip(linear).map(|(a, b)| a * b).sum::<f32>();
    let x = row([0.412_456, 0.357_576, 0.180_438]) / 0.950_47;
    let y = row([0.212_673, 0.715_152, 0.072_175]);
    let z = row([0.019_334, 0.119_192, 0.950_304]) / 1.088_83;
    let f = |t: f32| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
    [116.0 * f(y) - 16.0, 500.0 * (f(x) - f(y)), 200.0 * (f(y) - f(z))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_nearest_to_its_own_colour() {
        for (i, (name, rgb)) in NAMES.iter().enumerate() {
            assert_eq!(NAMES[nearest(*rgb)].0, NAMES[i].0, "{name}");
        }
    }

    #[test]
    fn known_values_of_lab() {
        let close = |rgb, expected: [f32; 3]| lab(rgb).iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.1);
        assert!(close([255, 0, 0], [53.24, 80.09, 67.20]));
        assert!(close([255, 255, 255], [100.0, 0.0, 0.0]));
    }

    #[test]
    fn a_colourful_part_beats_a_grey_outline_and_shares_are_of_pixels() {
        let pixels =
            std::iter::repeat_n([0, 0, 0], 50).chain(std::iter::repeat_n([221, 40, 48], 40)).chain([[255; 3]; 10]);
        let palette = Palette::of(pixels);
        assert_eq!((palette.first(), palette.second(), palette.most()), ("red", Some("black"), ("black", 0.5)));
        assert!(palette.has("white", 0.1) && !palette.has("white", 0.2));
        assert!(palette.lacks("blue") && palette.lacks("green"));
        assert!(!palette.lacks("dark red") && !palette.lacks("light grey") && !palette.lacks("dark grey"));
    }
}
