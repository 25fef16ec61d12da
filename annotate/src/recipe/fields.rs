//! What stages read and write: the fields of a row and of its regions, by the names of the schema.

use serde::Deserialize;

/// What a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Image,
    Region,
}

/// A field that a stage may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Field {
    CaptionLong,
    CaptionShort,
    /// Referring expressions of a picture; not kept in the row.
    Expressions,
    /// The regions themselves, found by a detector.
    Regions,
    Mask,
    CaptionObject,
    CaptionContext,
    CheckOk,
    CaptionMerged,
    ShortExpr,
    LongExpr,
    HardNegs,
    /// The verdict on hard negatives; those that fail go.
    HardNegsOk,
}

/// Names that are there without a stage.
pub(crate) const GIVEN: [(&str, Over); 9] = [
    ("image_id", Over::Image),
    ("source", Over::Image),
    ("lang", Over::Image),
    ("width", Over::Image),
    ("height", Over::Image),
    // Whether the row came with regions, whatever a detector finds later.
    ("has_regions", Over::Image),
    ("bbox", Over::Region),
    ("category", Over::Region),
    ("check_reason", Over::Region),
];

impl Field {
    pub(crate) const ALL: [Self; 13] = [
        Self::CaptionLong,
        Self::CaptionShort,
        Self::Expressions,
        Self::Regions,
        Self::Mask,
        Self::CaptionObject,
        Self::CaptionContext,
        Self::CheckOk,
        Self::CaptionMerged,
        Self::ShortExpr,
        Self::LongExpr,
        Self::HardNegs,
        Self::HardNegsOk,
    ];

    /// Its name in recipes and templates.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CaptionLong => "caption_long",
            Self::CaptionShort => "caption_short",
            Self::Expressions => "expressions",
            Self::Regions => "regions",
            Self::Mask => "mask",
            Self::CaptionObject => "caption_object",
            Self::CaptionContext => "caption_context",
            Self::CheckOk => "check_ok",
            Self::CaptionMerged => "caption_merged",
            Self::ShortExpr => "short_expr",
            Self::LongExpr => "long_expr",
            Self::HardNegs => "hard_negs",
            Self::HardNegsOk => "hard_negs_ok",
        }
    }

    /// Whether it is of the image or of a region.
    pub(crate) fn over(self) -> Over {
        match self {
            Self::CaptionLong | Self::CaptionShort | Self::Expressions | Self::Regions => Over::Image,
            // A segmenter gets all boxes of a picture at once.
            Self::Mask => Over::Image,
            Self::CaptionObject
            | Self::CaptionContext
            | Self::CheckOk
            | Self::CaptionMerged
            | Self::ShortExpr
            | Self::LongExpr
            | Self::HardNegs
            | Self::HardNegsOk => Over::Region,
        }
    }
}
