//! Texts as a language model reads them: template, trimming, tokens, and which of these make the vector. As LLM2Vec does
//! it without an instruction (method.md 1.5; its `_convert_to_str`, `prepare_for_tokenization`, `tokenize`).

use std::path::{Path, PathBuf};

use tokenizers::{Tokenizer, TruncationParams};

use super::error::LlmError;

/// What stands around a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// Nothing but what the tokenizer itself adds.
    Plain,
    /// A user's turn of Llama 3 Instruct.
    Llama3,
}

impl Template {
    /// Its name, as in keys.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Llama3 => "llama3",
        }
    }

    /// What stands before the text, and what after it.
    fn around(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Plain => None,
            Self::Llama3 => Some(("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>")),
        }
    }
}

/// How texts become tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRule {
    /// What stands around a text.
    pub template: Template,
    /// Tokens of a text at most, with all that stands around it; what is beyond is cut off (LLM2Vec's `max_length`).
    pub length: usize,
    /// Tokens of the text alone at most; a longer one loses whole words (LLM2Vec's `doc_max_length`). It acts if it is
    /// below `length`.
    pub text_length: usize,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlmTokens {
    /// All that the model reads.
    pub ids: Vec<i64>,
    /// How many of the last ids make the vector: the text's own, and what stands behind it. Of a text that fills the
    /// whole length these are all, as in LLM2Vec.
    pub pooled: usize,
}

/// A tokenizer with its rule.
#[derive(Debug)]
pub(crate) struct Texts {
    tokenizer: Tokenizer,
    path: PathBuf,
    rule: TextRule,
}

impl Texts {
    pub(crate) fn load(dir: &Path, rule: TextRule) -> Result<Self, LlmError> {
        let path = dir.join("tokenizer.json");
        if !path.is_file() {
            return Err(LlmError::Missing { path });
        }
        let open = || {
            let mut tokenizer = Tokenizer::from_file(&path)?;
            tokenizer.with_padding(None);
            tokenizer.with_truncation(Some(TruncationParams { max_length: rule.length, ..Default::default() }))?;
            Ok(tokenizer)
        };
        let tokenizer = open().map_err(|source| LlmError::Tokenizer { path: path.clone(), source })?;
        Ok(Self { tokenizer, path, rule })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The tokens of each text.
    pub(crate) fn tokens<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<LlmTokens>, LlmError> {
        let trimmed: Vec<String> = texts.iter().map(|t| self.trimmed(t.as_ref())).collect::<Result<_, _>>()?;
        let (before, after) = self.rule.template.around().unwrap_or_default();
        // With a template LLM2Vec strips what it fills in; a mark of its own stands before the text, so only the end is.
        let strips = self.rule.template != Template::Plain;
        let own = |t: &String| if strips { t.trim_end_matches(is_space).to_owned() + after } else { t.clone() };
        let own: Vec<String> = trimmed.iter().map(own).collect();
        let whole: Vec<String> = own.iter().map(|t| format!("{before}{t}")).collect();
        let (own, whole) = (self.encode(own, false)?, self.encode(whole, true)?);
        let tokens = whole.into_iter().zip(own).map(|(ids, own)| LlmTokens { pooled: own.len().min(ids.len()), ids });
        Ok(tokens.collect())
    }

    /// The text without the words that are too many. Words are cut in proportion, and again if that was not enough.
    fn trimmed(&self, text: &str) -> Result<String, LlmError> {
        let mut text = text.to_owned();
        if self.rule.text_length >= self.rule.length {
            return Ok(text);
        }
        loop {
            let tokens = self.encode(vec![text.clone()], false)?.pop().map_or(0, |ids| ids.len());
            if tokens <= self.rule.text_length {
                return Ok(text);
            }
            let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
            let ratio = self.rule.text_length as f64 / tokens as f64;
            text = words[..(words.len() as f64 * ratio) as usize].join(" ");
        }
    }

    fn encode(&self, texts: Vec<String>, special: bool) -> Result<Vec<Vec<i64>>, LlmError> {
        let failed = |source| LlmError::Tokenizer { path: self.path.clone(), source };
        let encodings = self.tokenizer.encode_batch_fast(texts, special).map_err(failed)?;
        Ok(encodings.iter().map(|e| e.get_ids().iter().map(|&id| i64::from(id)).collect()).collect())
    }
}

/// What Python's `str.split` and `str.strip` take for space.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
