//! Which texts a row has for a text tower, and how many of them were cut.

use super::Tokens;
use crate::row::ImageRow;
use std::collections::BTreeMap;
use std::fmt;

/// A column of texts that a text tower may be trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextField {
    /// The image's long caption.
    CaptionLong,
    /// The image's short caption.
    CaptionShort,
    /// A region's short text in LongGRIT.
    CaptionObject,
    /// A region's long text in LongGRIT.
    CaptionMerged,
    /// A region's short text in FineHARD.
    ShortExpr,
    /// A region's long text in FineHARD.
    LongExpr,
    /// A region's hard negatives.
    HardNegs,
}

impl TextField {
    /// The column's name within the row or the region.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CaptionLong => "caption_long",
            Self::CaptionShort => "caption_short",
            Self::CaptionObject => "caption_object",
            Self::CaptionMerged => "caption_merged",
            Self::ShortExpr => "short_expr",
            Self::LongExpr => "long_expr",
            Self::HardNegs => "hard_negs",
        }
    }

    /// Its texts, for people.
    #[must_use]
    pub fn texts(self) -> &'static str {
        match self {
            Self::CaptionLong => "long captions",
            Self::CaptionShort => "short captions",
            Self::CaptionObject => "object captions",
            Self::CaptionMerged => "merged captions",
            Self::ShortExpr => "short expressions",
            Self::LongExpr => "long expressions",
            Self::HardNegs => "hard negatives",
        }
    }

    /// Every text of `row`, with its path within the row (`regions[2].hard_negs[0]`).
    pub(crate) fn of(row: &ImageRow, each: &mut dyn FnMut(Self, String, &str)) {
        for (field, text) in [(Self::CaptionLong, &row.caption_long), (Self::CaptionShort, &row.caption_short)] {
            if let Some(text) = text {
                each(field, field.name().into(), text);
            }
        }
        for (i, region) in row.regions.iter().enumerate() {
            let texts = [
                (Self::CaptionObject, &region.caption_object),
                (Self::CaptionMerged, &region.caption_merged),
                (Self::ShortExpr, &region.short_expr),
                (Self::LongExpr, &region.long_expr),
            ];
            for (field, text) in texts {
                if let Some(text) = text {
                    each(field, format!("regions[{i}].{}", field.name()), text);
                }
            }
            for (k, text) in region.hard_negs.iter().enumerate() {
                each(Self::HardNegs, format!("regions[{i}].hard_negs[{k}]"), text);
            }
        }
    }
}

/// How many texts were tokenized and how many of them were cut, by their field.
///
/// Displayed as a sentence about those that were: `12 of 4,096 long captions were cut at 248 tokens`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cuts {
    fields: BTreeMap<TextField, Counts>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    seen: u64,
    cut: u64,
    /// Ids that were left of those that were cut.
    most: usize,
}

impl Cuts {
    /// Counts one text.
    pub fn note(&mut self, field: TextField, tokens: &Tokens) {
        let cut = tokens.cut;
        self.add(field, Counts { seen: 1, cut: cut.into(), most: if cut { tokens.ids.len() } else { 0 } });
    }

    /// Adds what another thread or batch counted.
    pub fn merge(&mut self, other: &Self) {
        for (field, counts) in &other.fields {
            self.add(*field, *counts);
        }
    }

    fn add(&mut self, field: TextField, counts: Counts) {
        let own = self.fields.entry(field).or_default();
        own.seen += counts.seen;
        own.cut += counts.cut;
        own.most = own.most.max(counts.most);
    }

    /// Texts of `field` that were tokenized, and how many of them were cut.
    #[must_use]
    pub fn of(&self, field: TextField) -> (u64, u64) {
        self.fields.get(&field).map_or((0, 0), |c| (c.seen, c.cut))
    }

    /// Whether no text was cut, so that there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.values().all(|c| c.cut == 0)
    }
}

impl fmt::Display for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no text was cut");
        }
        for (i, (field, counts)) in self.fields.iter().filter(|(_, c)| c.cut > 0).enumerate() {
            let (between, were) = (if i > 0 { ", " } else { "" }, if i > 0 { "" } else { " were cut" });
            let (cut, seen) = (grouped(counts.cut), grouped(counts.seen));
            write!(f, "{between}{cut} of {seen} {}{were} at {} tokens", field.texts(), counts.most)?;
        }
        Ok(())
    }
}

/// A number for people: `4,096`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
