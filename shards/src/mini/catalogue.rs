//! What scenes are made of: concepts named by Unicode (crate `emojis`), each with one drawing a style, rasterized once.

use super::error::MiniError;
use super::kin::Kin;
use super::splits::{concept_held_out, name_key, style_held_out};
use super::sprite::Sprite;
use super::words::{Number, number, says_colour, says_size};
use emojis::{Emoji, Group};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A manner of drawing, one folder of drawings.
#[derive(Debug)]
pub struct Style {
    /// Name of the folder.
    pub folder: &'static str,
    /// Words before a name: `an outlined red apple`.
    pub adjectives: &'static [&'static str],
    /// Words after a name: `a red apple drawn with thick black outlines`.
    pub tails: &'static [&'static str],
}

/// The styles that are known.
pub const STYLES: [Style; 5] = [
    Style {
        folder: "openmoji",
        adjectives: &["outlined", "line-drawn", "black-outlined"],
        tails: &[
            "drawn with thick black outlines",
            "in an outlined style",
            "with a black contour",
            "as a line drawing",
        ],
    },
    Style {
        folder: "twemoji",
        adjectives: &["flat", "outline-free", "flat-coloured"],
        tails: &["drawn flat, without outlines", "in a flat style", "as a flat icon", "in plain flat colours"],
    },
    Style {
        folder: "noto",
        adjectives: &["painted", "softly shaded"],
        tails: &["painted with soft shading", "in a painted style", "with gentle gradients"],
    },
    Style {
        folder: "fluent-3d",
        adjectives: &["three-dimensional", "3D"],
        tails: &["rendered in three dimensions", "as a glossy 3D model", "in a 3D style"],
    },
    Style {
        folder: "fluent-flat",
        adjectives: &["poster-like", "cut-out"],
        tails: &["in a poster style", "made of bold flat shapes", "as a paper cut-out"],
    },
];

/// Scenes, skies, signs and near twins of others: nothing that one could point at by name.
const DROPPED: &[&str] = &[
    "o’clock",
    "-thirty",
    "moon",
    "globe",
    "map",
    "medal",
    "cityscape",
    "sunrise",
    "sunset",
    "night",
    "milky",
    "fog",
    "cyclone",
    "sun behind",
    "suit",
    "mahjong",
    "joker",
    "flower playing",
    "Tokyo",
    "Statue",
    "fuji",
    "national park",
    "speaker",
    "Japanese",
    "wind face",
    "arrow",
    "tray",
    "file",
    "page",
    "building construction",
    "construction",
    "landslide",
    "snowman without",
    "light rail",
    "oncoming",
    "hot springs",
    "water wave",
    "beach",
    "desert",
    "suspension",
    "cableway",
    "tramway",
    "departure",
    "arrival",
    "bell with slash",
    "low battery",
    "mailbox",
    "chart",
    "card index",
    "banknote",
    "calendar",
    "not done",
    "tilted right",
    "raised",
    "lowered",
    "incoming",
    "wedding",
    "love hotel",
    "ceremony",
    "locked",
    "linked",
    "hamsa",
    "performing arts",
    "fallen leaf",
    "fluttering",
    "front-facing",
    "cricket game",
    "motorway",
    "railway track",
    "mountain railway",
    "sparkles",
    "dizzy",
    "mate",
    "sari",
    "tanabata",
    "drop of blood",
    "petri",
    "derelict",
    "houses",
    "cooking",
    "pouring",
    "stuffed flatbread",
    "bubbles",
    "elevator",
    "orca",
];

