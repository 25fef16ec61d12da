//! The sentences of captions. `{...}` are filled by `caption`; `{It}` and `{it}` become `The object` and `the object`
//! where nothing was named before. Each list says one thing in several ways.

/// Short captions; `{np}` is an indefinite noun phrase with colours and style.
pub(crate) const SHORT: &[&str] = &[
    "{np}",
    "{np}",
    "{np}",
    "{np}",
    "{np}",
    "{np}",
    "a drawing of {np}",
    "a picture of {np}",
    "here is {np}",
    "one can see {np}",
];

/// Short captions with the style after the name; `{np}` has no style.
pub(crate) const SHORT_TAIL: &[&str] = &["{np} {tail}", "{np}, {tail}", "a drawing of {np} {tail}"];

pub(crate) const IDENTITY: &[&str] = &[
    "This is {np}.",
    "The marked region shows {np}.",
    "What is marked here is {np}.",
    "The object in question is {np}.",
    "One sees {np} here.",
    "In the marked place the picture shows {np}.",
    "The mask covers {np}.",
    "The region contains {np}.",
    "We are looking at {np}.",
    "{Np}.",
    "Pointed out here: {np}.",
];

pub(crate) const ALIAS: &[&str] = &[
    "Another name for it is {alias}.",
    "Some would call it {alias}.",
    "It also goes by the name of {alias}.",
    "In other words: {alias}.",
];

pub(crate) const FAMILY: &[&str] =
    &["{It} belongs to the world of {family}.", "Its family is that of {family}.", "One would file it under {family}."];

pub(crate) const STYLE: &[&str] = &[
    "{It} is shown {tail}.",
    "The artist made it {tail}.",
    "As for the manner, it comes {tail}.",
    "One finds it {tail}.",
];

pub(crate) const ONE_COLOUR: &[&str] = &[
    "Its most striking colour is {c1}.",
    "{C1} is the colour that strikes the eye.",
    "The colour one notices first is {c1}.",
];

pub(crate) const TWO_COLOURS: &[&str] = &[
    "Its main colours are {c1} and {c2}.",
    "{It} is coloured {c1} and {c2}.",
    "{C1} and {c2} are its colours.",
    "Apart from {c1} there is also {c2} in it.",
];

pub(crate) const COLOUR_SHARE: &[&str] = &[
    "About {p} percent of its visible pixels are {c}.",
    "Roughly {p} percent of what one sees of it is {c}.",
    "Counted by area, some {p} percent of it is {c}.",
];

pub(crate) const AREA: &[&str] = &[
    "{It} takes up about {p} percent of the picture.",
    "{It} covers roughly {p} percent of the image.",
    "Its area is about {p} percent of the whole picture.",
    "Some {p} percent of the picture belong to it.",
];

pub(crate) const EXTENT: &[&str] = &[
    "From left to right it reaches from {x1} to {x2} percent of the width, from top to bottom from {y1} to {y2} percent of the height.",
    "Its outline lies between {x1} and {x2} percent of the width and between {y1} and {y2} percent of the height.",
];

pub(crate) const LARGEST: &[&str] = &[
    "No other object in the picture is larger.",
    "{It} is the largest object in sight.",
    "Nothing else in the picture takes up as much room.",
];

pub(crate) const SMALLEST: &[&str] = &[
    "No other object in the picture is smaller.",
    "{It} is the smallest object in sight.",
    "Everything else in the picture takes up more room.",
];

pub(crate) const POSITION: &[&str] = &[
    "{It} is {pos} of the picture.",
    "{It} lies {pos} of the scene.",
    "One finds it {pos} of the image.",
    "Its place is {pos} of the picture.",
    "Look for it {pos} of the scene.",
];

pub(crate) const TURNED: &[&str] = &[
    "{It} has been turned {way} by about {angle} degrees.",
    "The drawing leans {way}, by about {angle} degrees.",
    "Someone has rotated it {way} by some {angle} degrees.",
];

pub(crate) const HALF_TURN: &[&str] =
    &["{It} has been turned upside down.", "The drawing stands on its head.", "It is shown the wrong way up."];

pub(crate) const GREY: &[&str] =
    &["{It} is shown in shades of grey.", "All its colours have been taken out.", "It has been drained of colour."];

pub(crate) const FADED: &[&str] =
    &["{It} is half transparent.", "The background shines through it.", "It looks faded, as if made of glass."];

pub(crate) const UNCOVERED: &[&str] = &["Nothing covers it.", "It can be seen whole.", "No part of it is hidden."];

pub(crate) const HIDDEN: &[&str] = &[
    "About {p} percent of it is hidden behind {other}.",
    "{Other} covers roughly {p} percent of it.",
    "Some {p} percent of it disappears behind {other}.",
];

pub(crate) const IN_FRONT: &[&str] =
    &["{It} partly covers {other}.", "It lies in front of {other}.", "Behind it, {other} can be seen in part."];

pub(crate) const NEIGHBOUR: &[&str] = &[
    "{Dir} it one finds {other}.",
    "{Dir} it there is {other}.",
    "{Dir} it the scene shows {other}.",
    "{It} is {opposite} {other}.",
    "Seen from {other}, it is {opposite_short}.",
];

pub(crate) const TWIN: &[&str] = &[
    "There is another {name} in the picture, {compare}, {where}.",
    "It is not the only {name}: another one, {compare}, is {where}.",
    "Do not mistake it for the other {name}, {compare}, {where}.",
];

pub(crate) const COUNT: &[&str] = &[
    "The picture shows {n} objects in all.",
    "All in all, {n} objects can be counted.",
    "There are {n} objects in the scene.",
];

pub(crate) const OTHERS: &[&str] = &[
    "The rest of the scene shows {others}.",
    "Elsewhere in the picture one sees {others}.",
    "Its company: {others}.",
    "The scene also contains {others}.",
];

pub(crate) const BACKGROUND: &[&str] = &[
    "The scene is set on {bg}.",
    "All of this stands before {bg}.",
    "Behind everything lies {bg}.",
    "The picture has {bg}.",
];

/// How a caption whose identity comes late begins.
pub(crate) const OPENING: &[&str] = &[
    "A composed picture on {bg}.",
    "The picture is a collage of drawings before {bg}.",
    "A scene of a few separate drawings, set on {bg}.",
    "Several drawings have been put on {bg}.",
];

/// Identity at the end of a caption.
pub(crate) const LATE: &[&str] = &[
    "The object that all this is about is {np}.",
    "And what is it? {Np}.",
    "It is {np}.",
    "In short, {np}.",
    "The answer: {np}.",
    "What the region shows, then, is {np}.",
];

pub(crate) const IMAGE_SHORT: &[&str] = &["{all}", "{all} on {bg}", "a picture of {all}", "a collage of {all} on {bg}"];

/// Replaces each `{key}`.
pub(crate) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = template.to_string();
    for (key, value) in values {
        out = out.replace(&format!("{{{key}}}"), value);
    }
    debug_assert!(!out.replace("{It}", "").contains('{'), "unfilled: {out}");
    out
}
