//! Hard negatives judged by a reader of their text who knows the scene's pixels and nothing of how they were made.

use super::super::tests::setup;
use super::super::{Catalogue, MiniConfig, Split, compose, row};
use super::PER_REGION;
use crate::hard_neg::{HardNegCounts, HardNegKind};
use crate::mini::colour::NAMES;
use crate::mini::scene::{Object, Scene};
use crate::row::{ImageRow, Region};
use std::collections::HashSet;
use std::sync::LazyLock;

/// What a reader takes from an expression.
#[derive(Debug, Clone, PartialEq)]
struct Read<'a> {
    size: &'a str,
    colours: Vec<&'static str>,
    name: &'a str,
    place: &'a str,
    /// Relation and the name of what it is to.
    relation: Option<(&'static str, &'a str)>,
    count: Option<usize>,
}

const SIZES: [(&str, f32, f32); 5] = [
    ("small", 0.0, 0.036),
    ("little", 0.0, 0.036),
    ("medium-sized", 0.032, 0.075),
    ("large", 0.072, 1.0),
    ("big", 0.072, 1.0),
];
/// Words, then where the centre may lie: left, right, top, bottom.
const PLACES: [(&str, [f32; 4]); 9] = [
    ("at the top left", [0.0, 0.449, 0.0, 0.449]),
    ("at the top right", [0.551, 1.0, 0.0, 0.449]),
    ("at the bottom left", [0.0, 0.449, 0.551, 1.0]),
    ("at the bottom right", [0.551, 1.0, 0.551, 1.0]),
    ("at the top", [0.0, 1.0, 0.0, 0.449]),
    ("at the bottom", [0.0, 1.0, 0.551, 1.0]),
    ("on the left", [0.0, 0.449, 0.0, 1.0]),
    ("on the right", [0.551, 1.0, 0.0, 1.0]),
    ("in the middle", [0.281, 0.719, 0.281, 0.719]),
];
const RELATIONS: [&str; 6] =
    ["to the left of", "to the right of", "above", "below", "partly hidden behind", "partly covering"];

/// All ways to read `text`: `black bird` may be a name, or a colour and a name.
fn readings<'a>(text: &'a str, catalogue: &'a Catalogue) -> Vec<Read<'a>> {
    let mut rest = text.strip_prefix("the ").expect("an article");
    let mut count = None;
    if let Some((before, number)) = rest.split_once(", one of ") {
        let number = number.strip_suffix(" objects").expect("a number of objects");
        count = ["", "", "two", "three", "four", "five", "six"].iter().position(|n| *n == number);
        assert!(count.is_some(), "{text}");
        rest = before;
    }
    let mut relation = None;
    for words in RELATIONS {
        if let Some((before, other)) = rest.split_once(&format!(" {words} the ")) {
            let of = names(other, catalogue).into_iter().filter(|(_, after)| after.is_empty()).map(|(n, _)| n);
            // Its colour comes before its name.
            relation = Some((words, of.max_by_key(|n| n.len()).expect("a name")));
            rest = before.trim_end_matches(',');
        }
    }
    let size = SIZES.iter().map(|s| s.0).find(|s| rest.starts_with(&format!("{s} "))).unwrap_or_default();
    rest = rest[size.len()..].trim_start();
    let mut out = Vec::new();
    for (colours, rest) in coloured(rest) {
        for concept in &catalogue.concepts {
            let Some(after) = rest.strip_prefix(concept.name.as_str()) else { continue };
            if let Some(place) = std::iter::once("").chain(PLACES.map(|p| p.0)).find(|p| after.trim_start() == *p) {
                out.push(Read { size, colours: colours.clone(), name: &concept.name, place, relation, count });
            }
        }
    }
    assert!(!out.is_empty(), "nobody can read `{text}`");
    out
}

