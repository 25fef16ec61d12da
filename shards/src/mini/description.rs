//! What a short expression says of an object, attribute by attribute, and whether an object contradicts it.
//!
//! Invariant: an object contradicts a description only if nobody would call it so. Between `small` and `not small`
//! lies what is left open; nothing is said of it, and nothing is ruled out.

use super::facts::Facts;
use super::scene::Object;

/// An object of which more is hidden has no size that one could name.
const MOST_HIDDEN: f32 = 0.2;
/// Centres closer than this on an axis are level.
const LEVEL: f32 = 0.02;
/// Numbers that are written as words.
const NUMBERS: [&str; 7] = ["no", "one", "two", "three", "four", "five", "six"];

/// A size, by the share of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Medium,
    Large,
}

impl Size {
    /// The words for sizes.
    pub(crate) const WORDS: [(&str, Self); 5] = [
        ("small", Self::Small),
        ("little", Self::Small),
        ("medium-sized", Self::Medium),
        ("large", Self::Large),
        ("big", Self::Large),
    ];

    /// The size that anyone would see.
    pub(crate) fn of(object: &Object) -> Option<Self> {
        match object.share() {
            _ if object.hidden() > MOST_HIDDEN => None,
            share if share < 0.028 => Some(Self::Small),
            share if (0.038..0.065).contains(&share) => Some(Self::Medium),
            share if share > 0.085 => Some(Self::Large),
            _ => None,
        }
    }

    /// What is hidden might be added in thought, so both the visible part and the whole must be of another size.
    fn contradicted(self, object: &Object) -> bool {
        let (seen, whole) = (object.share(), object.whole as f32 / object.mask.data.len() as f32);
        match self {
            Self::Small => seen > 0.036,
            Self::Medium => whole < 0.032 || seen > 0.075,
            Self::Large => whole < 0.072,
        }
    }
}

/// One of the nine parts of the picture, by the object's centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    column: usize,
    row: usize,
}

impl Cell {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..9).map(|i| Self { column: i % 3, row: i / 3 })
    }

    pub(crate) fn of(object: &Object) -> Self {
        let [column, row] = object.centre.map(|v| ((v * 3.0) as usize).min(2));
        Self { column, row }
    }

    pub(crate) fn words(self) -> &'static str {
        [
            ["at the top left", "at the top", "at the top right"],
            ["on the left", "in the middle", "on the right"],
            ["at the bottom left", "at the bottom", "at the bottom right"],
        ][self.row][self.column]
    }

    /// `at the top` speaks of one axis, `at the top left` and `in the middle` of both.
    fn contradicted(self, object: &Object) -> bool {
        let off = |third: usize, v: f32| match third {
            0 => v > 0.45,
            1 => (v - 0.5).abs() > 0.22,
            _ => v < 0.55,
        };
        let [x, y] = object.centre;
        let both = self.column == 1 && self.row == 1;
        ((both || self.column != 1) && off(self.column, x)) || ((both || self.row != 1) && off(self.row, y))
    }
}

/// How an object lies to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    LeftOf,
    RightOf,
    Above,
    Below,
    Behind,
    Over,
}

impl Relation {
    pub(crate) const ALL: [Self; 6] = [Self::LeftOf, Self::RightOf, Self::Above, Self::Below, Self::Behind, Self::Over];

    fn words(self) -> &'static str {
        match self {
            Self::LeftOf => "to the left of",
            Self::RightOf => "to the right of",
            Self::Above => "above",
            Self::Below => "below",
            Self::Behind => "partly hidden behind",
            Self::Over => "partly covering",
        }
    }

    fn contradicted(self, me: usize, object: &Object, other: usize, target: &Object) -> bool {
        let [dx, dy] = [0, 1].map(|axis| target.centre[axis] - object.centre[axis]);
        if me == other {
            return true;
        }
        match self {
            Self::LeftOf => dx < LEVEL,
            Self::RightOf => dx > -LEVEL,
            Self::Above => dy < LEVEL,
            Self::Below => dy > -LEVEL,
            Self::Behind => object.hidden_by[other] == 0,
            Self::Over => target.hidden_by[me] == 0,
        }
    }
}

/// What is said of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Description {
    pub(crate) concept: usize,
    /// None where the name says a colour.
    pub(crate) colours: Vec<&'static str>,
    /// A word of [`Size::WORDS`].
    pub(crate) size: Option<(&'static str, Size)>,
    pub(crate) cell: Option<Cell>,
    /// To another object, whose name is nobody else's in the scene.
    pub(crate) relation: Option<(Relation, usize)>,
    /// The number of objects in the scene.
    pub(crate) count: Option<usize>,
}

