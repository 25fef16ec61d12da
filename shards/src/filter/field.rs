//! What a condition may ask of a row and of its regions.

use crate::row::{ImageRow, Region};
use crate::tokens::Tokenizer;

/// A value that a condition compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Number,
    Text,
    Truth,
}

impl Kind {
    /// Its name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Truth => "true or false",
        }
    }
}

/// Something that a row or a region has, or has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    ImageId,
    Source,
    Lang,
    CaptionLong,
    CaptionShort,
    Width,
    Height,
    ClipSimB32,
    ClipSimL14,
    Regions,
    CaptionTokens,
    Category,
    CaptionObject,
    CaptionContext,
    CaptionMerged,
    ShortExpr,
    LongExpr,
    Score,
    Area,
    Tokens,
    HardNegs,
    CheckOk,
    Mask,
}

/// Name, field, what it is, and what it says to people; row fields first.
pub(crate) const FIELDS: [(&str, Field, Kind, &str); 23] = [
    ("image_id", Field::ImageId, Kind::Text, "key of the image"),
    ("source", Field::Source, Kind::Text, "where the row comes from"),
    ("lang", Field::Lang, Kind::Text, "language of the captions"),
    ("caption_long", Field::CaptionLong, Kind::Text, "long caption of the image"),
    ("caption_short", Field::CaptionShort, Kind::Text, "short caption of the image"),
    ("width", Field::Width, Kind::Number, "of the picture, pixels"),
    ("height", Field::Height, Kind::Number, "of the picture, pixels"),
    ("clip_sim_b32", Field::ClipSimB32, Kind::Number, "image-caption similarity"),
    ("clip_sim_l14", Field::ClipSimL14, Kind::Number, "image-caption similarity"),
    ("regions", Field::Regions, Kind::Number, "how many regions the row has"),
    ("caption_tokens", Field::CaptionTokens, Kind::Number, "tokens of caption_long"),
    ("category", Field::Category, Kind::Text, "category name"),
    ("caption_object", Field::CaptionObject, Kind::Text, "first stage"),
    ("caption_context", Field::CaptionContext, Kind::Text, "second stage"),
    ("caption_merged", Field::CaptionMerged, Kind::Text, "third stage"),
    ("short_expr", Field::ShortExpr, Kind::Text, "short expression"),
    ("long_expr", Field::LongExpr, Kind::Text, "long expression"),
    ("score", Field::Score, Kind::Number, "detector's confidence"),
    ("area", Field::Area, Kind::Number, "share of the picture: the mask's pixels, else the box"),
    ("tokens", Field::Tokens, Kind::Number, "tokens of the long text (caption_merged, else long_expr)"),
    ("hard_negs", Field::HardNegs, Kind::Number, "how many hard negatives"),
    ("check_ok", Field::CheckOk, Kind::Truth, "the captions passed the check"),
    ("mask", Field::Mask, Kind::Truth, "there is a mask"),
];

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FieldValue<'a> {
    /// As f32, as which the columns are stored: `score > 0.3` is false for a stored 0.3.
    Number(f32),
    Text(&'a str),
    Truth(bool),
}

impl Field {
    pub(crate) fn named(name: &str) -> Option<(Self, Kind)> {
        FIELDS.iter().find(|(n, ..)| *n == name).map(|(_, field, kind, _)| (*field, *kind))
    }

    /// Whether each region has one of its own.
    pub(crate) fn is_of_region(self) -> bool {
        match self {
            Self::ImageId
            | Self::Source
            | Self::Lang
            | Self::CaptionLong
            | Self::CaptionShort
            | Self::Width
            | Self::Height
            | Self::ClipSimB32
            | Self::ClipSimL14
            | Self::Regions
            | Self::CaptionTokens => false,
            Self::Category
            | Self::CaptionObject
            | Self::CaptionContext
            | Self::CaptionMerged
            | Self::ShortExpr
            | Self::LongExpr
            | Self::Score
            | Self::Area
            | Self::Tokens
            | Self::HardNegs
            | Self::CheckOk
            | Self::Mask => true,
        }
    }

    /// Whether a tokenizer is needed for it.
    pub(crate) fn needs_tokens(self) -> bool {
        self == Self::Tokens || self == Self::CaptionTokens
    }