/// Names that `text` may end with, after words of colour.
fn names<'a>(text: &'a str, catalogue: &'a Catalogue) -> Vec<(&'a str, &'a str)> {
    let starts = coloured(text).into_iter().flat_map(|(_, rest)| {
        catalogue.concepts.iter().filter_map(move |c| Some((c.name.as_str(), rest.strip_prefix(c.name.as_str())?)))
    });
    starts.collect()
}

/// `text` without colours, without its first one, without its first two.
fn coloured(text: &str) -> Vec<(Vec<&'static str>, &str)> {
    let mut out = vec![(Vec::new(), text)];
    for (first, _) in NAMES {
        let Some(rest) = text.strip_prefix(first) else { continue };
        out.extend(rest.strip_prefix(' ').map(|rest| (vec![first], rest)));
        for (second, _) in NAMES {
            let rest = rest.strip_prefix(" and ").and_then(|rest| rest.strip_prefix(second)?.strip_prefix(' '));
            out.extend(rest.map(|rest| (vec![first, second], rest)));
        }
    }
    out
}

/// What one sees of an object, measured on the picture.
struct Sight<'a> {
    name: &'a str,
    object: &'a Object,
    centre: [f32; 2],
    seen: f32,
    whole: f32,
    /// Shares of the pixels that one might call by each name: at a glance, and with some good will.
    colours: [Vec<f32>; 2],
}

fn sights<'a>(scene: &'a Scene, catalogue: &'a Catalogue) -> Vec<Sight<'a>> {
    let side = scene.image.width as usize;
    let sight = |object: &'a Object| {
        let inside: Vec<usize> = (0..side * side).filter(|&at| object.mask.data[at] > 127).collect();
        let n = inside.len().max(1) as f32;
        let mut colours = [vec![0.0; NAMES.len()], vec![0.0; NAMES.len()]];
        for &at in &inside {
            let far = distances([0, 1, 2].map(|c| scene.image.data[3 * at + c]));
            let least = far.into_iter().fold(f64::MAX, f64::min);
            for (shares, slack) in colours.iter_mut().zip([3.0, 14.0]) {
                for (share, far) in shares.iter_mut().zip(far) {
                    *share += if far <= least + slack { 1.0 / n } else { 0.0 };
                }
            }
        }
        let mean = |of: fn(usize, usize) -> usize| {
            inside.iter().map(|&at| of(at, side) as f32 + 0.5).sum::<f32>() / n / side as f32
        };
        let pixels = (side * side) as f32;
        let centre = [mean(|at, side| at % side), mean(|at, side| at / side)];
        let (seen, whole) = (inside.len() as f32 / pixels, object.whole as f32 / pixels);
        Sight { name: &catalogue.concepts[object.concept].name, object, centre, seen, whole, colours }
    };
    scene.objects.iter().map(sight).collect()
}

