//! Texts as towers read them: stored vectors, or token ids that are made here.

use super::draw::TextLength;
use super::{SampleConfig, SampleError};
use crate::row::{ImageRow, Region};
use crate::tokens::{Cuts, TextField, Tokenizer};
use pixfleet_cluster::spec::terms::HARD_TEXTS;

/// Where a run's texts come from.
#[derive(Debug, Clone)]
pub enum TextSource {
    /// Vectors beside the rows, of so many numbers.
    Vectors(usize),
    /// Captions and expressions, cut into the ids of this tokenizer.
    Tokens(Tokenizer),
    /// Nobody reads them.
    None,
}

/// One text.
#[derive(Debug, Clone, PartialEq)]
pub enum Text {
    /// Its stored vector.
    Vector(Vec<f32>),
    /// Its ids, start and end among them.
    Tokens(Vec<u32>),
}

/// Makes the texts of one sample, and counts those that are cut.
pub(super) struct Texts<'c> {
    config: &'c SampleConfig,
    pub(super) cuts: Cuts,
}

impl<'c> Texts<'c> {
    pub(super) fn new(config: &'c SampleConfig) -> Self {
        Self { config, cuts: Cuts::default() }
    }

    /// Whether the image has a caption for a whole-image pair.
    pub(super) fn has_caption(config: &SampleConfig, row: &ImageRow) -> bool {
        match config.texts {
            TextSource::Vectors(_) => row.image_vector.is_some(),
            TextSource::Tokens(_) => row.image_text().is_some(),
            TextSource::None => true,
        }
    }

    /// The image's text for a whole-image pair.
    pub(super) fn image(&mut self, row: &ImageRow) -> Result<Option<Text>, SampleError> {
        let (text, field) = match (&row.caption_long, &row.caption_short) {
            (Some(long), _) => (Some(long), TextField::CaptionLong),
            (None, short) => (short.as_ref(), TextField::CaptionShort),
        };
        let path = || field.name().to_string();
        match &self.config.texts {
            TextSource::None => Ok(None),
            TextSource::Vectors(length) => Ok(Some(vector(row.image_vector.as_deref(), *length, || "image".into())?)),
            TextSource::Tokens(_) => {
                let text = text.ok_or_else(|| SampleError::NoText { field: path() })?;
                self.tokens(text, (field, path), self.config.data.short_tokens).map(Some)
            }
        }
    }

    /// The text of a drawn region, of LongGRIT's captions where it has them.
    pub(super) fn region(
        &mut self,
        region: &Region,
        index: u32,
        length: TextLength,
    ) -> Result<Option<Text>, SampleError> {
        let (text, stored, name) = match length {
            TextLength::Short => (region.short_text(), &region.short_vector, "short"),
            TextLength::Long => (region.long_text(), &region.long_vector, "long"),
        };
        let field = match (length, &region.caption_object, &region.caption_merged) {
            (TextLength::Short, Some(_), _) => TextField::CaptionObject,
            (TextLength::Short, None, _) => TextField::ShortExpr,
            (TextLength::Long, _, Some(_)) => TextField::CaptionMerged,
            (TextLength::Long, _, None) => TextField::LongExpr,
        };
        if text.is_some_and(|t| t.trim().is_empty()) {
            return Err(SampleError::EmptyCaption { region: index, field: field.name() });
        }
        match &self.config.texts {
            TextSource::None => Ok(None),
            TextSource::Vectors(length) => Ok(Some(vector(stored.as_deref(), *length, || format!("{name}[{index}]"))?)),
            TextSource::Tokens(_) => {
                let path = || format!("regions[{index}].{}", field.name());
                let text = text.ok_or_else(|| SampleError::NoText { field: path() })?;
                self.tokens(text, (field, path), self.config.data.short_tokens).map(Some)
            }
        }
    }

    /// The image's long caption.
    pub(super) fn long_caption(&mut self, row: &ImageRow) -> Result<Option<Text>, SampleError> {
        let field = TextField::CaptionLong;
        let text = caption(row.caption_long.as_deref(), field)?;
        self.tokens(text, (field, || field.name().into()), self.config.data.long_tokens).map(Some)
    }

    /// The image's short caption behind its prefix.
    pub(super) fn short_caption(&mut self, row: &ImageRow) -> Result<Option<Text>, SampleError> {
        let field = TextField::CaptionShort;
        let text = format!("{}{}", self.config.data.short_prefix, caption(row.caption_short.as_deref(), field)?);
        self.tokens(&text, (field, || field.name().into()), self.config.data.short_tokens).map(Some)
    }

    /// A region's expression, of the drawn length where there are both.
    pub(super) fn expression(&mut self, region: &Region, index: u32, length: TextLength) -> Result<Text, SampleError> {
        let short = region.short_expr.as_deref().map(|t| (t, TextField::ShortExpr));
        let long = region.long_expr.as_deref().map(|t| (t, TextField::LongExpr));
        let chosen = match length {
            TextLength::Short => short.or(long),
            TextLength::Long => long.or(short),
        };
        let (text, field) = chosen.ok_or(SampleError::NoExpression { region: index })?;
        if text.trim().is_empty() {
            return Err(SampleError::EmptyCaption { region: index, field: field.name() });
        }
        let path = || format!("regions[{index}].{}", field.name());
        self.tokens(text, (field, path), self.config.data.short_tokens)
    }

    /// A region's true expression and its hard negatives; empty where it has no negatives.
    pub(super) fn choice(&mut self, region: &Region, index: u32) -> Result<Vec<Text>, SampleError> {
        let (found, expected) = (region.hard_negs.len(), HARD_TEXTS as usize - 1);
        if found == 0 {
            return Ok(Vec::new());
        }
        let positive = region.short_expr.as_deref().ok_or(SampleError::NoPositive { region: index, found })?;
        if found != expected {
            return Err(SampleError::HardCount { region: index, found, expected });
        }
        let most = self.config.data.short_tokens;
        let path = || format!("regions[{index}].short_expr");
        let mut texts = vec![self.tokens(positive, (TextField::ShortExpr, path), most)?];
        for (k, text) in region.hard_negs.iter().enumerate() {
            let path = || format!("regions[{index}].hard_negs[{k}]");
            texts.push(self.tokens(text, (TextField::HardNegs, path), most)?);
        }
        Ok(texts)
    }

    fn tokens(
        &mut self,
        text: &str,
        (field, path): (TextField, impl Fn() -> String),
        most: u32,
    ) -> Result<Text, SampleError> {
        let TextSource::Tokens(tokenizer) = &self.config.texts else {
            return Err(SampleError::NoText { field: path() });
        };
        let tokens =
            tokenizer.encode(text, most as usize).map_err(|source| SampleError::Tokens { field: path(), source })?;
        self.cuts.note(field, &tokens);
        Ok(Text::Tokens(tokens.ids))
    }
}

fn caption(text: Option<&str>, field: TextField) -> Result<&str, SampleError> {
    text.filter(|t| !t.trim().is_empty()).ok_or(SampleError::NoCaption { field: field.name() })
}

fn vector(found: Option<&[f32]>, expected: usize, field: impl Fn() -> String) -> Result<Text, SampleError> {
    let found = found.ok_or_else(|| SampleError::NoVector { field: field() })?;
    if found.len() != expected {
        return Err(SampleError::TextLength { field: field(), found: found.len(), expected });
    }
    if let Some(index) = found.iter().position(|v| !v.is_finite()) {
        return Err(SampleError::TextNotFinite { field: field(), index, value: found[index] });
    }
    Ok(Text::Vector(found.to_vec()))
}
