//! Captions of a region, true of the pixels: short (the object alone), context (its surroundings), long (both). Every
//! third long caption says what the object is only at its end.

use super::colour::NAMES;
use super::dice::Dice;
use super::facts::{Distinction, Facts};
use super::scene::Effect;
use super::templates as t;
use super::templates::fill;
use super::words::{Number, list, sentence};

/// The captions of one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captions {
    /// The object alone.
    pub short: String,
    /// Its surroundings; the object is not named.
    pub context: String,
    /// Both.
    pub long: String,
    /// What hard negatives may put in the place of what is true.
    pub(crate) swaps: Swaps,
}

/// Colours and concepts that are not the object's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Swaps {
    pub(crate) colours: Vec<&'static str>,
    /// Indices into the catalogue's concepts.
    pub(crate) concepts: Vec<usize>,
}

/// The captions of object `me`.
pub(crate) fn region(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> Captions {
    let short = short(facts, me, dice);
    let context = context(facts, me, dice);
    let long = long(facts, me, dice);
    Captions { short, context, long, swaps: swaps(facts, me, dice) }
}

fn short(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> String {
    let distinction = facts.distinction(me);
    let other_style = facts.twins(me).iter().any(|&o| facts.look(o).style != facts.look(me).style);
    let styled = other_style || dice.chance(0.7);
    let (before, after) = match distinction {
        Some(Distinction::Before(word)) => (word, String::new()),
        Some(Distinction::After(words)) => ("", format!(" {words}")),
        None => ("", String::new()),
    };
    if styled && after.is_empty() && dice.chance(0.35) {
        let np = facts.phrase(me, before);
        return fill(dice.pick(t::SHORT_TAIL), &[("np", &np), ("tail", facts.style_tail(me, dice))]);
    }
    let style = if styled { facts.style_adjective(me, dice) } else { "" };
    let np = facts.phrase(me, format!("{before} {style}").trim());
    fill(dice.pick(t::SHORT), &[("np", &(np + &after))])
}

/// One thing to say about an object, and whether saying it tells what the object is.
struct Say {
    text: String,
    telling: bool,
}

fn context(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> String {
    let mut sentences = surroundings(facts, me, dice);
    sentences.push(background(facts, dice));
    dice.shuffle(&mut sentences);
    sentences.truncate(1 + dice.below(4));
    sentences.insert(0, position(facts, me, dice));
    join(&sentences)
}

fn long(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> String {
    let late = dice.chance(1.0 / 3.0);
    // Words, spread evenly on a logarithmic scale: some captions are a line, some are a page.
    let target = (10.0 * 15f32.powf(dice.unit())) as usize;
    let adjective = facts.style_adjective(me, dice);
    let np = facts.phrase(me, adjective);
    let identity = |templates: &[&str], dice: &mut Dice| Say {
        text: fill(dice.pick(templates), &[("np", &np), ("Np", &sentence(&np))]),
        telling: true,
    };
    let mut pool = surroundings(facts, me, dice);
    pool.push(position(facts, me, dice));
    if !late {
        pool.push(background(facts, dice));
    }
    pool.extend(looks(facts, me, dice));
    pool.extend(measures(facts, me, dice));
    dice.shuffle(&mut pool);
    let named = if late { identity(t::LATE, dice) } else { identity(t::IDENTITY, dice) };
    let opening = fill(dice.pick(t::OPENING), &[("bg", &facts.scene.background)]);
    let mut words = count(&named.text) + if late { count(&opening) } else { 0 };
    pool.retain(|say| {
        let room = words < target;
        words += if room { count(&say.text) } else { 0 };
        room
    });
    if !late {
        pool.insert(0, named);
        return join(&pool);
    }
    // What tells the object comes after everything else, its name first.
    let (mut telling, mut rest): (Vec<Say>, Vec<Say>) = pool.into_iter().partition(|s| s.telling);
    rest.insert(0, Say { text: opening, telling: false });
    telling.insert(0, named);
    rest.extend(telling);
    join(&rest)
}

fn position(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> Say {
    Say { text: fill(dice.pick(t::POSITION), &[("pos", facts.position(me))]), telling: false }
}

fn background(facts: &Facts<'_>, dice: &mut Dice) -> Say {
    Say { text: fill(dice.pick(t::BACKGROUND), &[("bg", &facts.scene.background)]), telling: false }
}

/// Sentences of the surroundings; none names the object itself.
fn surroundings(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> Vec<Say> {
    let mut out: Vec<String> = Vec::new();
    let others: Vec<usize> = facts.spoken().into_iter().filter(|&o| o != me).collect();
    for &o in &others {
        let (dir, other) = (facts.direction(me, o), facts.mention(me, o));
        let start = sentence(dir.of);
        let values =
            [("Dir", start.as_str()), ("other", &other), ("opposite", dir.back), ("opposite_short", dir.back_short)];
        out.push(fill(dice.pick(t::NEIGHBOUR), &values));
    }
    // What shines through a half transparent cover is not hidden.
    for (o, share) in facts.hidden_by(me).into_iter().filter(|(o, _)| !facts.has(*o, Effect::Faded)) {
        let other = facts.mention(me, o);
        out.push(fill(
            dice.pick(t::HIDDEN),
            &[("p", &rounded(share)), ("other", &other), ("Other", &sentence(&other))],
        ));
    }
    if facts.object(me).hidden() < 0.005 {
        out.push(dice.pick(t::UNCOVERED).to_string());
    }
    for o in facts.hides(me) {
        out.push(fill(dice.pick(t::IN_FRONT), &[("other", &facts.mention(me, o))]));
    }
    if others.len() > 1 {
        let all: Vec<String> = others.iter().map(|&o| facts.mention(me, o)).collect();
        out.push(fill(dice.pick(t::OTHERS), &[("others", &list(&all))]));
    }
    if let Some(n) = facts.count() {
        out.push(fill(dice.pick(t::COUNT), &[("n", ["no", "one", "two", "three", "four", "five"][n.min(5)])]));
    }
    match facts.rank(me) {
        1 => out.push(dice.pick(t::LARGEST).to_string()),
        -1 => out.push(dice.pick(t::SMALLEST).to_string()),
        _ => {}
    }
    out.into_iter().map(|text| Say { text, telling: false }).collect()
}

/// Sentences of what the object is and looks like.
fn looks(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> Vec<Say> {
    let (object, concept) = (facts.object(me), facts.concept(me));
    let palette = &object.palette;
    let mut out = vec![fill(dice.pick(t::STYLE), &[("tail", facts.style_tail(me, dice))])];
    out.push(fill(dice.pick(t::FAMILY), &[("family", concept.family)]));
    if !concept.aliases.is_empty() {
        let alias = &concept.aliases[dice.below(concept.aliases.len())];
        out.push(fill(dice.pick(t::ALIAS), &[("alias", alias)]));
    }
    let c1 = palette.first();
    out.push(match palette.second() {
        Some(c2) => fill(dice.pick(t::TWO_COLOURS), &[("c1", c1), ("C1", &sentence(c1)), ("c2", c2)]),
        None => fill(dice.pick(t::ONE_COLOUR), &[("c1", c1), ("C1", &sentence(c1))]),
    });
    let (most, share) = palette.most();
    if share >= 0.2 {
        out.push(fill(dice.pick(t::COLOUR_SHARE), &[("p", &rounded(share)), ("c", most)]));
    }
    match facts.turn(me) {
        Some((180, _)) => out.push(dice.pick(t::HALF_TURN).to_string()),
        Some((angle, way)) => {
            out.push(fill(dice.pick(t::TURNED), &[("way", way), ("angle", &angle.to_string())]));
        }
        None => {}
    }
    if facts.has(me, Effect::Grey) {
        out.push(dice.pick(t::GREY).to_string());
    }
    if facts.has(me, Effect::Faded) {
        out.push(dice.pick(t::FADED).to_string());
    }
    out.into_iter().map(|text| Say { text, telling: true }).collect()
}

/// Sentences of its size and of its twins.
fn measures(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> Vec<Say> {
    let object = facts.object(me);
    let mut out = Vec::new();
    let area = (object.share() * 100.0).round().max(1.0) as u32;
    out.push(Say { text: fill(dice.pick(t::AREA), &[("p", &area.to_string())]), telling: false });
    let [x1, y1, x2, y2] = object.bbox.map(|v| ((v * 100.0).round() as u32).to_string());
    let edges = [("x1", x1.as_str()), ("x2", &x2), ("y1", &y1), ("y2", &y2)];
    out.push(Say { text: fill(dice.pick(t::EXTENT), &edges), telling: false });
    if let (&[twin], Number::Singular) = (facts.twins(me).as_slice(), facts.concept(me).number) {
        let ratio = facts.object(twin).visible as f32 / object.visible.max(1) as f32;
        let compare = match ratio {
            r if r > 1.3 => "larger than it",
            r if r < 0.77 => "smaller than it",
            _ => "of about the same size",
        };
        let place = facts.position(twin);
        let values = [("name", facts.concept(me).name.as_str()), ("compare", compare), ("where", place)];
        out.push(Say { text: fill(dice.pick(t::TWIN), &values), telling: true });
    }
    out
}

/// Replacements for hard negatives. They are drawn here and in this number because a region's captions follow on the
/// draws of the one before: captions of a seed stay what they were.
fn swaps(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> Swaps {
    let (object, concept) = (facts.object(me), facts.concept(me));
    let mut others: Vec<String> = facts
        .spoken()
        .into_iter()
        .filter(|&o| facts.object(o).concept != object.concept)
        .map(|o| facts.phrase(o, ""))
        .take(3)
        .collect();
    others.dedup();
    let restyled = concept.looks.iter().any(|l| l.style != facts.look(me).style);
    dice.skip(1 + usize::from(restyled));
    let all = &facts.catalogue.concepts;
    let mut out = Swaps::default();
    let mut drawn = others.len() + usize::from(restyled);
    while drawn < 10 {
        let (name, _) = NAMES[dice.below(NAMES.len())];
        let fresh = if drawn.is_multiple_of(2) && !concept.says_colour {
            let fresh = !object.palette.has(name, 0.08) && !out.colours.contains(&name);
            out.colours.extend(fresh.then_some(name));
            fresh
        } else {
            let other = (object.concept + 1 + dice.below(all.len() - 1)) % all.len();
            let fresh = out.concepts.iter().all(|&c| all[c].name != all[other].name);
            out.concepts.extend(fresh.then_some(other));
            fresh
        };
        drawn += usize::from(fresh);
    }
    out
}

fn join(sentences: &[Say]) -> String {
    let mut out = String::new();
    let mut named = false;
    for say in sentences {
        let it = if named { ["It", "it"] } else { ["The object", "the object"] };
        if !out.is_empty() {
            out.push(' ');
        }
        let text = say.text.replace("{It}", it[0]);
        // Before anything was named, a bare `it` would hang in the air.
        let text = match (named || say.telling, text.strip_prefix("Its ")) {
            (true, _) => text,
            (false, Some(rest)) => format!("The object's {rest}"),
            (false, None) => text.replacen(" it ", " the object ", 1).replacen(" it.", " the object.", 1),
        };
        named |= text.to_lowercase().contains("the object") || say.telling;
        out.push_str(&text);
    }
    out
}

/// A share as percent, to fives.
fn rounded(share: f32) -> String {
    (((share * 20.0).round() * 5.0).clamp(5.0, 100.0) as u32).to_string()
}

fn count(text: &str) -> usize {
    text.split(' ').count()
}