/// sRGB -> CIELAB, D65, straight from its definition.
fn lab(rgb: [u8; 3]) -> [f64; 3] {
    let v = rgb.map(|v| f64::from(v) / 255.0);
    let v = v.map(|v| if v > 0.04045 { ((v + 0.055) / 1.055).powf(2.4) } else { v / 12.92 });
    let edge = 6.0f64 / 29.0;
    let f = |t: f64| if t > edge.powi(3) { t.cbrt() } else { t / (3.0 * edge * edge) + 4.0 / 29.0 };
    let x = f((0.4124564 * v[0] + 0.3575761 * v[1] + 0.1804375 * v[2]) / 0.95047);
    let y = f(0.2126729 * v[0] + 0.7151522 * v[1] + 0.0721750 * v[2]);
    let z = f((0.0193339 * v[0] + 0.1191920 * v[1] + 0.9503041 * v[2]) / 1.08883);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// Distances of a colour to all names.
fn distances(rgb: [u8; 3]) -> [f64; NAMES.len()] {
    static NAMED: LazyLock<[[f64; 3]; NAMES.len()]> = LazyLock::new(|| NAMES.map(|(_, named)| lab(named)));
    let p = lab(rgb);
    NAMED.map(|named| named.iter().zip(p).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt())
}

/// Whether anyone might say `read` of object `me`; with `good_will`, of a colour that is not quite the one named.
fn might_be(read: &Read<'_>, me: usize, all: &[Sight<'_>], good_will: bool) -> bool {
    let sight = &all[me];
    let colours = |c: &&str| {
        sight.colours[usize::from(good_will)][NAMES.iter().position(|(n, _)| n == c).expect("a colour")] > 0.04
    };
    let size =
        SIZES.iter().find(|s| s.0 == read.size).is_none_or(|&(_, low, high)| sight.whole >= low && sight.seen <= high);
    let place = PLACES.iter().find(|p| p.0 == read.place).is_none_or(|(_, [left, right, top, bottom])| {
        (*left..=*right).contains(&sight.centre[0]) && (*top..=*bottom).contains(&sight.centre[1])
    });
    let relation = read.relation.is_none_or(|(relation, name)| {
        (0..all.len()).filter(|&to| to != me && same(all[to].name, name)).any(|to| related(relation, me, to, all))
    });
    same(sight.name, read.name)
        && read.colours.iter().all(colours)
        && size
        && place
        && relation
        && read.count.is_none_or(|n| n == all.len())
}

