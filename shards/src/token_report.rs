//! How long the texts of a dataset are in tokens, by column, and where the longest stand: what a text tower that
//! takes 77 or 248 would cut.

use crate::error::{FieldFault, Place, ShardError};
use crate::row::ImageRow;
use crate::tokens::{TextField, Tokenizer};
use std::collections::BTreeMap;

/// Longest texts that are kept of a column.
pub const LONGEST_KEPT: usize = 3;

/// Lengths by column; a column without a text is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenReport {
    fields: BTreeMap<TextField, Lengths>,
}

/// Lengths of the texts of one column, start and end tokens included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Length -> texts.
    counts: BTreeMap<usize, u64>,
    longest: Vec<LongText>,
}

/// One of the longest texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongText {
    /// Its tokens.
    pub length: usize,
    /// Where it stands.
    pub place: Place,
    /// The text.
    pub text: String,
}

impl TokenReport {
    /// The columns, image captions first.
    pub fn fields(&self) -> impl Iterator<Item = (TextField, &Lengths)> {
        self.fields.iter().map(|(field, lengths)| (*field, lengths))
    }

    /// Counts the texts of the row at `place`; those that cannot be tokenized are faults.
    pub(crate) fn note(&mut self, tokenizer: &Tokenizer, row: &ImageRow, place: &Place, faults: &mut Vec<ShardError>) {
        TextField::of(row, &mut |field, path, text| match tokenizer.encode(text, usize::MAX) {
            Ok(tokens) => {
                let of = self.fields.entry(field).or_default();
                *of.counts.entry(tokens.length).or_default() += 1;
                if of.is_long(tokens.length) {
                    let place = place.clone().field(path);
                    of.keep(LongText { length: tokens.length, place, text: text.to_owned() });
                }
            }
            Err(error) => faults.push(ShardError::field(place.clone().field(path), FieldFault::Tokens(error))),
        });
    }

    /// Adds what was counted further on.
    pub(crate) fn merge(&mut self, later: Self) {
        for (field, lengths) in later.fields {
            let of = self.fields.entry(field).or_default();
            for (length, texts) in lengths.counts {
                *of.counts.entry(length).or_default() += texts;
            }
            for text in lengths.longest {
                of.keep(text);
            }
        }
    }
}

impl Lengths {
    /// Texts.
    #[must_use]
    pub fn texts(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The length that a share `q` of the texts (0..=1) does not exceed.
    #[must_use]
    pub fn quantile(&self, q: f64) -> usize {
        let wanted = (q * self.texts() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = self.counts.iter().find(|(_, texts)| {
            seen += **texts;
            seen >= wanted
        });
        reached.or(self.counts.last_key_value()).map_or(0, |(length, _)| *length)
    }

    /// Texts with `first..=last` tokens.
    #[must_use]
    pub fn between(&self, first: usize, last: usize) -> u64 {
        self.counts.range(first..=last).map(|(_, texts)| texts).sum()
    }

    /// Texts that a cut at `most` tokens would shorten.
    #[must_use]
    pub fn cut_at(&self, most: usize) -> u64 {
        self.between(most + 1, usize::MAX)
    }

    /// The longest texts, at most [`LONGEST_KEPT`], longest first.
    #[must_use]
    pub fn longest(&self) -> &[LongText] {
        &self.longest
    }

    fn is_long(&self, length: usize) -> bool {
        self.longest.len() < LONGEST_KEPT || self.longest.last().is_some_and(|last| last.length < length)
    }

    /// Keeps `text` if it is among the longest; of equally long ones the first.
    fn keep(&mut self, text: LongText) {
        let at = self.longest.partition_point(|kept| kept.length >= text.length);
        self.longest.insert(at, text);
        self.longest.truncate(LONGEST_KEPT);
    }
}
