//! Captions of a whole picture, true of its pixels: a short one of one sentence; a long one that begins with a summary
//! and goes on, in a second paragraph, from object to object.

use super::description::{Description, number, relation_words, relations};
use super::dice::Dice;
use super::facts::Facts;
use super::scene::Effect;
use super::templates as t;
use super::templates::fill;
use super::words::{Number, list, sentence, tokens};

/// Words and marks of a short caption at most: 30 tokens of CLIP.
const SHORT: usize = 25;
/// Words and marks that most long captions have at least, and may have.
const LONG: (f32, f32) = (95.0, 210.0);

/// Captions of one picture.
pub(crate) struct ImageCaptions {
    pub(crate) short: String,
    pub(crate) long: String,
}

/// The captions of the scene.
pub(crate) fn of(facts: &Facts<'_>, dice: &mut Dice) -> ImageCaptions {
    let (bg, spoken) = (facts.scene.background.as_str(), facts.spoken());
    let short = short(facts, &spoken, dice.pick(t::IMAGE_SHORT));
    let mut summary = vec![fill(dice.pick(t::OPENING), &[("bg", bg)])];
    for &i in &spoken {
        let adjective = facts.style_adjective(i, dice);
        summary.push(sentence(&format!("{} {} {}.", facts.phrase(i, adjective), be(facts, i), facts.position(i))));
    }
    let summary = summary.join(" ");
    let detail = detail(facts, &spoken, tokens(&summary), dice);
    ImageCaptions { short, long: format!("{summary}\n\n{detail}") }
}

/// The first that is short enough: all that the template says, without the background, with fewer colours, names alone.
fn short(facts: &Facts<'_>, spoken: &[usize], template: &str) -> String {
    let bg = facts.scene.background.as_str();
    let full = list(&spoken.iter().map(|&i| facts.phrase(i, "")).collect::<Vec<_>>());
    let first = list(&spoken.iter().map(|&i| facts.mention_alone(i)).collect::<Vec<_>>());
    let names: Vec<String> = spoken.iter().map(|&i| facts.bare(i)).collect();
    let tries = [
        fill(template, &[("all", &full), ("bg", bg)]),
        full,
        fill("{all} on {bg}", &[("all", &first), ("bg", bg)]),
        first,
        list(&names),
    ];
    let rest = || format!("{} and other things", names[..names.len().min(3)].join(", "));
    tries.into_iter().find(|text| tokens(text) <= SHORT).unwrap_or_else(rest)
}

/// A sentence an object, with as many of its attributes as the length drawn has room for.
fn detail(facts: &Facts<'_>, spoken: &[usize], said: usize, dice: &mut Dice) -> String {
    let wanted = (LONG.0 * (LONG.1 / LONG.0).powf(dice.unit())) as usize;
    let mut left: Vec<Vec<String>> = spoken.iter().map(|&i| attributes(facts, i, dice)).collect();
    let mut told: Vec<Vec<String>> = left.iter_mut().map(|all| all.pop().into_iter().collect()).collect();
    let subjects: Vec<String> = spoken.iter().map(|&i| subject(facts, i)).collect();
    let words = |texts: &[String]| texts.iter().map(|text| tokens(text) + 1).sum::<usize>();
    let mut total = said + words(&subjects) + told.iter().map(|all| words(all)).sum::<usize>() + spoken.len();
    // The objects take turns, so that a long caption tells much of all of them.
    while total < wanted && left.iter().any(|all| !all.is_empty()) {
        for (all, told) in left.iter_mut().zip(&mut told) {
            if let Some(next) = all.pop().filter(|_| total < wanted) {
                total += tokens(&next) + 1;
                told.push(next);
            }
        }
    }
    let mut out: Vec<String> = spoken
        .iter()
        .zip(subjects.iter().zip(&told))
        .map(|(&i, (subject, told))| sentence(&format!("{subject} {} {}.", be(facts, i), list(told))))
        .collect();
    if let Some(n) = facts.count().filter(|&n| n > 1) {
        out.push(fill(dice.pick(t::COUNT), &[("n", number(n))]));
    }
    out.join(" ")
}

/// `the red kite`, with its place where another one is like it.
fn subject(facts: &Facts<'_>, me: usize) -> String {
    let mut told = Description::plain(facts, me);
    told.colours.truncate(1);
    if !told.singles_out(facts, me) {
        told.cell = Some(super::description::Cell::of(facts.object(me)));
    }
    told.text(facts)
}

/// What one may say of an object after `is`, in a random order; relations come last, which is said first.
fn attributes(facts: &Facts<'_>, me: usize, dice: &mut Dice) -> Vec<String> {
    let object = facts.object(me);
    let tail = facts.style_tail(me, dice).replace(", ", " and ");
    let verb = ["drawn ", "painted ", "rendered ", "made "].iter().any(|v| tail.starts_with(v));
    let mut out = vec![if verb { tail } else { format!("shown {tail}") }];
    out.push(format!("about {} percent of the picture in area", (object.share() * 100.0).round().max(1.0) as u32));
    let (most, share) = object.palette.most();
    if share >= 0.3 {
        out.push(format!("mostly {most}"));
    }
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
    match facts.rank(me) {
        1 => out.push("larger than everything else".into()),
        -1 => out.push("smaller than everything else".into()),
        _ => {}
    }
    if object.hidden() < 0.005 {
        out.push("not covered by anything".into());
    }
    let mut near: Vec<String> = relations(facts, me).into_iter().map(|(r, to)| relation_words(facts, r, to)).collect();
    dice.shuffle(&mut near);
    let first = near.pop();
    out.extend(near);
    dice.shuffle(&mut out);
    out.extend(first);
    out
}

fn be(facts: &Facts<'_>, i: usize) -> &'static str {
    if facts.concept(i).number == Number::Plural { "are" } else { "is" }
}
