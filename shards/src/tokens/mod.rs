//! CLIP's tokenizer: a text becomes the ids that CLIP's and FG-CLIP's text towers eat.
//!
//! Ids are those of transformers' `CLIPTokenizerFast` (`tests/golden/clip_tokens.py`): NFC, white space is one space,
//! lower case, words split as OpenAI does, byte-pair merges. No ftfy: curly quotes and `&amp;` stay as they were
//! written. Texts are cut here and padded by the batch.

mod clip;
mod cuts;
mod error;
mod file;
#[cfg(test)]
mod tests;

pub use cuts::{Cuts, TextField};
pub use error::TokenizerError;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Name of the tokenizer that is built in.
pub const CLIP: &str = "clip";
/// Ids of CLIP's vocabulary: 512 of bytes, 48,894 of merges and two special ones.
pub const VOCABULARY: u32 = 49_408;
/// The first id of every text.
pub const START: u32 = 49_406;
/// The last id of every text, and what a batch pads with; towers pool at the first of these (method.md 4.1).
pub const END: u32 = 49_407;
/// Most tokens of a text in CLIP's tower (method.md 4.1): short captions, region texts, hard negatives.
pub const SHORT_TOKENS: usize = 77;
/// Most tokens of a text with the stretched position table (method.md 4.1): long captions.
pub const LONG_TOKENS: usize = 248;
/// Longest text that is tokenized, in bytes: no caption, but what a broken row may hold.
pub const TEXT_BYTES_MAX: usize = 1 << 18;

/// What special ids are written as.
const SPECIAL: [(&str, u32); 2] = [("<|startoftext|>", START), ("<|endoftext|>", END)];

/// A vocabulary and its merges. Clones share them, and all threads may encode at once.
#[derive(Clone)]
pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
    key: Arc<str>,
}

enum Vocabulary {
    BuiltIn(clip::Bpe),
    File(Box<file::TokenizerFile>),
}

/// The ids of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// [`START`], the text's, [`END`].
    pub ids: Vec<u32>,
    /// Whether ids were left out.
    pub cut: bool,
    /// Ids before the cut.
    pub length: usize,
}

impl Tokenizer {
    /// `clip` (built in), or the path of a `tokenizer.json` with CLIP's ids.
    ///
    /// # Errors
    /// If there is no such file, or it is not a tokenizer with the special ids and the size of CLIP's vocabulary.
    pub fn open(name: &str) -> Result<Self, TokenizerError> {
        if name == CLIP {
            return Ok(Self { vocabulary: Arc::new(Vocabulary::BuiltIn(clip::Bpe::new())), key: CLIP.into() });
        }
        let (file, hash) = file::TokenizerFile::open(Path::new(name))?;
        let key = format!("tokenizer-{}", &hash.to_hex()[..16]);
        Ok(Self { vocabulary: Arc::new(Vocabulary::File(Box::new(file))), key: key.into() })
    }

    /// What ids depend on: `clip`, or `tokenizer-` and 16 hex digits of the file's blake3.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The ids of `text`, at most `most` (2 or more) of them: the last is [`END`] also where the text is cut.
    ///
    /// # Errors
    /// If the text is longer than [`TEXT_BYTES_MAX`], or the file's rules cannot split it.
    pub fn encode(&self, text: &str, most: usize) -> Result<Tokens, TokenizerError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenizerError::TextTooLong { bytes: text.len(), limit: TEXT_BYTES_MAX });
        }
        let mut ids = vec![START];
        match &*self.vocabulary {
            Vocabulary::BuiltIn(bpe) => bpe.encode(text, &mut ids),
            Vocabulary::File(file) => file.encode(text, &mut ids)?,
        }
        ids.push(END);
        let length = ids.len();
        let cut = length > most.max(2);
        if cut {
            ids.truncate(most.max(2) - 1);
            ids.push(END);
        }
        Ok(Tokens { ids, cut, length })
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("key", &self.key).finish_non_exhaustive()
    }
}
