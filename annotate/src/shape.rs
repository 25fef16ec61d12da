//! What an answer must look like: its JSON schema for servers that can hold to one, and the check of what came back.

use pixfleet_shards::HardNegKind;
use serde::Deserialize;
use serde_json::{Value, json};

/// Hard negatives of a region (FineHARD, method.md 3.4).
pub(crate) const NEGATIVES: usize = 10;
/// Longest text that a stage may write, in characters.
const TEXT_MAX: usize = 8192;
/// Most expressions of one picture.
const EXPRESSIONS_MAX: usize = 64;

/// The shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// Plain words.
    Text,
    /// `{"ok": bool, "reason": string}`
    Verdict,
    /// `{"expressions": [{"short": string, "long": string}]}`
    Expressions,
    /// `{"negatives": [{"text": string, "kind": string}]}`, ten of them.
    Negatives,
    /// `{"ok": [bool]}`, one for each negative.
    Verdicts,
}

/// A referring expression of something in a picture, short and long.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expression {
    pub(crate) short: String,
    pub(crate) long: String,
}

/// An answer that has its shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Text(String),
    Verdict { ok: bool, reason: String },
    Expressions(Vec<Expression>),
    Negatives(Vec<(String, HardNegKind)>),
    Verdicts(Vec<bool>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerdictJson {
    ok: bool,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpressionsJson {
    expressions: Vec<Expression>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NegativesJson {
    negatives: Vec<NegativeJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NegativeJson {
    text: String,
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerdictsJson {
    ok: Vec<bool>,
}

impl Shape {
    /// Its JSON schema; `None` for plain words.
    pub(crate) fn schema(self) -> Option<Value> {
        let object = |properties: Value| {
            let required: Vec<&String> = properties.as_object().into_iter().flat_map(|o| o.keys()).collect();
            json!({"type": "object", "required": required, "additionalProperties": false, "properties": properties})
        };
        let text = || json!({"type": "string"});
        let exactly = |of: Value| json!({"type": "array", "minItems": NEGATIVES, "maxItems": NEGATIVES, "items": of});
        match self {
            Self::Text => None,
            Self::Verdict => Some(object(json!({"ok": {"type": "boolean"}, "reason": text()}))),
            Self::Expressions => {
                let item = object(json!({"short": text(), "long": text()}));
                let list = json!({"type": "array", "maxItems": EXPRESSIONS_MAX, "items": item});
                Some(object(json!({"expressions": list})))
            }
            Self::Negatives => {
                let kinds = HardNegKind::ALL.map(HardNegKind::name);
                let item = object(json!({"text": text(), "kind": {"type": "string", "enum": kinds}}));
                Some(object(json!({"negatives": exactly(item)})))
            }
            Self::Verdicts => Some(object(json!({"ok": exactly(json!({"type": "boolean"}))}))),
        }
    }

    /// Reads an answer; in words what is wrong with it, for whoever gave it to do it again.
    pub(crate) fn read(self, text: &str) -> Result<Answer, String> {
        match self {
            Self::Text => words(text, "the answer").map(Answer::Text),
            Self::Verdict => {
                let VerdictJson { ok, reason } = parse(text)?;
                Ok(Answer::Verdict { ok, reason: reason.chars().take(TEXT_MAX).collect() })
            }
            Self::Expressions => {
                let ExpressionsJson { expressions } = parse(text)?;
                at_most(expressions.len(), EXPRESSIONS_MAX, "expressions")?;
                let checked = expressions.into_iter().enumerate().map(|(i, e)| {
                    let short = words(&e.short, &format!("expressions[{i}].short"))?;
                    Ok(Expression { short, long: words(&e.long, &format!("expressions[{i}].long"))? })
                });
                checked.collect::<Result<_, String>>().map(Answer::Expressions)
            }
            Self::Negatives => negatives(text),
            Self::Verdicts => {
                let VerdictsJson { ok } = parse(text)?;
                exactly(ok.len(), "ok")?;
                Ok(Answer::Verdicts(ok))
            }
        }
    }
}

fn negatives(text: &str) -> Result<Answer, String> {
    let NegativesJson { negatives } = parse(text)?;
    exactly(negatives.len(), "negatives")?;
    let mut read: Vec<(String, HardNegKind)> = Vec::with_capacity(NEGATIVES);
    for (i, NegativeJson { text, kind }) in negatives.into_iter().enumerate() {
        let text = words(&text, &format!("negatives[{i}].text"))?;
        if read.iter().any(|(seen, _)| *seen == text) {
            return Err(format!("negatives[{i}].text says the same as one before: `{text}`"));
        }
        let kind = HardNegKind::parse(&kind)
            .ok_or_else(|| format!("negatives[{i}].kind is `{kind}`; expected one of {}", HardNegKind::names()))?;
        read.push((text, kind));
    }
    Ok(Answer::Negatives(read))
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader)
        .map_err(|e| format!("the answer is not the JSON that was asked for: {e}"))
}

fn words(text: &str, what: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("{what} is empty"));
    }
    match text.chars().count() {
        found if found > TEXT_MAX => Err(format!("{what} has {found} characters; at most {TEXT_MAX} are taken")),
        _ => Ok(text.to_owned()),
    }
}

fn exactly(found: usize, what: &str) -> Result<(), String> {
    if found == NEGATIVES { Ok(()) } else { Err(format!("`{what}` has {found} entries; expected {NEGATIVES}")) }
}

fn at_most(found: usize, limit: usize, what: &str) -> Result<(), String> {
    if found <= limit { Ok(()) } else { Err(format!("`{what}` has {found} entries; at most {limit} are taken")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_their_shape_are_read() {
        assert_eq!(Shape::Text.read("  a red kite \n"), Ok(Answer::Text("a red kite".into())));
        let verdict = Shape::Verdict.read(r#"{"ok": false, "reason": "another colour"}"#);
        assert_eq!(verdict, Ok(Answer::Verdict { ok: false, reason: "another colour".into() }));
        let ten = (0..10).map(|i| json!({"text": format!("a kite {i}"), "kind": "colour"})).collect::<Vec<_>>();
        let read = Shape::Negatives.read(&json!({"negatives": ten}).to_string());
        assert!(matches!(read, Ok(Answer::Negatives(n)) if n.len() == 10 && n[0].1 == HardNegKind::Colour));
    }

    #[test]
    fn what_is_wrong_is_told_in_words() {
        let said = |shape: Shape, text: &str| shape.read(text).expect_err("refused");
        assert!(said(Shape::Text, "  ").contains("empty"));
        assert!(said(Shape::Verdict, "Sure! {\"ok\": true}").contains("not the JSON"));
        assert!(said(Shape::Verdict, r#"{"ok": "yes", "reason": ""}"#).contains("ok"));
        assert!(said(Shape::Verdicts, r#"{"ok": [true]}"#).contains("1 entries; expected 10"));
        let same = vec![json!({"text": "a kite", "kind": "colour"}); 10];
        assert!(said(Shape::Negatives, &json!({"negatives": same}).to_string()).contains("same as one before"));
        let mut kinds: Vec<_> = (0..10).map(|i| json!({"text": format!("{i}"), "kind": "size"})).collect();
        kinds[3]["kind"] = json!("taste");
        assert!(
            said(Shape::Negatives, &json!({"negatives": kinds}).to_string()).contains("negatives[3].kind is `taste`")
        );
    }

    #[test]
    fn schemas_ask_for_what_is_read() {
        assert_eq!(Shape::Text.schema(), None);
        for shape in [Shape::Verdict, Shape::Expressions, Shape::Negatives, Shape::Verdicts] {
            let schema = shape.schema().expect("a schema");
            assert_eq!(schema["additionalProperties"], json!(false));
            assert_eq!(schema["required"].as_array().map(Vec::len), schema["properties"].as_object().map(|p| p.len()));
        }
    }
}
