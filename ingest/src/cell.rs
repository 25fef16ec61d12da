//! A value of a record, whatever format it came from: what JSON has, and bytes. What is not as a format says is a
//! [`Wrong`], which names the field, what stands there, and what was expected.

use crate::reject::RejectKind;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Characters of a foreign text that a message shows.
const SHOWN: usize = 180;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Bool(bool),
    Whole(i64),
    Number(f64),
    Text(String),
    Bytes(Bytes),
    List(Vec<Cell>),
    Map(Vec<(String, Cell)>),
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wrong {
    pub(crate) kind: RejectKind,
    pub(crate) field: String,
    pub(crate) found: String,
    pub(crate) expected: String,
}

impl Wrong {
    pub(crate) fn new(
        kind: RejectKind,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self { kind, field: field.into(), found: shown(&found.into()), expected: expected.into() }
    }

    /// The same, of a field within `parent`.
    pub(crate) fn within(mut self, parent: &str) -> Self {
        self.field = if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        self
    }
}

impl Cell {
    /// The value of one JSON text.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, Wrong> {
        let wrong = |error: serde_json::Error| {
            Wrong::new(RejectKind::Syntax, "", format!("{error}: {}", String::from_utf8_lossy(json)), "a JSON object")
        };
        match serde_json::from_slice(json).map_err(wrong)? {
            map @ Self::Map(_) => Ok(map),
            other => Err(Wrong::new(RejectKind::Syntax, "", other.told(), "a JSON object")),
        }
    }

    /// The member `name` of a map; `None` if there is none, or it is null.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(members) = self else { return None };
        members.iter().find(|(n, _)| n == name).map(|(_, cell)| cell).filter(|cell| **cell != Self::Null)
    }

    /// The member at `path`: its name as it is, else part by part between dots.
    pub(crate) fn at(&self, path: &str) -> Option<&Self> {
        self.get(path).or_else(|| {
            let (first, rest) = path.split_once('.')?;
            self.get(first)?.at(rest)
        })
    }

    /// In words, for messages.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Bool(value) => value.to_string(),
            Self::Whole(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(text) => format!("the text `{}`", shown(text)),
            Self::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Self::List(cells) => format!("a list of {}", cells.len()),
            Self::Map(members) => format!("an object of {}", members.len()),
        }
    }

    fn wrong(&self, field: &str, expected: &str) -> Wrong {
        Wrong::new(RejectKind::Field, field, self.told(), expected)
    }

    pub(crate) fn as_number(&self, field: &str) -> Result<f64, Wrong> {
        match self {
            Self::Whole(value) => Ok(*value as f64),
            Self::Number(value) => Ok(*value),
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::Bytes(_) | Self::List(_) | Self::Map(_) => {
                Err(self.wrong(field, "a number"))
            }
        }
    }

    /// A whole number; also one that stands as text, as some writers have ids.
    pub(crate) fn as_whole(&self, field: &str) -> Result<i64, Wrong> {
        let found = match self {
            Self::Whole(value) => Some(*value),
            Self::Number(value) => (value.fract() == 0.0 && value.abs() < 9e15).then_some(*value as i64),
            Self::Text(text) => text.parse().ok(),
            Self::Null | Self::Bool(_) | Self::Bytes(_) | Self::List(_) | Self::Map(_) => None,
        };
        found.ok_or_else(|| self.wrong(field, "a whole number"))
    }

    pub(crate) fn as_text(&self, field: &str) -> Result<String, Wrong> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Null
            | Self::Bool(_)
            | Self::Whole(_)
            | Self::Number(_)
            | Self::Bytes(_)
            | Self::List(_)
            | Self::Map(_) => Err(self.wrong(field, "a text")),
        }
    }

    pub(crate) fn as_list(&self, field: &str) -> Result<&[Self], Wrong> {
        match self {
            Self::List(cells) => Ok(cells),
            Self::Null
            | Self::Bool(_)
            | Self::Whole(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::Map(_) => Err(self.wrong(field, "a list")),
        }
    }

    pub(crate) fn as_numbers(&self, field: &str) -> Result<Vec<f64>, Wrong> {
        self.as_list(field)?.iter().enumerate().map(|(i, c)| c.as_number(&format!("{field}[{i}]"))).collect()
    }
}

/// The number in `map`, if there is one.
pub(crate) fn number(map: &Cell, field: &str) -> Result<Option<f64>, Wrong> {
    map.at(field).map(|cell| cell.as_number(field)).transpose()
}

/// The whole number in `map`, if there is one.
pub(crate) fn whole(map: &Cell, field: &str) -> Result<Option<i64>, Wrong> {
    map.at(field).map(|cell| cell.as_whole(field)).transpose()
}

/// The text in `map`, if there is one.
pub(crate) fn text(map: &Cell, field: &str) -> Result<Option<String>, Wrong> {
    map.at(field).map(|cell| cell.as_text(field)).transpose()
}

/// The texts in `map`; none if there is no list.
pub(crate) fn texts(map: &Cell, field: &str) -> Result<Vec<String>, Wrong> {
    let Some(cell) = map.at(field) else { return Ok(Vec::new()) };
    cell.as_list(field)?.iter().enumerate().map(|(i, c)| c.as_text(&format!("{field}[{i}]"))).collect()
}

/// The list in `map`; empty if there is none.
pub(crate) fn list<'a>(map: &'a Cell, field: &str) -> Result<&'a [Cell], Wrong> {
    map.at(field).map_or(Ok(&[]), |cell| cell.as_list(field))
}

/// What must be there.
pub(crate) fn needed<T>(found: Option<T>, field: &str, expected: &str) -> Result<T, Wrong> {
    found.ok_or_else(|| Wrong::new(RejectKind::Field, field, "nothing", expected))
}

/// The start of a text that may be long.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Whole(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Cell, E> {
        Ok(i64::try_from(value).map_or(Cell::Number(value as f64), Cell::Whole))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Number(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Cell, E> {
        Ok(Cell::Text(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Cell, E> {
        Ok(Cell::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Cell, A::Error> {
        let mut cells = Vec::new();
        while let Some(cell) = items.next_element()? {
            cells.push(cell);
        }
        Ok(Cell::List(cells))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Cell, A::Error> {
        let mut members = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            members.push(entry);
        }
        Ok(Cell::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let cell = Cell::parse(br#"{"a": {"b": [1, "x"]}, "n": 3.5, "id": "17"}"#).expect("JSON");
        let error = cell.at("a.b").expect("there").as_numbers("a.b").expect_err("a text in it");
        assert_eq!((error.field.as_str(), error.found.as_str()), ("a.b[1]", "the text `x`"));
        assert_eq!((whole(&cell, "id"), number(&cell, "n")), (Ok(Some(17)), Ok(Some(3.5))));
        assert_eq!(whole(&cell, "n").expect_err("a fraction").expected, "a whole number");
        assert_eq!((text(&cell, "absent"), texts(&cell, "absent")), (Ok(None), Ok(Vec::new())));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(Cell::parse(b"[1]").expect_err("a list").found, "a list of 1");
        assert_eq!(Cell::parse(br#"{"a": NaN}"#).expect_err("no JSON").kind, RejectKind::Syntax);
    }
}
