//! Procedural backgrounds of one or two named colours, and their true description.

use super::colour::{NAMES, nearest};
use super::dice::Dice;
use crate::pixels::Rgb;

/// A painted background and what it is.
pub(crate) struct Background {
    pub(crate) image: Rgb,
    /// A noun phrase: `a plain teal background`.
    pub(crate) phrase: String,
}

/// Draws a background of `size` x `size` pixels.
pub(crate) fn paint(size: u32, dice: &mut Dice) -> Background {
    let (first, a) = colour(dice);
    let (mut second, mut b) = colour(dice);
    while second == first {
        (second, b) = colour(dice);
    }
    let s = size as f32;
    let period = s / dice.between(3.0, 8.0);
    let kind = dice.below(6);
    let phase = dice.between(0.0, period);
    let across = dice.chance(0.5);
    let band = |v: f32| ((v + phase) / period).rem_euclid(1.0) < 0.5;
    let mixed = |t: f32| std::array::from_fn(|c| (f32::from(a[c]) + (f32::from(b[c]) - f32::from(a[c])) * t) as u8);
    let two = |other: bool| if other { b } else { a };
    let pixel = |x: f32, y: f32| match kind {
        0 | 1 => a,
        2 => mixed(if across { x / s } else { y / s }),
        3 => two(band(if across { x } else { y })),
        4 => two(band(x) != band(y)),
        _ => {
            let off = |v: f32| (v + phase).rem_euclid(period) - period / 2.0;
            two(off(x).hypot(off(y)) < period * 0.28)
        }
    };
    let mut image = Rgb::filled(size, size, a);
    if kind > 1 {
        for (i, out) in image.data.chunks_exact_mut(3).enumerate() {
            let i = i as u32;
            out.copy_from_slice(&pixel((i % size) as f32 + 0.5, (i / size) as f32 + 0.5));
        }
    }
    let phrase = match (kind, across) {
        (0 | 1, _) => format!("a plain {first} background"),
        (2, true) => format!("a background that fades from {first} on the left to {second} on the right"),
        (2, false) => format!("a background that fades from {first} at the top to {second} at the bottom"),
        (3, true) => format!("a background of vertical {first} and {second} stripes"),
        (3, false) => format!("a background of horizontal {first} and {second} stripes"),
        (4, _) => format!("a chequered background of {first} and {second}"),
        _ => format!("a {first} background with {second} dots"),
    };
    Background { image, phrase: phrase.replace("a orange", "an orange").replace("a olive", "an olive") }
}

/// A colour near one of the names, and still nearest to it.
fn colour(dice: &mut Dice) -> (&'static str, [u8; 3]) {
    let i = dice.below(NAMES.len());
    let (name, rgb) = NAMES[i];
    let moved = rgb.map(|v| (f32::from(v) + dice.between(-14.0, 14.0)).clamp(0.0, 255.0) as u8);
    (name, if nearest(moved) == i { moved } else { rgb })
}
