//! Why there is no tokenizer, or no ids of a text.

use pixfleet_cluster::Class;
use std::path::PathBuf;

/// What went wrong, with the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// No such file, or no right to read it.
    #[error(
        "tokenizer `{path}`: {source}; expected `clip`, which is built in, or the path of a tokenizer.json",
        path = .path.display()
    )]
    Unreadable {
        /// What was given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is refused before it is read.
    #[error(
        "tokenizer `{path}`: {bytes} bytes exceed the limit of {limit}; expected a tokenizer.json, CLIP's has 4 MB",
        path = .path.display()
    )]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A file of something else.
    #[error(
        "tokenizer `{path}`: not a tokenizer.json ({source}); vocab.json and merges.txt alone are not enough: save it with transformers' `CLIPTokenizerFast.save_pretrained`, or use `clip`",
        path = .path.display()
    )]
    NotATokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        source: tokenizers::Error,
    },
    /// Another model's vocabulary.
    #[error(
        "tokenizer `{path}`: `{token}` {}, expected id {expected}: this is not CLIP's vocabulary, whose ids the text tower needs; use `clip` or the tokenizer.json of a CLIP model",
        .found.map_or("is not in it".into(), |id| format!("has id {id}")),
        path = .path.display()
    )]
    SpecialId {
        /// The file.
        path: PathBuf,
        /// The special token.
        token: &'static str,
        /// Its id there.
        found: Option<u32>,
        /// Its id in CLIP's vocabulary.
        expected: u32,
    },
    /// Ids for which a text tower has no row.
    #[error(
        "tokenizer `{path}`: ids up to {largest}, expected less than {limit}: the text tower embeds CLIP's vocabulary alone; use `clip` or the tokenizer.json of a CLIP model",
        path = .path.display()
    )]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// Its largest id.
        largest: u32,
        /// Ids that there are.
        limit: u32,
    },
    /// Ids that would be drawn anew at each reading.
    #[error(
        "tokenizer `{path}`: drops merges at random (model.dropout = {dropout}), and a sample must be the same whoever reads it; set model.dropout to null",
        path = .path.display()
    )]
    Dropout {
        /// The file.
        path: PathBuf,
        /// Share of the merges.
        dropout: f32,
    },
    /// A text that is refused before it is tokenized.
    #[error("{bytes} bytes exceed the limit of {limit} for a text; shorten it or drop the row")]
    TextTooLong {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A text that the file's rules cannot split.
    #[error("the rules of tokenizer `{path}` cannot split it: {source}; drop the row, or use `clip`", path = .path.display())]
    Text {
        /// The tokenizer's file.
        path: PathBuf,
        /// Why.
        source: tokenizers::Error,
    },
}

impl TokenizerError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unreadable { .. }
            | Self::FileTooLarge { .. }
            | Self::NotATokenizer { .. }
            | Self::SpecialId { .. }
            | Self::Vocabulary { .. }
            | Self::Dropout { .. }
            | Self::TextTooLong { .. }
            | Self::Text { .. } => Class::Fatal,
        }
    }
}
