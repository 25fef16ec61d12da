//! One scene: which drawings, where, in what order, and what of each remains visible.
//!
//! Invariant: a scene is a pure function of (catalogue, seed, split, number). Masks are the visible pixels: alpha above
//! one half, less everything that was put on top.

use super::background;
use super::catalogue::Catalogue;
use super::colour::Palette;
use super::dice::Dice;
use super::splits::Split;
use super::sprite::{Pose, Stamp};
use crate::pixels::{Mask, Rgb};

/// Longest sides of objects as fractions of the scene's.
const SIZES: [f32; 5] = [0.20, 0.26, 0.33, 0.40, 0.48];
/// Turns in degrees: most objects stand upright.
const TURNS: [f32; 9] = [0.0, 0.0, 0.0, 0.0, 35.0, -35.0, 70.0, -70.0, 180.0];
/// Centres lie at least this far apart on one axis, as a fraction of the scene's side.
const APART: f32 = 0.2;
/// An object with less of the image visible is no region.
const LEAST_VISIBLE: f32 = 0.004;
/// An object with more of it hidden is no region.
const MOST_HIDDEN: f32 = 0.65;
const NOBODY: u8 = u8::MAX;

/// A change of an object's colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// None.
    None,
    /// Shades of grey.
    Grey,
    /// Half transparent.
    Faded,
}

/// One object of a scene.
#[derive(Debug, Clone)]
pub struct Object {
    /// Index into the catalogue's concepts.
    pub concept: usize,
    /// Index into the concept's looks.
    pub look: usize,
    /// Where and how.
    pub pose: Pose,
    /// Change of colours.
    pub effect: Effect,
    /// Visible pixels, 0 or 255.
    pub mask: Mask,
    /// Number of visible pixels.
    pub visible: u32,
    /// Pixels had nothing been put on top.
    pub whole: u32,
    /// Pixels hidden by each object of the scene.
    pub hidden_by: Vec<u32>,
    /// Colours of the visible pixels.
    pub palette: Palette,
    /// Mean of the visible pixels, in 0..1 of the scene.
    pub centre: [f32; 2],
    /// Tight box of the visible pixels, x1, y1, x2, y2 in 0..1.
    pub bbox: [f32; 4],
}

impl Object {
    /// Share that others hide.
    #[must_use]
    pub fn hidden(&self) -> f32 {
        1.0 - self.visible as f32 / self.whole.max(1) as f32
    }

    /// Share of the image that is visible.
    #[must_use]
    pub fn share(&self) -> f32 {
        self.visible as f32 / self.mask.data.len() as f32
    }

    /// Whether it is a region of the dataset.
    #[must_use]
    pub fn is_region(&self) -> bool {
        self.share() >= LEAST_VISIBLE && self.hidden() <= MOST_HIDDEN
    }
}

/// A composed scene.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The picture.
    pub image: Rgb,
    /// A noun phrase for the background.
    pub background: String,
    /// All objects, those at the back first.
    pub objects: Vec<Object>,
}

/// Composes scene `i` of `split`, `size` x `size` pixels.
pub(crate) fn compose(catalogue: &Catalogue, size: u32, split: Split, dice: &mut Dice) -> Scene {
    let ground = background::paint(size, dice);
    let mut scene = Scene { image: ground.image, background: ground.phrase, objects: Vec::new() };
    let mut owner = vec![NOBODY; (size * size) as usize];
    let mut cast: Vec<(usize, usize)> = Vec::new();
    for _ in 0..2 + dice.below(4) {
        let role = choose(catalogue, split, &cast, dice);
        if let Some((pose, effect)) = place(catalogue, role, size, &scene.objects, dice) {
            cast.push(role);
            let stamp = catalogue.concepts[role.0].looks[role.1].sprite.stamp(&pose);
            paste(&mut scene, &mut owner, &stamp, Object::new(role, pose, effect, size));
        }
    }
    measure(&mut scene, &owner);
    scene
}

impl Object {
    fn new((concept, look): (usize, usize), pose: Pose, effect: Effect, size: u32) -> Self {
        Self {
            concept,
            look,
            pose,
            effect,
            mask: Mask::filled(size, size, 0),
            visible: 0,
            whole: 0,
            hidden_by: Vec::new(),
            palette: Palette::default(),
            centre: [0.0; 2],
            bbox: [0.0; 4],
        }
    }
}

/// The concepts and looks that `split` may show.
fn allowed(catalogue: &Catalogue, split: Split, concept: usize) -> Vec<usize> {
    let c = &catalogue.concepts[concept];
    let looks = |held| c.looks.iter().enumerate().filter(|(_, l)| l.held_out == held).map(|(i, _)| i).collect();
    match (split, c.held_out) {
        (Split::Train | Split::Test, false) => looks(false),
        (Split::HeldoutPairs, false) => looks(true),
        (Split::HeldoutConcepts, true) => (0..c.looks.len()).collect(),
        (Split::Train | Split::Test | Split::HeldoutPairs, true) | (Split::HeldoutConcepts, false) => Vec::new(),
    }
}