fn related(relation: &str, me: usize, to: usize, all: &[Sight<'_>]) -> bool {
    let (a, b) = (all[me].centre, all[to].centre);
    match relation {
        "to the left of" => a[0] < b[0] - 0.021,
        "to the right of" => a[0] > b[0] + 0.021,
        "above" => a[1] < b[1] - 0.021,
        "below" => a[1] > b[1] + 0.021,
        "partly hidden behind" => all[me].object.hidden_by[to] > 0,
        _ => all[to].object.hidden_by[me] > 0,
    }
}

/// Whether a thing called `a` might be called `b`: they have a word in common that tells something.
fn same(a: &str, b: &str) -> bool {
    let plain = |w: &str| w.trim_end_matches('s').to_lowercase();
    let colour = |w: &str| NAMES.iter().any(|(name, _)| *name == w);
    let telling = |w: &&str| w.len() > 3 && !["with", "without", "face"].contains(w) && !colour(w);
    let shared = |w: &str| b.split([' ', '-']).any(|v| plain(w) == plain(v));
    a == b || a.split([' ', '-']).filter(telling).any(shared)
}

/// The attributes in which two readings differ.
fn differences(a: &Read<'_>, b: &Read<'_>) -> Vec<HardNegKind> {
    [
        (HardNegKind::Colour, a.colours != b.colours),
        (HardNegKind::Size, a.size != b.size),
        (HardNegKind::Position, a.place != b.place),
        (HardNegKind::Count, a.count != b.count),
        (HardNegKind::Identity, a.name != b.name),
        (HardNegKind::Relation, a.relation != b.relation),
    ]
    .into_iter()
    .filter_map(|(kind, differs)| differs.then_some(kind))
    .collect()
}

/// Scenes whose first composition has a region, with their rows.
fn scenes(catalogue: &Catalogue, config: &MiniConfig) -> Vec<(Scene, ImageRow)> {
    let of = |(split, n): (Split, u64)| {
        (0..n).map(move |i| (compose(catalogue, config, split, i), row(catalogue, config, split, i).expect("composes")))
    };
    let all = [(Split::Train, 250), (Split::HeldoutPairs, 40), (Split::HeldoutConcepts, 40)].into_iter().flat_map(of);
    all.filter(|(scene, _)| scene.objects.iter().any(Object::is_region)).collect()
}

/// The kinds of changes of one region, every one of its texts checked.
fn check(region: &Region, me: usize, all: &[Sight<'_>], catalogue: &Catalogue, others: &HashSet<&String>) {
    let text = region.short_expr.as_ref().expect("an expression");
    let positive = readings(text, catalogue).into_iter().find(|r| r.name == all[me].name).expect("its own name");
    assert!(might_be(&positive, me, all, true), "not true of its region: {text}");
    assert_eq!(region.hard_negs.len(), region.hard_neg_kinds.len());
    assert!(region.hard_negs.iter().collect::<HashSet<_>>().len() == region.hard_negs.len(), "{:?}", region.hard_negs);
    for (negative, &kind) in region.hard_negs.iter().zip(&region.hard_neg_kinds) {
        let changed = readings(negative, catalogue).into_iter().find(|r| differences(&positive, r) == [kind]);
        let changed = changed.unwrap_or_else(|| panic!("`{negative}` differs from `{text}` in more than its {kind}"));
        let true_of = (0..all.len()).find(|&o| might_be(&changed, o, all, false)).map(|o| all[o].name);
        assert_eq!(true_of, None, "`{negative}`, made of `{text}`, might be said of it");
        assert!(negative != text && !others.contains(negative), "{negative}");
    }
}

#[test]
fn every_negative_is_false_in_its_scene_and_changes_one_attribute() {
    let (_dir, catalogue, config) = setup();
    let mut counts = HardNegCounts::default();
    for (scene, row) in scenes(&catalogue, &config) {
        let all = sights(&scene, &catalogue);
        let true_texts: HashSet<&String> =
            row.regions.iter().flat_map(|r| [&r.short_expr, &r.long_expr, &r.caption_object]).flatten().collect();
        let spoken = (0..scene.objects.len()).filter(|&i| scene.objects[i].is_region());
        for (region, me) in row.regions.iter().zip(spoken) {
            assert_eq!(region.bbox, scene.objects[me].bbox);
            assert!([0, PER_REGION].contains(&region.hard_negs.len()));
            check(region, me, &all, &catalogue, &true_texts);
            counts.add(region);
        }
    }
    assert!(counts.with_negatives * 10 >= counts.regions * 9, "{counts}");
    assert!(counts.kinds.iter().all(|&n| n * 20 >= counts.negatives), "{counts}");
}

#[test]
fn training_never_hears_of_concepts_that_are_held_out() {
    let (_dir, catalogue, config) = setup();
    let held: Vec<&str> = catalogue.concepts.iter().filter(|c| c.held_out).map(|c| c.name.as_str()).collect();
    for i in 0..60 {
        for region in row(&catalogue, &config, Split::Train, i).expect("composes").regions {
            for text in &region.hard_negs {
                assert!(readings(text, &catalogue).iter().any(|r| !held.contains(&r.name)), "{text}");
            }
        }
    }
}

#[test]
fn texts_have_the_lengths_that_towers_are_made_for() {
    let (_dir, catalogue, config) = setup();
    let words = |text: &Option<String>| text.as_ref().expect("a text").split_whitespace().count();
    let mut image_long = Vec::new();
    for (_, row) in scenes(&catalogue, &config) {
        assert!(words(&row.caption_short) <= 26, "{:?}", row.caption_short);
        assert!(!row.caption_short.as_ref().expect("a caption").contains(". "), "one sentence");
        image_long.push(words(&row.caption_long));
        for region in &row.regions {
            assert!((4..=28).contains(&words(&region.short_expr)), "{:?}", region.short_expr);
            assert!((14..=50).contains(&words(&region.long_expr)), "{:?}", region.long_expr);
        }
        let texts = [&row.caption_short, &row.caption_long]
            .into_iter()
            .chain(row.regions.iter().flat_map(|r| [&r.short_expr, &r.long_expr]));
        for text in texts.flatten() {
            assert!(!text.contains(['{', '}']) && !text.contains("  ") && text.trim() == text, "{text}");
        }
    }
    image_long.sort_unstable();
    let at = |percent: usize| image_long[image_long.len() * percent / 100];
    assert!(at(5) >= 60 && (85..=170).contains(&at(50)) && at(95) <= 215, "{} {} {}", at(5), at(50), at(95));
}
