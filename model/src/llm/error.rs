//! What can be wrong with the folder of a language model, and with what it is asked to encode.

use std::path::PathBuf;

use super::config::Family;
use crate::error::ModelError;

/// Why a language model cannot be loaded or cannot encode.
#[derive(Debug, thiserror::Error)]
pub enum LlmError {
    /// The folder lacks a file.
    #[error(
        "{} is missing: expected a Hugging Face folder with config.json, tokenizer.json, and model.safetensors or \
             model.safetensors.index.json with its shards", path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A JSON file that is not what its name says.
    #[error("{} cannot be read as {what}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What the reader says.
        source: serde_json::Error,
    },
    /// A family that is not built.
    #[error("{}: `architectures` says {found:?}; text encoders are built for {}", path.display(), Family::known())]
    Architecture {
        /// `config.json`.
        path: PathBuf,
        /// What it says.
        found: Vec<String>,
    },
    /// A setting that the family's blocks here do not have.
    #[error("{}: `{key}` is {found}, expected {expected}", path.display())]
    Setting {
        /// `config.json`.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What it says.
        found: String,
        /// What it may say.
        expected: String,
    },
    /// A file is not safetensors.
    #[error("{} is not a readable safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        source: safetensors::SafeTensorError,
    },
    /// A file that ends before its tensors do.
    #[error("{} has {found} bytes, its header speaks of {expected}: fetch it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// What the header says.
        expected: u64,
    },
    /// A tensor that no file of the folder holds.
    #[error("no tensor `{name}` in {}: its config.json is another model's", dir.display())]
    NoTensor {
        /// The tensor, without the prefix `model.`.
        name: String,
        /// The folder.
        dir: PathBuf,
    },
    /// A tensor of another shape than `config.json` says.
    #[error("`{name}` in {} has shape {found:?}, config.json says {expected:?}", path.display())]
    Shape {
        /// The tensor.
        name: String,
        /// Its file.
        path: PathBuf,
        /// By `config.json`.
        expected: Vec<i64>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor whose elements are no weights.
    #[error("`{name}` in {} is stored as {dtype}, expected BF16, F16 or F32", path.display())]
    Dtype {
        /// The tensor.
        name: String,
        /// Its file.
        path: PathBuf,
        /// The file's element type.
        dtype: String,
    },
    /// The tokenizer refuses its file or a text.
    #[error("tokenizer of {}", path.display())]
    Tokenizer {
        /// The tokenizer's file.
        path: PathBuf,
        /// What the tokenizer says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A tokenizer that knows tokens the model has no embedding of.
    #[error("{} gives the token id {id}, the model has {vocab}: the tokenizer is another model's", path.display())]
    TokenOutside {
        /// The tokenizer's file.
        path: PathBuf,
        /// The id.
        id: i64,
        /// Ids are below it.
        vocab: i64,
    },
    /// A text of which nothing is left to pool.
    #[error("the text `{text}` has no tokens")]
    NoTokens {
        /// Its first letters.
        text: String,
    },
    /// A vector with a NaN or an infinity.
    #[error("the text `{text}` has a vector that is not finite; bf16 reaches further than the f16 of older weights")]
    NotFinite {
        /// Its first letters.
        text: String,
    },
    /// libtorch refused.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl From<tch::TchError> for LlmError {
    fn from(error: tch::TchError) -> Self {
        Self::Model(error.into())
    }
}