/// Names that do not say what is drawn, and what is.
const RENAMED: &[(&str, &str)] = &[
    ("hourglass done", "hourglass"),
    ("high voltage", "lightning bolt"),
    ("pool 8 ball", "billiard ball"),
    ("tennis", "tennis racket"),
    ("field hockey", "field hockey stick"),
    ("ice hockey", "ice hockey stick"),
    ("lacrosse", "lacrosse stick"),
    ("ping pong", "table tennis bat"),
    ("badminton", "badminton racket"),
    ("bowling", "bowling ball"),
    ("baguette bread", "baguette"),
    ("dvd", "DVD"),
    ("e-mail", "envelope with the letter e"),
    ("x-ray", "x-ray image"),
    ("flag in hole", "golf flag"),
    ("magnifying glass tilted left", "magnifying glass"),
    ("thong sandal", "flip-flop"),
    ("game die", "die"),
    ("seat", "airline seat"),
    ("metro", "metro train"),
    ("camping", "campsite with a tent"),
    ("candy", "wrapped sweet"),
    ("shallow pan of food", "pan of food"),
    ("clinking beer mugs", "two clinking beer mugs"),
    ("clinking glasses", "two clinking glasses"),
    ("pick", "pickaxe"),
    ("headphone", "pair of headphones"),
    ("satellite antenna", "satellite dish"),
];

/// A drawing of a concept.
#[derive(Debug, Clone)]
pub struct Look {
    /// Index into [`STYLES`].
    pub style: usize,
    /// The drawing.
    pub sprite: Sprite,
    /// Kept for the split of held-out pairs.
    pub held_out: bool,
    /// Whether a turn by 70 degrees can be seen.
    pub shows_turn: bool,
    /// Whether a half turn can be seen.
    pub shows_half_turn: bool,
}

/// A thing with a name.
#[derive(Debug, Clone)]
pub struct Concept {
    /// Its name.
    pub name: String,
    /// How the name behaves.
    pub number: Number,
    /// Other names.
    pub aliases: Vec<String>,
    /// The family it belongs to: `animals and nature`.
    pub family: &'static str,
    /// Whether the name says a colour.
    pub says_colour: bool,
    /// Whether the name says a size.
    pub says_size: bool,
    /// Which other concepts may be called by its name.
    pub(crate) kin: Kin,
    /// Kept for the split of held-out concepts.
    pub held_out: bool,
    /// Its drawings, one a style.
    pub looks: Vec<Look>,
}

/// All concepts of a dataset, related ones side by side.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// The concepts.
    pub concepts: Vec<Concept>,
}

impl Catalogue {
    /// Loads at most `limit` concepts that every one of `styles` draws from the folders `drawings/<style>`.
    ///
    /// Which concepts a limit keeps is decided by their names: a larger limit keeps all of a smaller one's.
    ///
    /// # Errors
    /// A style that is not known, a folder that is not there, a drawing that does not decode, no concept left.
    pub fn load(drawings: &Path, styles: &[String], limit: usize) -> Result<Self, MiniError> {
        let mut folders = Vec::new();
        for name in styles {
            let style = STYLES.iter().position(|s| s.folder == name);
            let style = style.ok_or_else(|| MiniError::Style { name: name.clone() })?;
            folders.push((style, files(&drawings.join(name))?));
        }
        let mut found: Vec<(usize, &Emoji, Vec<(usize, PathBuf)>)> = candidates()
            .enumerate()
            .filter_map(|(order, emoji)| {
                let key = code_points(emoji.as_str());
                let looks: Option<Vec<_>> = folders.iter().map(|(s, f)| f.get(&key).map(|p| (*s, p.clone()))).collect();
                Some((order, emoji, looks.filter(|l| !l.is_empty())?))
            })
            .collect();
        found.sort_by_key(|(_, e, _)| name_key(e.name(), 0));
        found.truncate(limit);
        found.sort_by_key(|(order, ..)| *order);
        let concepts: Vec<Option<Concept>> =
            found.into_par_iter().map(|(_, emoji, paths)| concept(emoji, &paths)).collect::<Result<_, _>>()?;
        let concepts: Vec<Concept> = concepts.into_iter().flatten().collect();
        if concepts.len() < 8 {
            return Err(MiniError::TooFew { found: concepts.len(), folder: drawings.to_path_buf() });
        }
        Ok(Self { concepts })
    }
}

