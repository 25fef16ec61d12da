//! Referring expressions of a region: a short one of a few attributes, from which hard negatives are made, and a long
//! one of all that tells the region from the rest of its picture.

use super::description::{Cell, Description, Size, number, relation_words, relations};
use super::dice::Dice;
use super::facts::Facts;
use super::scene::Effect;
use super::words::tokens;

/// A long expression has at least and at most as many words and marks: 20 to 60 tokens of CLIP.
const LONG: (usize, usize) = (20, 48);

/// A short expression of `me`: name and colours, and one to three of size, place, relation and number, more where
/// these do not single it out.
pub(crate) fn short(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> Description {
    let object = facts.object(me);
    let mut told = Description::plain(facts, me);
    let cell = Some(Cell::of(object));
    let size = size(facts, me, dice);
    let all = relations(facts, me);
    let relation = (!all.is_empty()).then(|| all[dice.below(all.len())]);
    let count = facts.count().filter(|&n| n > 1);
    let mut order = [0, 1, 2, 3];
    dice.shuffle(&mut order);
    let add = |told: &mut Description, which: usize| {
        let before = told.clone();
        match which {
            0 => told.cell = cell,
            1 => told.size = size,
            2 => told.relation = relation,
            _ => told.count = count,
        }
        *told != before
    };
    let mut wanted = 1 + dice.below(3);
    for which in order {
        if wanted > 0 && add(&mut told, which) {
            wanted -= 1;
        }
    }
    for which in [0, 1, 2] {
        if !told.singles_out(facts, me) {
            add(&mut told, which);
        }
    }
    // The number of objects alone is no way to point at one.
    if told.cell.is_none() && told.size.is_none() && told.relation.is_none() {
        told.cell = cell;
    }
    told
}

/// A long expression of `me`: its name with all attributes, its place, and clauses up to the length drawn.
pub(crate) fn long(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> String {
    let mut told = Description::plain(facts, me);
    told.size = size(facts, me, dice);
    let tail = dice.chance(0.5);
    let style = if tail { "" } else { facts.style_adjective(me, dice) };
    let mut out = format!("{} {}", told.name(facts, style), Cell::of(facts.object(me)).words());
    let mut clauses = clauses(facts, me);
    if tail {
        clauses.push(facts.style_tail(me, dice).to_string());
    }
    dice.shuffle(&mut clauses);
    let wanted = LONG.0 + dice.below(LONG.1 - LONG.0 - 8);
    for clause in clauses {
        let more = format!("{out}, {clause}");
        if tokens(&out) < wanted && tokens(&more) <= LONG.1 {
            out = more;
        }
    }
    out
}

/// What else is true of an object, as clauses that follow a noun.
pub(crate) fn clauses(facts: &Facts<'_>, me: usize) -> Vec<String> {
    let object = facts.object(me);
    let mut out: Vec<String> =
        relations(facts, me).into_iter().map(|(relation, to)| relation_words(facts, relation, to)).collect();
    out.push(format!("on {}", facts.scene.background));
    out.push(format!("covering about {} percent of the picture", (object.share() * 100.0).round().max(1.0) as u32));
    match facts.turn(me) {
        Some((180, _)) => out.push("turned upside down".into()),
        Some((angle, way)) => out.push(format!("turned {way} by about {angle} degrees")),
        None => {}
    }
    match object.effect {
        Effect::Grey => out.push("shown in shades of grey".into()),
        Effect::Faded => out.push("half transparent".into()),
        Effect::None => {}
    }
    if object.hidden() < 0.005 {
        out.push("with nothing in front of it".into());
    }
    if let Some(n) = facts.count().filter(|&n| n > 1) {
        out.push(format!("one of {} objects in the picture", number(n)));
    }
    match facts.rank(me) {
        1 => out.push("larger than everything else".into()),
        -1 => out.push("smaller than everything else".into()),
        _ => {}
    }
    out
}

/// A word for the size of `me`, where it has a clear one and its name says none.
fn size(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> Option<(&'static str, Size)> {
    let size = Size::of(facts.object(me)).filter(|_| !facts.concept(me).says_size);
    let fitting: Vec<_> = Size::WORDS.into_iter().filter(|(_, s)| Some(*s) == size).collect();
    (!fitting.is_empty()).then(|| fitting[dice.below(fitting.len())])
}
