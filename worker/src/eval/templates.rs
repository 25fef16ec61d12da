//! Prompts that stand around a text: a category's, an expression's. A text's feature is the mean of the unit features of its
//! prompts, made unit again (CLIP's `zeroshot_classifier`).

use anyhow::{Context, Result, ensure};

/// Where the text stands in a prompt.
const PLACE: &str = "{}";

/// The prompts that are built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prompts {
    /// The text alone.
    Bare,
    /// `a photo of {}` (ReCLIP's expressions).
    PhotoOf,
    /// `a photo of a {}.` alone.
    Plain,
    /// OpenAI's 80 for ImageNet.
    Imagenet80,
}

impl Prompts {
    const ALL: [Self; 4] = [Self::Bare, Self::PhotoOf, Self::Plain, Self::Imagenet80];

    /// What may be typed; the first is as keys of `report.json` end.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Bare => &["none"],
            Self::PhotoOf => &["photo-of"],
            Self::Plain => &["plain", "one"],
            Self::Imagenet80 => &["80", "openai80"],
        }
    }

    fn texts(self) -> Vec<&'static str> {
        match self {
            Self::Bare => vec![PLACE],
            Self::PhotoOf => vec!["a photo of {}"],
            Self::Plain => vec!["a photo of a {}."],
            Self::Imagenet80 => include_str!("templates.txt").lines().filter(|line| !line.starts_with('#')).collect(),
        }
    }
}

/// Prompts with the name by which results tell them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Templates {
    name: String,
    prompts: Vec<String>,
}

impl Templates {
    /// Those that are built in.
    pub(crate) fn of(prompts: Prompts) -> Self {
        let texts = prompts.texts().into_iter().map(str::to_owned).collect();
        Self { name: prompts.names()[0].into(), prompts: texts }
    }

    /// By name, or of a file with a prompt a line; lines that begin with `#` are left out.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that has not one `{}`.
    pub(crate) fn open(typed: &str) -> Result<Self> {
        if let Some(known) = Prompts::ALL.into_iter().find(|p| p.names().contains(&typed)) {
            return Ok(Self::of(known));
        }
        let failed = || format!("--templates {typed}: expected none, photo-of, one, openai80, or a file of prompts");
        let text = std::fs::read_to_string(typed).with_context(failed)?;
        let prompts: Vec<String> =
            text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()).map(str::to_owned).collect();
        ensure!(!prompts.is_empty(), "{typed} holds no prompt; expected one a line, with {PLACE} for the text");
        for (line, prompt) in prompts.iter().enumerate() {
            let found = prompt.matches(PLACE).count();
            ensure!(found == 1, "{typed}: prompt {} (`{prompt}`) has {found} `{PLACE}`, expected one", line + 1);
        }
        let name = std::path::Path::new(typed).file_stem().map_or_else(|| typed.into(), |s| s.to_string_lossy().into());
        Ok(Self { name, prompts })
    }

    /// As results tell them.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.prompts.len()
    }

    /// In words, for people.
    pub(crate) fn words(&self) -> String {
        match self.prompts.as_slice() {
            [one] if one == PLACE => "the text alone".into(),
            [one] => format!("`{one}`"),
            all => format!("mean of {} prompts ({})", all.len(), self.name),
        }
    }

    /// The prompts with `text` in its place.
    pub(crate) fn fill<'t>(&'t self, text: &'t str) -> impl Iterator<Item = String> + 't {
        self.prompts.iter().map(move |prompt| prompt.replace(PLACE, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_eighty_prompts_each_with_a_place_for_the_category() {
        let all = Templates::open("openai80").expect("built in");
        assert_eq!((all.name(), all.len(), all.prompts.iter().collect::<BTreeSet<_>>().len()), ("80", 80, 80));
        assert!(all.prompts.iter().all(|p| p.matches(PLACE).count() == 1));
        let one = Templates::open("one").expect("built in");
        assert_eq!(
            (one.name(), one.fill("kite").collect::<Vec<_>>()),
            ("plain", vec!["a photo of a kite.".to_owned()])
        );
        assert!(all.prompts.contains(&one.prompts[0]));
        assert_eq!(Templates::of(Prompts::Bare).fill("a {kite}").next().as_deref(), Some("a {kite}"));
    }

    #[test]
    fn a_file_has_a_prompt_a_line_and_each_a_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("mine.txt");
        std::fs::write(&path, "# mine\na drawing of a {}.\n\nmany {}\n").expect("written");
        let mine = Templates::open(path.to_str().expect("text")).expect("good");
        assert_eq!((mine.name(), mine.len()), ("mine", 2));
        std::fs::write(&path, "a drawing of a {}.\na kite\n").expect("written");
        let error = Templates::open(path.to_str().expect("text")).expect_err("no place").to_string();
        assert!(error.contains("prompt 2 (`a kite`) has 0 `{}`"), "{error}");
        assert!(Templates::open("oneandonly").expect_err("no such file").to_string().contains("openai80"));
    }
}