fn candidates() -> impl Iterator<Item = &'static Emoji> {
    let groups =
        [Group::AnimalsAndNature, Group::FoodAndDrink, Group::TravelAndPlaces, Group::Activities, Group::Objects];
    emojis::iter()
        .filter(move |e| groups.contains(&e.group()) && e.skin_tone().is_none())
        .filter(|e| !DROPPED.iter().any(|d| e.name().contains(d)))
}

fn family(group: Group) -> &'static str {
    match group {
        Group::AnimalsAndNature => "animals and nature",
        Group::FoodAndDrink => "food and drink",
        Group::TravelAndPlaces => "travel and places",
        Group::Activities => "games and celebrations",
        _ => "things of everyday use",
    }
}

fn concept(emoji: &Emoji, paths: &[(usize, PathBuf)]) -> Result<Option<Concept>, MiniError> {
    let unicode = emoji.name();
    let renamed = RENAMED.iter().find(|(from, _)| *from == unicode).map_or(unicode, |(_, to)| to);
    let name = renamed.replace('’', "'");
    let lacking = style_held_out(unicode, paths.len());
    let mut looks = Vec::new();
    for (i, (style, path)) in paths.iter().enumerate() {
        let Some(sprite) = sprite(path)? else {
            return Ok(None);
        };
        // A mean difference of a tenth is what one notices at the size of a stamp.
        let (shows_turn, shows_half_turn) = (sprite.turn_shows(70.0) > 0.12, sprite.turn_shows(180.0) > 0.12);
        looks.push(Look { style: *style, sprite, held_out: lacking == Some(i), shows_turn, shows_half_turn });
    }
    let words = |code: &str| code.replace(['_', '-'], " ");
    let other = |alias: &String| {
        let known = |word: &str| name.to_lowercase().contains(word);
        alias.len() > 2 && !alias.contains(|c: char| c.is_ascii_digit()) && !alias.split(' ').all(known)
    };
    let aliases: Vec<String> = emoji.shortcodes().map(words).filter(other).collect();
    Ok(Some(Concept {
        number: number(&name),
        kin: Kin::of([name.as_str(), unicode].into_iter().chain(aliases.iter().map(String::as_str))),
        aliases,
        family: family(emoji.group()),
        says_colour: says_colour(&name),
        says_size: says_size(&name),
        held_out: concept_held_out(unicode),
        looks,
        name,
    }))
}

fn sprite(path: &Path) -> Result<Option<Sprite>, MiniError> {
    let bytes = std::fs::read(path).map_err(|source| MiniError::Read { path: path.to_path_buf(), source })?;
    if path.extension().is_some_and(|e| e == "svg") {
        Sprite::from_svg(&bytes).map_err(|source| MiniError::Svg { path: path.to_path_buf(), source })
    } else {
        Sprite::from_image(&bytes).map_err(|source| MiniError::Picture { path: path.to_path_buf(), source })
    }
}

/// The drawings of a folder by code points.
fn files(folder: &Path) -> Result<HashMap<String, PathBuf>, MiniError> {
    let missing = |source| MiniError::Folder { path: folder.to_path_buf(), source };
    let mut out = HashMap::new();
    for entry in std::fs::read_dir(folder).map_err(missing)? {
        let path = entry.map_err(missing)?.path();
        let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if let (true, Some(stem)) = (["svg", "png", "webp"].contains(&kind), path.file_stem().and_then(|s| s.to_str()))
        {
            let key: Vec<String> =
                stem.to_lowercase().split('-').filter(|c| *c != "fe0f").map(str::to_string).collect();
            out.insert(key.join("-"), path);
        }
    }
    Ok(out)
}

/// `1f408-2b1b`: what file names of all sets agree on, the presentation selector left out.
fn code_points(emoji: &str) -> String {
    let codes: Vec<String> =
        emoji.chars().filter(|&c| c != '\u{fe0f}').map(|c| format!("{:x}", u32::from(c))).collect();
    codes.join("-")
}
