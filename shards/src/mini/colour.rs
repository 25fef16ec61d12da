//! Names of colours, by the nearest of a fixed list in CIELAB (CIE 15:2004, D65), over the pixels that are visible.

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
}

impl Palette {
    /// The palette of some pixels.
    #[must_use]
    pub fn of(pixels: impl Iterator<Item = [u8; 3]>) -> Self {
        let mut counts = [0u32; NAMES.len()];
        pixels.for_each(|p| counts[nearest(p)] += 1);
        let total = counts.iter().sum::<u32>().max(1) as f32;
        let mut shares: Vec<(usize, f32)> =
            counts.iter().enumerate().filter(|(_, c)| **c > 0).map(|(i, &c)| (i, c as f32 / total)).collect();
        let weight = |(i, share): (usize, f32)| share * if i < GREYS { 1.0 } else { CHROMATIC };
        shares.sort_by(|&a, &b| weight(b).total_cmp(&weight(a)).then(a.0.cmp(&b.0)));
        Self { shares }
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
        let close = self.shares.iter().filter(|(i, _)| alike(NAMES[*i].0, name));
        close.map(|(_, share)| share).sum::<f32>() < TRACE
    }

    /// Whether a colour covers at least `share`.
    #[must_use]
    pub fn has(&self, name: &str, share: f32) -> bool {
        self.shares.iter().any(|&(i, s)| NAMES[i].0 == name && s >= share)
    }
}

/// Colours closer than this in CIELAB may be called by each other's names, as brown and olive green may.
const ALIKE: f32 = 40.0;
/// With less of a colour nobody would call an object by it.
const TRACE: f32 = 0.03;

/// Whether one might call the colour `a` by the name `b`: they are close, or have a word in common (`dark blue`).
#[must_use]
pub fn alike(a: &str, b: &str) -> bool {
    const N: usize = NAMES.len();
    static TABLE: OnceLock<Vec<bool>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let hue = |name: &'static str| name.rsplit(' ').next().unwrap_or(name);
        let close = |i: usize, j: usize| {
            let (a, b) = (lab(NAMES[i].1), lab(NAMES[j].1));
            a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>() < ALIKE.powi(2)
        };
        (0..N * N).map(|at| (at / N, at % N)).map(|(i, j)| hue(NAMES[i].0) == hue(NAMES[j].0) || close(i, j)).collect()
    });
    let index = |name: &str| NAMES.iter().position(|(n, _)| *n == name);
    // A name that is not in the list might be any colour's.
    index(a).zip(index(b)).is_none_or(|(i, j)| table[i * N + j])
}

/// Index into [`NAMES`] of the nearest colour.
#[must_use]
pub fn nearest(rgb: [u8; 3]) -> usize {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let named: Vec<[f32; 3]> = NAMES.iter().map(|(_, c)| lab(*c)).collect();
        let centre = |v: u32| ((v << (8 - BITS)) + (1 << (7 - BITS))) as u8;
        let side = 1u32 << BITS;
        (0..side.pow(3))
            .map(|i| search(&named, [centre(i / (side * side)), centre(i / side % side), centre(i % side)]))
            .collect()
    });
    let cell = rgb.iter().fold(0usize, |at, &v| (at << BITS) | usize::from(v >> (8 - BITS)));
    usize::from(table[cell])
}

fn search(named: &[[f32; 3]], rgb: [u8; 3]) -> u8 {
    let p = lab(rgb);
    let distance = |c: &[f32; 3]| c.iter().zip(p).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    (0u8..).zip(named).min_by(|a, b| distance(a.1).total_cmp(&distance(b.1))).map_or(0, |(i, _)| i)
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
        assert!(palette.lacks("blue") && palette.lacks("teal"));
        assert!(!palette.lacks("dark red") && !palette.lacks("light grey") && !palette.lacks("dark grey"));
    }
}