/// A concept and a look: with probability 0.3 a distractor, the same concept once more or a neighbour of it.
fn choose(catalogue: &Catalogue, split: Split, cast: &[(usize, usize)], dice: &mut Dice) -> (usize, usize) {
    let n = catalogue.concepts.len();
    let distract = !cast.is_empty() && dice.chance(0.3);
    let base = if distract { cast[dice.below(cast.len())].0 } else { 0 };
    let again = distract && dice.chance(0.4);
    // Held-out drawings are few: looking on from a random place finds the next one in the order of the catalogue.
    let start = match (again, distract) {
        (true, _) => base,
        (false, true) => (base + n + dice.below(9) - 4) % n,
        (false, false) => dice.below(n),
    };
    let found = (0..n).map(|step| (start + step) % n).find_map(|c| {
        let looks = allowed(catalogue, split, c);
        (!looks.is_empty()).then(|| (c, looks[dice.below(looks.len())]))
    });
    found.unwrap_or((start, 0))
}

/// A pose within the scene and apart from the others; `None` if there is no room.
fn place(
    catalogue: &Catalogue,
    (concept, look): (usize, usize),
    size: u32,
    others: &[Object],
    dice: &mut Dice,
) -> Option<(Pose, Effect)> {
    let s = size as f32;
    let concept = &catalogue.concepts[concept];
    let mut pose = Pose {
        centre: [0.0; 2],
        longest: SIZES[dice.below(SIZES.len())] * s,
        angle: TURNS[dice.below(TURNS.len())],
        mirror: dice.chance(0.4),
    };
    let effect = match dice.below(24) {
        // A grey red apple is a contradiction to read, whatever it is to see.
        0 | 1 if !concept.says_colour => Effect::Grey,
        2 => Effect::Faded,
        _ => Effect::None,
    };
    let extent = concept.looks[look].sprite.extent(&pose);
    for _ in 0..16 {
        let at = |e: f32, u: f32| e / 2.0 + u * (s - e).max(0.0);
        pose.centre = [at(extent[0], dice.unit()), at(extent[1], dice.unit())];
        let apart = |o: &Object| {
            let [x, y] = o.pose.centre;
            (x - pose.centre[0]).abs().max((y - pose.centre[1]).abs()) >= APART * s
        };
        if others.iter().all(apart) {
            return Some((pose, effect));
        }
    }
    None
}

fn paste(scene: &mut Scene, owner: &mut [u8], stamp: &Stamp, mut object: Object) {
    let size = scene.image.width as i32;
    let me = scene.objects.len();
    for (i, &rgba) in stamp.data.iter().enumerate() {
        let (x, y) = (stamp.left + (i % stamp.width) as i32, stamp.top + (i / stamp.width) as i32);
        if rgba[3] == 0 || !(0..size).contains(&x) || !(0..size).contains(&y) {
            continue;
        }
        let at = (y * size + x) as usize;
        let [r, g, b, a] = rgba.map(u32::from);
        // Luma of ITU-R BT.601.
        let grey = (299 * r + 587 * g + 114 * b) / 1000;
        let colour = if object.effect == Effect::Grey { [grey; 3] } else { [r, g, b] };
        let opacity = if object.effect == Effect::Faded { 158 } else { 255 };
        for (out, c) in scene.image.data[3 * at..3 * at + 3].iter_mut().zip(colour) {
            *out = ((c * opacity + u32::from(*out) * (255 - a * opacity / 255)) / 255).min(255) as u8;
        }
        if a > 127 {
            object.whole += 1;
            if let Some(below) = scene.objects.get_mut(usize::from(owner[at])) {
                below.hidden_by.resize(me + 1, 0);
                below.hidden_by[me] += 1;
            }
            owner[at] = me as u8;
        }
    }
    scene.objects.push(object);
}

/// What is visible of each object, once all are pasted.
fn measure(scene: &mut Scene, owner: &[u8]) {
    let size = scene.image.width as usize;
    let count = scene.objects.len();
    for (me, object) in scene.objects.iter_mut().enumerate() {
        object.hidden_by.resize(count, 0);
        let (mut sum, mut tight) = ([0u64; 2], [size, size, 0, 0]);
        let mine: Vec<usize> =
            owner.iter().enumerate().filter(|(_, o)| usize::from(**o) == me).map(|(at, _)| at).collect();
        for &at in &mine {
            let (x, y) = (at % size, at / size);
            object.mask.data[at] = 255;
            sum = [sum[0] + x as u64, sum[1] + y as u64];
            tight = [tight[0].min(x), tight[1].min(y), tight[2].max(x + 1), tight[3].max(y + 1)];
        }
        object.visible = mine.len() as u32;
        let pixel = |at: usize| [scene.image.data[3 * at], scene.image.data[3 * at + 1], scene.image.data[3 * at + 2]];
        object.palette = Palette::of(mine.iter().map(|&at| pixel(at)));
        let (n, s) = (mine.len().max(1) as f32, size as f32);
        object.centre = sum.map(|v| (v as f32 / n + 0.5) / s);
        object.bbox = tight.map(|v| v as f32 / s);
    }
}
