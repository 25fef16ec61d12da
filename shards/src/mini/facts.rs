//! What is true of a scene: places, directions, rankings and noun phrases that captions are made of.

use super::catalogue::{Catalogue, Concept, Look, STYLES};
use super::dice::Dice;
use super::scene::{Effect, Object, Scene};
use super::words::{Number, indefinite};

/// An object covers or is covered by another worth a sentence from this share on.
const WORTH_SAYING: f32 = 0.08;

/// A scene with the catalogue that its numbers point into.
pub(crate) struct Facts<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) scene: &'a Scene,
}

impl<'a> Facts<'a> {
    pub(crate) fn object(&self, i: usize) -> &'a Object {
        &self.scene.objects[i]
    }

    pub(crate) fn concept(&self, i: usize) -> &'a Concept {
        &self.catalogue.concepts[self.object(i).concept]
    }

    pub(crate) fn look(&self, i: usize) -> &'a Look {
        &self.concept(i).looks[self.object(i).look]
    }

    /// Objects that can be spoken of: regions of the dataset.
    pub(crate) fn spoken(&self) -> Vec<usize> {
        (0..self.scene.objects.len()).filter(|&i| self.object(i).is_region()).collect()
    }

    /// The number of objects, if no object is so hidden that one might not count it.
    pub(crate) fn count(&self) -> Option<usize> {
        let clear = self.scene.objects.iter().all(Object::is_region);
        clear.then_some(self.scene.objects.len())
    }

    /// Other spoken objects of the same concept.
    pub(crate) fn twins(&self, me: usize) -> Vec<usize> {
        let mut all = self.spoken();
        all.retain(|&o| o != me && self.object(o).concept == self.object(me).concept);
        all
    }

    /// The colours of an object as an adjective; `None` where its name says a colour.
    pub(crate) fn colours(&self, i: usize) -> Option<String> {
        if self.concept(i).says_colour {
            return None;
        }
        let palette = &self.object(i).palette;
        Some(match palette.second() {
            Some(second) => format!("{} and {second}", palette.first()),
            None => palette.first().to_string(),
        })
    }

    /// `a red and green apple`, with `before` in front of the colours.
    pub(crate) fn phrase(&self, i: usize, before: &str) -> String {
        let concept = self.concept(i);
        let parts = [Some(before.to_string()), self.colours(i), Some(concept.name.clone())];
        let words: Vec<String> = parts.into_iter().flatten().filter(|w| !w.is_empty()).collect();
        indefinite(&words.join(" "), concept.number)
    }

    /// How `other` is called in a caption of `me`: short, and telling twins apart.
    pub(crate) fn mention(&self, me: usize, other: usize) -> String {
        let concept = self.concept(other);
        let first = self.object(other).palette.first();
        let colour = if concept.says_colour { String::new() } else { format!("{first} ") };
        if self.object(other).concept != self.object(me).concept {
            return indefinite(&format!("{colour}{}", concept.name), concept.number);
        }
        match concept.number {
            Number::Singular => format!("another {colour}{}", concept.name),
            Number::Plural | Number::Mass => format!("more {colour}{}", concept.name),
        }
    }

    /// `a red apple`: one colour, whatever else is in the scene.
    pub(crate) fn mention_alone(&self, i: usize) -> String {
        let concept = self.concept(i);
        let colour = if concept.says_colour { String::new() } else { format!("{} ", self.object(i).palette.first()) };
        indefinite(&format!("{colour}{}", concept.name), concept.number)
    }

    /// `an apple`
    pub(crate) fn bare(&self, i: usize) -> String {
        indefinite(&self.concept(i).name, self.concept(i).number)
    }

    /// Words before the name for its style.
    pub(crate) fn style_adjective(&self, i: usize, dice: &mut Dice) -> &'static str {
        dice.pick(STYLES[self.look(i).style].adjectives)
    }

    /// Words after the name for its style.
    pub(crate) fn style_tail(&self, i: usize, dice: &mut Dice) -> &'static str {
        dice.pick(STYLES[self.look(i).style].tails)
    }

    /// What tells `me` from the nearest twin that looks alike: size or place.
    pub(crate) fn distinction(&self, me: usize) -> Option<Distinction> {
        let alike = |&o: &usize| {
            self.look(o).style == self.look(me).style
                && self.object(o).palette.first() == self.object(me).palette.first()
        };
        let twins: Vec<usize> = self.twins(me).into_iter().filter(alike).collect();
        let mine = self.object(me);
        if twins.is_empty() {
            return None;
        }
        let area = mine.visible as f32;
        if twins.iter().all(|&o| area > 1.5 * self.object(o).visible as f32) {
            return Some(Distinction::Before("large"));
        }
        if twins.iter().all(|&o| area * 1.5 < self.object(o).visible as f32) {
            return Some(Distinction::Before("small"));
        }
        let beyond = |axis: usize, sign: f32| {
            twins.iter().all(|&o| (mine.centre[axis] - self.object(o).centre[axis]) * sign > 0.12)
        };
        let sides =
            [(0, -1.0, "on the left"), (0, 1.0, "on the right"), (1, -1.0, "at the top"), (1, 1.0, "at the bottom")];
        sides.into_iter().find(|&(axis, sign, _)| beyond(axis, sign)).map(|(_, _, words)| Distinction::After(words))
    }

    /// `in the top left part`
    pub(crate) fn position(&self, i: usize) -> &'static str {
        let third = |v: f32| ((v * 3.0) as usize).min(2);
        let [x, y] = self.object(i).centre.map(third);
        [
            ["in the top left part", "at the top", "in the top right part"],
            ["on the left side", "in the middle", "on the right side"],
            ["in the bottom left part", "at the bottom", "in the bottom right part"],
        ][y][x]
    }

    /// Where `other` lies from `me`: `to the left of`, and the opposite.
    pub(crate) fn direction(&self, me: usize, other: usize) -> Direction {
        let (a, b) = (self.object(me).centre, self.object(other).centre);
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        match (dx.abs() >= dy.abs(), dx < 0.0, dy < 0.0) {
            (true, true, _) => Direction { of: "to the left of", back: "to the right of", back_short: "on the right" },
            (true, false, _) => Direction { of: "to the right of", back: "to the left of", back_short: "on the left" },
            (false, _, true) => Direction { of: "above", back: "below", back_short: "further down" },
            (false, _, false) => Direction { of: "below", back: "above", back_short: "further up" },
        }
    }

    /// Objects that hide much of `me`, with the share.
    pub(crate) fn hidden_by(&self, me: usize) -> Vec<(usize, f32)> {
        let mine = self.object(me);
        let share = |&o: &usize| (o, mine.hidden_by[o] as f32 / mine.whole.max(1) as f32);
        self.spoken().iter().map(share).filter(|(_, s)| *s >= WORTH_SAYING).collect()
    }

    /// Objects that `me` hides in part.
    pub(crate) fn hides(&self, me: usize) -> Vec<usize> {
        let share = |o: usize| self.object(o).hidden_by[me] as f32 / self.object(o).whole.max(1) as f32;
        self.spoken().into_iter().filter(|&o| share(o) >= WORTH_SAYING).collect()
    }

    /// 1 for the largest spoken object by a clear margin, -1 for the smallest, else 0.
    pub(crate) fn rank(&self, me: usize) -> i8 {
        let mine = self.object(me).visible as f32;
        let mut others = self.scene.objects.iter().enumerate().filter(|(o, _)| *o != me).map(|(_, o)| o.visible as f32);
        if self.scene.objects.len() < 2 {
            0
        } else if others.clone().all(|o| mine > 1.15 * o) {
            1
        } else if others.all(|o| mine * 1.15 < o) {
            -1
        } else {
            0
        }
    }

    /// The turn that can be seen: degrees and way, 180 for upside down.
    pub(crate) fn turn(&self, i: usize) -> Option<(u32, &'static str)> {
        let (angle, look) = (self.object(i).pose.angle, self.look(i));
        let shows = if angle.abs() == 180.0 { look.shows_half_turn } else { look.shows_turn };
        (shows && angle != 0.0)
            .then_some((angle.abs() as u32, if angle > 0.0 { "clockwise" } else { "counterclockwise" }))
    }

    /// Whether the object has this effect.
    pub(crate) fn has(&self, i: usize, effect: Effect) -> bool {
        self.object(i).effect == effect
    }
}

/// What tells twins apart.
pub(crate) enum Distinction {
    /// An adjective.
    Before(&'static str),
    /// A place.
    After(&'static str),
}

/// Where one object lies from another.
pub(crate) struct Direction {
    pub(crate) of: &'static str,
    pub(crate) back: &'static str,
    pub(crate) back_short: &'static str,
}