impl Description {
    /// Name and colours of object `me`, nothing else.
    pub(crate) fn plain(facts: &Facts<'_>, me: usize) -> Self {
        let palette = &facts.object(me).palette;
        let colours = if facts.concept(me).says_colour {
            Vec::new()
        } else {
            std::iter::once(palette.first()).chain(palette.second()).collect()
        };
        let concept = facts.object(me).concept;
        Self { concept, colours, size: None, cell: None, relation: None, count: None }
    }

    /// `the small red kite at the top left, above the golden bell, one of four objects`
    pub(crate) fn text(&self, facts: &Facts<'_>) -> String {
        let mut out = self.name(facts, "");
        let mut clauses: Vec<String> = self.cell.map(|c| c.words().to_string()).into_iter().collect();
        clauses.extend(self.relation.map(|(relation, to)| relation_words(facts, relation, to)));
        if let Some(first) = clauses.first() {
            out = format!("{out} {first}");
        }
        clauses.extend(self.count.map(|n| format!("one of {} objects", number(n))));
        let comma = usize::from(self.cell.is_some() || self.relation.is_some());
        clauses[comma..].iter().fold(out, |out, clause| format!("{out}, {clause}"))
    }

    /// `the small flat red kite`, with `style` before the colours.
    pub(crate) fn name(&self, facts: &Facts<'_>, style: &str) -> String {
        let colours = self.colours.join(" and ");
        let size = self.size.map_or("", |(word, _)| word);
        let words = ["the", size, style, &colours, &facts.catalogue.concepts[self.concept].name];
        words.into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// Whether object `o` surely is not what is described.
    pub(crate) fn contradicted(&self, facts: &Facts<'_>, o: usize) -> bool {
        let object = facts.object(o);
        let kin = |concept: usize| &facts.catalogue.concepts[concept].kin;
        !kin(self.concept).related(kin(object.concept))
            || self.colours.iter().any(|c| object.palette.lacks(c))
            || self.size.is_some_and(|(_, size)| size.contradicted(object))
            || self.cell.is_some_and(|cell| cell.contradicted(object))
            || self.relation.is_some_and(|(r, to)| r.contradicted(o, object, to, facts.object(to)))
            || self.count.is_some_and(|n| facts.count().is_some_and(|counted| counted != n))
    }

    /// Whether no object of the scene is what is described.
    pub(crate) fn is_false(&self, facts: &Facts<'_>) -> bool {
        (0..facts.scene.objects.len()).all(|o| self.contradicted(facts, o))
    }

    /// Whether `me` alone is what is described.
    pub(crate) fn singles_out(&self, facts: &Facts<'_>, me: usize) -> bool {
        (0..facts.scene.objects.len()).all(|o| o == me || self.contradicted(facts, o))
    }
}

/// `above the golden bell`
pub(crate) fn relation_words(facts: &Facts<'_>, relation: Relation, to: usize) -> String {
    let mut other = Description::plain(facts, to);
    other.colours.truncate(1);
    format!("{} {}", relation.words(), other.name(facts, ""))
}

/// `four`
pub(crate) fn number(n: usize) -> &'static str {
    NUMBERS[n.min(NUMBERS.len() - 1)]
}

/// True relations of `me` to objects that can be told by their names alone; the clearest direction each, and hiding.
pub(crate) fn relations(facts: &Facts<'_>, me: usize) -> Vec<(Relation, usize)> {
    use super::scene::Effect::Faded;
    let kin = |i: usize| &facts.concept(i).kin;
    let alone = |&t: &usize| (0..facts.scene.objects.len()).all(|o| o == t || !kin(o).related(kin(t)));
    let mut out = Vec::new();
    for to in facts.spoken().into_iter().filter(|&t| t != me).filter(alone) {
        let [dx, dy] = [0, 1].map(|axis| facts.object(to).centre[axis] - facts.object(me).centre[axis]);
        let (along, ahead, back) = if dx.abs() >= dy.abs() {
            (dx, Relation::LeftOf, Relation::RightOf)
        } else {
            (dy, Relation::Above, Relation::Below)
        };
        if along.abs() > 0.1 {
            out.push((if along > 0.0 { ahead } else { back }, to));
        }
        // What shines through a half transparent cover is not hidden.
        if !facts.has(to, Faded) && facts.hidden_by(me).iter().any(|(o, _)| *o == to) {
            out.push((Relation::Behind, to));
        }
        if !facts.has(me, Faded) && facts.hides(me).contains(&to) {
            out.push((Relation::Over, to));
        }
    }
    out
}
