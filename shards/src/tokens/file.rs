//! A tokenizer from a `tokenizer.json` of Hugging Face's format.

use super::{SPECIAL, TokenizerError, VOCABULARY};
use std::path::{Path, PathBuf};
use tokenizers::models::ModelWrapper;

/// Largest `tokenizer.json` that is read, in bytes: CLIP's has 4 MB.
const FILE_BYTES_MAX: u64 = 64 << 20;

pub(super) struct TokenizerFile {
    path: PathBuf,
    tokenizer: tokenizers::Tokenizer,
}

impl TokenizerFile {
    /// The tokenizer and the hash of its file.
    pub(super) fn open(path: &Path) -> Result<(Self, blake3::Hash), TokenizerError> {
        let bytes = read(path)?;
        let at = || path.to_owned();
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|source| TokenizerError::NotATokenizer { path: at(), source })?;
        for (token, expected) in SPECIAL {
            let found = tokenizer.token_to_id(token);
            if found != Some(expected) {
                return Err(TokenizerError::SpecialId { path: at(), token, found, expected });
            }
        }
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if largest >= VOCABULARY {
            return Err(TokenizerError::Vocabulary { path: at(), largest, limit: VOCABULARY });
        }
        if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
            && let Some(dropout) = bpe.dropout.filter(|p| *p > 0.0)
        {
            return Err(TokenizerError::Dropout { path: at(), dropout });
        }
        // The file may ask for both; cutting is ours and padding the batch's.
        tokenizer
            .with_padding(None)
            .with_truncation(None)
            .map_err(|source| TokenizerError::NotATokenizer { path: at(), source })?;
        Ok((Self { path: at(), tokenizer }, blake3::hash(&bytes)))
    }

    /// Appends the ids of `text`, without those of its start and end: whether the file adds them does not matter.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let found = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|source| TokenizerError::Text { path: self.path.clone(), source })?;
        ids.extend_from_slice(found.get_ids());
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    let unreadable = |source| TokenizerError::Unreadable { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(TokenizerError::FileTooLarge { path: path.to_owned(), bytes, limit: FILE_BYTES_MAX });
    }
    std::fs::read(path).map_err(unreadable)
}
