//! English around names: articles, plurals, names that say a colour.

use super::colour::NAMES;

/// How a name behaves in a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// `a dog`
    Singular,
    /// `grapes`
    Plural,
    /// `bread`
    Mass,
}

/// Names without a plural and without an article.
const MASS: &[&str] = &[
    "bacon",
    "bread",
    "broccoli",
    "butter",
    "cooked rice",
    "coral",
    "curry rice",
    "custard",
    "fire",
    "flatbread",
    "fondue",
    "garlic",
    "ginger root",
    "ice",
    "leafy green",
    "luggage",
    "mate",
    "meat on bone",
    "oden",
    "popcorn",
    "sake",
    "salt",
    "shaved ice",
    "soap",
    "soft ice cream",
    "ice cream",
    "spaghetti",
    "sushi",
    "thread",
    "yarn",
    "wood",
    "canned food",
    "falafel",
];

/// Singular names that end in s.
const SINGULAR_S: &[&str] = &[
    "abacus",
    "bus",
    "cactus",
    "compass",
    "cross",
    "dress",
    "glass",
    "hibiscus",
    "hippopotamus",
    "lens",
    "lotus",
    "octopus",
    "oncoming bus",
    "rhinoceros",
    "trolleybus",
    "minibus",
    "walrus",
    "christmas",
    "magnifying glass",
];

/// Names that end in another way and are plural all the same.
const PLURAL: &[&str] = &["french fries", "crossed swords", "paw prints"];

/// How `name` behaves.
#[must_use]
pub fn number(name: &str) -> Number {
    let lower = name.to_lowercase();
    if MASS.contains(&lower.as_str()) {
        return Number::Mass;
    }
    // The head stands before the first preposition: `pot of food`, `hammer and pick`, `glass of milk`.
    let head = [" with ", " of ", " on ", " in ", " behind "]
        .iter()
        .filter_map(|p| lower.find(p))
        .min()
        .map_or(lower.as_str(), |at| &lower[..at]);
    let last = head.rsplit(' ').next().unwrap_or(head);
    let plural = PLURAL.contains(&head) || head.contains(" and ");
    let ends =
        last.ends_with('s') && !last.ends_with("ss") && !SINGULAR_S.contains(&head) && !SINGULAR_S.contains(&last);
    if plural || ends { Number::Plural } else { Number::Singular }
}

/// `phrase` with its indefinite article.
#[must_use]
pub fn indefinite(phrase: &str, number: Number) -> String {
    if number != Number::Singular {
        return phrase.to_string();
    }
    let first = phrase.split([' ', '-']).next().unwrap_or_default().to_lowercase();
    let vowel = first.starts_with(['a', 'e', 'i', 'o', 'u']);
    let sounds_like_you = ["uni", "uku", "euro", "one", "ute", "usu"].iter().any(|p| first.starts_with(p));
    let letter = matches!(first.as_str(), "x" | "f" | "l" | "m" | "n" | "s" | "r" | "hour" | "hourglass");
    if (vowel && !sounds_like_you) || letter { format!("an {phrase}") } else { format!("a {phrase}") }
}

/// Whether a name says a colour itself: `red apple`, `black cat`.
#[must_use]
pub fn says_colour(name: &str) -> bool {
    let plain = NAMES.iter().flat_map(|(n, _)| n.split(' ')).filter(|w| !["dark", "light", "pale"].contains(w));
    plain.chain(["gold", "silver"]).any(|c| name.to_lowercase().split([' ', '-']).any(|w| w == c))
}

/// Whether a name says a size itself: `small airplane`.
#[must_use]
pub fn says_size(name: &str) -> bool {
    name.to_lowercase().split([' ', '-']).any(|w| ["small", "little", "medium", "large", "big"].contains(&w))
}

/// About how many tokens a text encoder makes of a text: its words and its marks.
pub(crate) fn tokens(text: &str) -> usize {
    let marks = text.chars().filter(|c| c.is_ascii_punctuation()).count();
    // A mark within a word parts it as well: `t-shirt` is three tokens.
    let parted = |w: &&str| w.trim_matches(|c: char| c.is_ascii_punctuation()).contains(['-', '\'']);
    let within = text.split_whitespace().filter(parted).count();
    text.split_whitespace().count() + marks + within
}

/// The first letter made large.
#[must_use]
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// `a`, `a and b`, `a, b and c`; a repeated `a dog` becomes `another one`.
#[must_use]
pub fn list(items: &[String]) -> String {
    let mut said = Vec::new();
    let once = |item: &String| {
        let again = said.contains(item);
        said.push(item.clone());
        match (again, item.split(' ').next()) {
            (false, _) => item.clone(),
            (true, Some("a" | "an" | "another")) => "another one".to_string(),
            (true, _) => "some more".to_string(),
        }
    };
    let items: Vec<String> = items.iter().map(once).collect();
    match items.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_follow_sound_and_number() {
        for (name, expected) in [
            ("orange", "an orange"),
            ("unicorn", "a unicorn"),
            ("umbrella", "an umbrella"),
            ("hourglass done", "an hourglass done"),
            ("x-ray", "an x-ray"),
            ("grapes", "grapes"),
            ("bread", "bread"),
            ("one-piece swimsuit", "a one-piece swimsuit"),
            ("cactus", "a cactus"),
            ("glass of milk", "a glass of milk"),
            ("nest with eggs", "a nest with eggs"),
            ("hammer and pick", "hammer and pick"),
            ("confetti ball", "a confetti ball"),
            ("T-Rex", "a T-Rex"),
        ] {
            assert_eq!(indefinite(name, number(name)), expected);
        }
    }

    #[test]
    fn lists_do_not_repeat_themselves() {
        let items = ["a dog", "a cat", "a dog", "grapes", "grapes"].map(str::to_string);
        assert_eq!(list(&items), "a dog, a cat, another one, grapes and some more");
    }

    #[test]
    fn names_with_colours_are_known() {
        assert!(says_colour("red apple") && says_colour("black cat") && says_colour("orange book"));
        assert!(!says_colour("light bulb") && !says_colour("dog"));
    }
}
