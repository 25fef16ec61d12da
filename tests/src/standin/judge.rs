//! The stages without pictures: a judge that reads two texts and compares what they call the thing and its colours, and a writer
//! who joins texts. The judge knows nothing of what was planted: it misses what it cannot read.

use serde_json::json;

/// The composer's colours (`shards::mini::colour`), without their shades: this reader takes dark red for red.
const COLOURS: [&str; 17] = [
    "black",
    "grey",
    "white",
    "red",
    "pink",
    "orange",
    "brown",
    "beige",
    "golden",
    "yellow",
    "olive",
    "green",
    "teal",
    "turquoise",
    "blue",
    "purple",
    "lilac",
];

/// See the module.
pub(super) struct Judge {
    /// Longest first, so that `mouse face` is read before `mouse`.
    categories: Vec<String>,
}

impl Judge {
    pub(super) fn new(mut categories: Vec<String>) -> Self {
        categories.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Self { categories }
    }

    /// The answer to a stage that shows no picture; `None` for a question that is none of the recipe's.
    pub(super) fn answer(&self, words: &str) -> Option<String> {
        let after = |mark: &str| words.split_once(mark).map(|(_, rest)| rest.split('\n').next().unwrap_or_default());
        if let (Some(object), Some(context)) = (after("First: "), after("Second: ")) {
            let problem = self.disagree(object, context);
            let reason = problem.clone().unwrap_or_else(|| "both can be true of one object".into());
            return Some(json!({"ok": problem.is_none(), "reason": reason}).to_string());
        }
        if let (Some(object), Some(context)) = (after("How it looks: "), after("Where it is: ")) {
            return Some(format!("{}. {context}", object.trim_end_matches('.')));
        }
        if words.contains("Name this object in one noun phrase") {
            return words.split(['.', '\n']).next().map(|phrase| phrase.trim().to_owned());
        }
        None
    }

    /// What both texts say differently of the thing itself.
    fn disagree(&self, object: &str, context: &str) -> Option<String> {
        // Further sentences speak of the neighbours.
        let context = context.split(". ").next().unwrap_or_default();
        let (this, that) = (self.name(object), self.name(context));
        if let (Some(this), Some(that)) = (&this, &that)
            && this != that
        {
            return Some(format!("the first speaks of {this}, the second of {that}"));
        }
        let (these, those) = (colours(object, this), colours(context, that));
        let differ = !these.is_empty() && !those.is_empty() && these != those;
        differ.then(|| format!("the first says {}, the second {}", these.join(" and "), those.join(" and ")))
    }

    /// The name of a thing that stands first in the text.
    fn name(&self, text: &str) -> Option<&str> {
        let places = self.categories.iter().filter_map(|name| Some((text.find(name.as_str())?, name)));
        places.min_by_key(|(at, name)| (*at, std::cmp::Reverse(name.len()))).map(|(_, name)| name.as_str())
    }
}

/// The colours before the thing's name, in their order.
fn colours(text: &str, name: Option<&str>) -> Vec<&'static str> {
    let before = name.and_then(|name| text.split_once(name)).map_or(text, |(before, _)| before);
    let words = before.split(|c: char| !c.is_alphabetic());
    words.filter_map(|word| COLOURS.into_iter().find(|colour| *colour == word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(object: &str, context: &str) -> bool {
        let judge = Judge::new(["drum", "mouse", "mouse face", "airline seat"].map(str::to_owned).to_vec());
        let answer = judge.answer(&format!("First: {object}\nSecond: {context}\n")).expect("a verdict");
        serde_json::from_str::<serde_json::Value>(&answer).expect("JSON")["ok"].as_bool().expect("a bool")
    }

    #[test]
    fn it_reads_names_and_colours_and_nothing_else() {
        let context = "It is the red and white drum at the top. Below it there is a blue airline seat.";
        assert!(verdict("an outlined red and white drum", context));
        assert!(!verdict("a red and white mouse face", context));
        assert!(!verdict("a blue and white drum", context));
        assert!(verdict("the red and white drum at the bottom", context), "places are not compared");
    }
}
