//! A prompt template: a plain file with a `[system]` part, if wished, and a `[user]` part, in the syntax of Jinja.

use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use std::collections::BTreeSet;

/// A template that was read.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    system: Option<String>,
    user: String,
    names: BTreeSet<String>,
    digest: String,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) system: Option<String>,
    pub(crate) user: String,
}

impl Template {
    /// Reads a template's text; in words what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (head, user) =
            text.split_once("[user]").ok_or("it has no line `[user]`; expected the words to the model below one")?;
        let system = match head.trim() {
            "" => None,
            head => {
                let words = head.strip_prefix("[system]");
                Some(words.ok_or("before `[user]` only a `[system]` part may stand")?.trim().to_owned())
            }
        };
        let user = user.trim().to_owned();
        let environment = environment();
        let mut names = BTreeSet::new();
        for part in system.iter().chain([&user]) {
            let parsed = environment.template_from_str(part).map_err(|e| e.to_string())?;
            names.extend(parsed.undeclared_variables(false));
        }
        let digest = blake3::hash(text.trim().as_bytes()).to_hex()[..16].to_owned();
        Ok(Self { system, user, names, digest })
    }

    /// The names that it reads.
    pub(crate) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Tells this text of the template from every other.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Fills in the values; in words which is missing.
    pub(crate) fn fill(&self, values: impl Serialize) -> Result<Prompt, String> {
        let environment = environment();
        let fill = |part: &str| environment.render_str(part, &values).map_err(|e| e.to_string());
        Ok(Prompt { system: self.system.as_deref().map(fill).transpose()?, user: fill(&self.user)? })
    }
}

/// A name without a value is an error: a prompt that asks about nothing would be answered.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_parts_are_filled_and_names_are_known() {
        let template =
            Template::parse("[system]\nBe brief.\n[user]\nIs {{ a }} so?{% if b %} And {{ b }}?{% endif %}\n");
        let template = template.expect("a template");
        assert_eq!(template.names().iter().collect::<Vec<_>>(), ["a", "b"]);
        let prompt = template.fill(json!({"a": "it", "b": null})).expect("filled");
        assert_eq!(prompt, Prompt { system: Some("Be brief.".into()), user: "Is it so?".into() });
    }

    #[test]
    fn what_is_not_there_is_an_error_and_not_an_empty_word() {
        let template = Template::parse("[user]\nIs {{ a }} so?").expect("a template");
        assert!(template.fill(json!({})).is_err());
        assert!(Template::parse("Is it so?").is_err());
        assert!(Template::parse("[user]\n{{ a").is_err());
    }
}