    /// The value in `row`, which is `None` where it has none.
    pub(crate) fn of_row<'a>(self, row: &'a ImageRow, tokenizer: Option<&Tokenizer>) -> Option<FieldValue<'a>> {
        let text = |text: Option<&'a str>| text.map(FieldValue::Text);
        let number = |number: Option<f32>| number.map(FieldValue::Number);
        match self {
            Self::ImageId => text(Some(&row.image_id)),
            Self::Source => text(Some(row.source.as_str()).filter(|s| !s.is_empty())),
            Self::Lang => text(row.lang.as_deref()),
            Self::CaptionLong => text(row.caption_long.as_deref()),
            Self::CaptionShort => text(row.caption_short.as_deref()),
            Self::Width => number(Some(row.width as f32)),
            Self::Height => number(Some(row.height as f32)),
            Self::ClipSimB32 => number(row.clip_sim_b32),
            Self::ClipSimL14 => number(row.clip_sim_l14),
            Self::Regions => number(Some(row.regions.len() as f32)),
            Self::CaptionTokens => number(tokens(row.caption_long.as_deref(), tokenizer)),
            Self::Category
            | Self::CaptionObject
            | Self::CaptionContext
            | Self::CaptionMerged
            | Self::ShortExpr
            | Self::LongExpr
            | Self::Score
            | Self::Area
            | Self::Tokens
            | Self::HardNegs
            | Self::CheckOk
            | Self::Mask => None,
        }
    }

    /// The value in `region`, which is `None` where it has none.
    pub(crate) fn of_region<'a>(self, region: &'a Region, tokenizer: Option<&Tokenizer>) -> Option<FieldValue<'a>> {
        let text = |text: &'a Option<String>| text.as_deref().map(FieldValue::Text);
        match self {
            Self::Category => text(&region.category),
            Self::CaptionObject => text(&region.caption_object),
            Self::CaptionContext => text(&region.caption_context),
            Self::CaptionMerged => text(&region.caption_merged),
            Self::ShortExpr => text(&region.short_expr),
            Self::LongExpr => text(&region.long_expr),
            Self::Score => region.score.map(FieldValue::Number),
            Self::Area => Some(FieldValue::Number(region.area())),
            Self::Tokens => tokens(region.long_text(), tokenizer).map(FieldValue::Number),
            Self::HardNegs => Some(FieldValue::Number(region.hard_negs.len() as f32)),
            Self::CheckOk => region.check_ok.map(FieldValue::Truth),
            // A region without a mask has none, which is not the same as false for `has`.
            Self::Mask => region.mask.as_ref().map(|_| FieldValue::Truth(true)),
            Self::ImageId
            | Self::Source
            | Self::Lang
            | Self::CaptionLong
            | Self::CaptionShort
            | Self::Width
            | Self::Height
            | Self::ClipSimB32
            | Self::ClipSimL14
            | Self::Regions
            | Self::CaptionTokens => None,
        }
    }

    /// The column whose statistics say something of it.
    pub(crate) fn leaf(self) -> Option<&'static str> {
        match self {
            Self::ImageId => Some("image_id"),
            Self::Source => Some("source"),
            Self::Lang => Some("lang"),
            Self::CaptionLong => Some("caption_long"),
            Self::CaptionShort => Some("caption_short"),
            Self::Width => Some("width"),
            Self::Height => Some("height"),
            Self::ClipSimB32 => Some("clip_sim_b32"),
            Self::ClipSimL14 => Some("clip_sim_l14"),
            Self::Category => Some("regions.category"),
            Self::CaptionObject => Some("regions.caption_object"),
            Self::CaptionContext => Some("regions.caption_context"),
            Self::CaptionMerged => Some("regions.caption_merged"),
            Self::ShortExpr => Some("regions.short_expr"),
            Self::LongExpr => Some("regions.long_expr"),
            Self::Score => Some("regions.score"),
            Self::CheckOk => Some("regions.check_ok"),
            Self::Regions | Self::CaptionTokens | Self::Area | Self::Tokens | Self::HardNegs | Self::Mask => None,
        }
    }
}

/// Tokens of a text, start and end among them. One that is too long for the tokenizer has more than any number.
fn tokens(text: Option<&str>, tokenizer: Option<&Tokenizer>) -> Option<f32> {
    let (text, tokenizer) = (text?, tokenizer?);
    Some(tokenizer.encode(text, usize::MAX).map_or(f32::INFINITY, |tokens| tokens.length as f32))
}
