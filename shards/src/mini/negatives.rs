//! Ten hard negatives of a region in the manner of FineHARD (method.md 3.4): its short expression with one attribute
//! changed, each false of everything in its scene.

use super::caption::Swaps;
use super::colour::{NAMES, alike};
use super::description::{Cell, Description, Relation, Size};
use super::dice::Dice;
use super::facts::Facts;
use crate::hard_neg::HardNegKind;

/// Hard negatives of a region: FG-CLIP chooses among these and the positive.
pub const PER_REGION: usize = 10;
/// Concepts that are tried beyond those of the scene and the captions.
const TRIES: usize = 40;

/// Ten changes of `told`, an expression of `me`, with what each changes; none where there are no ten that are false
/// beyond doubt.
pub(crate) fn ten(
    facts: &Facts<'_>,
    me: usize,
    told: &Description,
    swaps: &Swaps,
    dice: &mut Dice,
) -> Vec<(HardNegKind, String)> {
    let mut kinds = HardNegKind::ALL;
    dice.shuffle(&mut kinds);
    let mut queues: Vec<(HardNegKind, std::vec::IntoIter<Description>)> =
        kinds.into_iter().map(|kind| (kind, changes(facts, me, told, kind, swaps, dice).into_iter())).collect();
    let mut out: Vec<(HardNegKind, String)> = Vec::with_capacity(PER_REGION);
    // The kinds take turns, so that none crowds out the others.
    while out.len() < PER_REGION {
        let before = out.len();
        for (kind, queue) in &mut queues {
            let mut wrong = queue.filter(|changed| changed.is_false(facts)).map(|changed| changed.text(facts));
            let fresh = wrong.find(|text| out.iter().all(|(_, other)| other != text));
            out.extend(fresh.map(|text| (*kind, text)));
        }
        if out.len() == before {
            return Vec::new();
        }
    }
    out.truncate(PER_REGION);
    dice.shuffle(&mut out);
    out
}

/// All changes of one kind, in a random order, the ones most like the scene first.
fn changes(
    facts: &Facts<'_>,
    me: usize,
    told: &Description,
    kind: HardNegKind,
    swaps: &Swaps,
    dice: &mut Dice,
) -> Vec<Description> {
    let with = |change: &dyn Fn(&mut Description)| {
        let mut changed = told.clone();
        change(&mut changed);
        changed
    };
    let mut out: Vec<Description> = match kind {
        HardNegKind::Colour => return colours(told, swaps, dice),
        HardNegKind::Identity => return identities(facts, me, told, swaps, dice),
        HardNegKind::Size => {
            let others = Size::WORDS.iter().filter(|w| told.size.is_some_and(|(_, size)| size != w.1));
            others.map(|&word| with(&|d| d.size = Some(word))).collect()
        }
        HardNegKind::Position => {
            let others = Cell::all().filter(|&c| told.cell.is_some_and(|cell| cell != c));
            others.map(|cell| with(&|d| d.cell = Some(cell))).collect()
        }
        HardNegKind::Count => {
            let others = (2..=6).filter(|&n| told.count.is_some_and(|count| count != n));
            others.map(|n| with(&|d| d.count = Some(n))).collect()
        }
        HardNegKind::Relation => {
            let Some((relation, to)) = told.relation else { return Vec::new() };
            let others = Relation::ALL.into_iter().filter(|&r| r != relation);
            others.map(|r| with(&|d| d.relation = Some((r, to)))).collect()
        }
    };
    dice.shuffle(&mut out);
    out
}

/// One of the colours for another one, those drawn with the captions first.
fn colours(told: &Description, swaps: &Swaps, dice: &mut Dice) -> Vec<Description> {
    let mut rest = NAMES.map(|(name, _)| name);
    dice.shuffle(&mut rest);
    let mut out = Vec::new();
    for name in swaps.colours.iter().copied().chain(rest) {
        if told.colours.iter().any(|told| alike(told, name)) {
            continue;
        }
        let Some(at) = (!told.colours.is_empty()).then(|| dice.below(told.colours.len())) else { break };
        let mut changed = told.clone();
        changed.colours[at] = name;
        out.push(changed);
    }
    out
}

/// The name of another thing: one of the scene, one drawn with the captions, any other.
fn identities(facts: &Facts<'_>, me: usize, told: &Description, swaps: &Swaps, dice: &mut Dice) -> Vec<Description> {
    let all = &facts.catalogue.concepts;
    let mine = facts.concept(me);
    let mut tried: Vec<usize> =
        facts.spoken().into_iter().map(|o| facts.object(o).concept).chain(swaps.concepts.iter().copied()).collect();
    dice.shuffle(&mut tried);
    tried.extend((0..TRIES).map(|_| dice.below(all.len())));
    let fits = |&c: &usize| {
        let other = &all[c];
        let beside = told.relation.is_some_and(|(_, to)| facts.concept(to).kin.related(&other.kin));
        let akin = other.kin.related(&mine.kin) || beside;
        let said_twice = (other.says_colour && !told.colours.is_empty()) || (other.says_size && told.size.is_some());
        // What training shall never have heard of is not in its negatives either.
        let unheard = other.held_out && !mine.held_out;
        !akin && !said_twice && !unheard
    };
    tried.into_iter().filter(fits).take(2 * PER_REGION).map(|concept| Description { concept, ..told.clone() }).collect()
}

#[cfg(test)]
mod tests;
