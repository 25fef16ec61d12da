//! The losses of a step: a number for each term of the objective, and the weighted sum.

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// Losses of one step over the global batch.
///
/// In JSON a flat object, `{"crop":0.5,"global":1.5,"total":2.0}`; what is not a finite number is `null`, and reads back
/// as NaN. A term that is off is absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Losses {
    /// By term, before its weight. Names are [`Losses::is_term`].
    pub terms: BTreeMap<String, f64>,
    /// The weighted sum.
    pub total: f64,
}

/// What is wrong with the terms of a step that another process told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.problem())]
pub enum BadTerms {
    /// More than [`Losses::TERMS_MAX`].
    TooMany,
    /// Not a [`Losses::is_term`].
    Name,
}

impl BadTerms {
    /// What stands behind the field's name.
    #[must_use]
    pub fn problem(self) -> &'static str {
        match self {
            Self::TooMany => "holds more than 64 terms",
            Self::Name => "names a term that is `total`, or not 1 to 64 of a-z, 0-9 and _",
        }
    }
}

impl Losses {
    /// Most terms of a step: what is told is bounded.
    pub const TERMS_MAX: usize = 64;
    /// Longest name of a term.
    pub const NAME_BYTES_MAX: usize = 64;
    /// What the weighted sum is called beside the terms.
    pub const TOTAL: &str = "total";

    /// The losses of an objective of ours.
    ///
    /// # Panics
    /// If a name is not [`Losses::is_term`]: names are written in the source, not read.
    #[must_use]
    pub fn new<N: Into<String>>(terms: impl IntoIterator<Item = (N, f64)>, total: f64) -> Self {
        let terms = terms.into_iter().map(|(name, loss)| (name.into(), loss)).collect();
        Self::told(terms, total).expect("an objective's terms are few and well named")
    }

    /// The losses that another process told of.
    ///
    /// # Errors
    /// Too many terms, or a name that none of ours can have.
    pub fn told(terms: BTreeMap<String, f64>, total: f64) -> Result<Self, BadTerms> {
        if terms.len() > Self::TERMS_MAX {
            return Err(BadTerms::TooMany);
        }
        if !terms.keys().all(|name| Self::is_term(name)) {
            return Err(BadTerms::Name);
        }
        Ok(Self { terms, total })
    }

    /// Whether a term may be called so: it becomes a key, a tag and a label as it is, beside `total`.
    #[must_use]
    pub fn is_term(name: &str) -> bool {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        (1..=Self::NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain) && name != Self::TOTAL
    }

    /// The total, then each term, by name.
    pub fn named(&self) -> impl Iterator<Item = (&str, f64)> {
        std::iter::once((Self::TOTAL, self.total)).chain(self.terms.iter().map(|(name, loss)| (name.as_str(), *loss)))
    }
}

impl Serialize for Losses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.terms.len() + 1))?;
        for (name, loss) in &self.terms {
            map.serialize_entry(name, loss)?;
        }
        map.serialize_entry(Self::TOTAL, &self.total)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Losses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Flat)
    }
}

struct Flat;

impl<'de> Visitor<'de> for Flat {
    type Value = Losses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of losses by term, and `total`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Losses, A::Error> {
        let mut terms = BTreeMap::new();
        while let Some((name, loss)) = map.next_entry::<String, Option<f64>>()? {
            if terms.insert(name, loss.unwrap_or(f64::NAN)).is_some() {
                return Err(de::Error::custom("a loss stands twice"));
            }
            if terms.len() > Losses::TERMS_MAX + 1 {
                return Err(de::Error::custom(BadTerms::TooMany));
            }
        }
        let total = terms.remove(Losses::TOTAL).ok_or_else(|| de::Error::missing_field(Losses::TOTAL))?;
        Losses::told(terms, total).map_err(de::Error::custom)
    }
}
