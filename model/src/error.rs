//! What can go wrong in this crate. Nothing here heals by trying again: a wrong shape, a foreign weight file or a
//! libtorch refusal needs a person.

use std::path::PathBuf;

use pixfleet_cluster::fault::Class;

/// An error of the model crate.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A tensor handed in does not have the shape that the model's configuration asks for.
    #[error("{what}: expected shape {expected}, found {found:?}")]
    Shape {
        /// Which tensor.
        what: String,
        /// The expected shape, in words (`[n, 3, 96, 96]`).
        expected: String,
        /// The shape found.
        found: Vec<i64>,
    },
    /// A kernel of the shim.
    #[error("{0}")]
    Kernel(#[from] pixfleet_shim::Failure),
    /// Texts are longer than the tower has positions for.
    #[error("texts of {found} tokens: the tower has positions for {most} on this path; cut the texts to that length")]
    TooManyTokens {
        /// Tokens of a row, padding among them.
        found: i64,
        /// Positions of the path.
        most: i64,
    },
    /// A token id is not in the vocabulary.
    #[error("text {row} has the token id {id}, the vocabulary has {vocab}: its tokenizer is not the tower's")]
    TokenOutside {
        /// The text's row.
        row: i64,
        /// The id.
        id: i64,
        /// Ids are below it.
        vocab: i64,
    },
    /// A text does not end, so there is nowhere to pool it.
    #[error("text {row} has no end-of-text token ({eot}): cut texts so that the last token left is that one")]
    NoEndOfText {
        /// The text's row.
        row: i64,
        /// The token that was looked for.
        eot: i64,
    },
    /// The text tower has one path.
    #[error("the text tower has no long path (`text_filip_projection` and its positions): build it with one")]
    NoLongPath,
    /// The loss asks for a tensor that the batch does not hold.
    #[error("the loss needs `{what}`, which this batch does not hold: {hint}")]
    MissingInput {
        /// Which tensor.
        what: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// Texts that the model's text tower cannot read.
    #[error("set `{set}`: the text tower reads {expected}, the batch holds {found}")]
    TextKind {
        /// Which set.
        set: &'static str,
        /// What the tower reads.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The slots of a set do not ascend within its rows.
    #[error("the slots of a set must ascend and lie within its {rows} rows of {per_row}")]
    Slots {
        /// Rows.
        rows: i64,
        /// Slots of a row.
        per_row: i64,
    },
    /// No parameter has this name.
    #[error("no parameter is named `{name}`")]
    NoSuchParameter {
        /// The name asked for.
        name: String,
    },
    /// A parameter's shape in a file differs from the model's.
    #[error("`{name}` in {origin} has shape {found:?}, the model has {expected:?}: the file belongs to another preset")]
    WeightShape {
        /// The parameter.
        name: String,
        /// The file.
        origin: String,
        /// The model's shape.
        expected: Vec<i64>,
        /// The file's shape.
        found: Vec<i64>,
    },
    /// A file lacks a tensor that cannot start from scratch.
    #[error("{origin} has no tensor named `{name}`: it is not the file of a BERT encoder")]
    MissingWeight {
        /// The tensor.
        name: String,
        /// The file.
        origin: String,
    },
    /// A tensor in a file has an element type that holds no weights.
    #[error("`{name}` in {origin} is stored as {dtype}, expected F32, F16, BF16 or F64")]
    WeightDtype {
        /// The parameter.
        name: String,
        /// The file.
        origin: String,
        /// The file's element type.
        dtype: String,
    },
    /// Nothing in a file has a name of this model.
    #[error(
        "{origin} holds none of the model's {expected} parameters (its first name is `{first}`): \
             the names must be those of PixCLIP's EVA02 checkpoints (`visual.blocks.0.attn.q_proj.weight`)"
    )]
    NothingMatches {
        /// The file.
        origin: String,
        /// Parameters of the model.
        expected: usize,
        /// A name in the file, empty if it holds none.
        first: String,
    },
    /// Two sets of parameters do not have the same names and shapes.
    #[error("parameter sets differ: {detail}")]
    SetsDiffer {
        /// The first difference.
        detail: String,
    },
    /// A file is not safetensors.
    #[error("{origin} is not a readable safetensors file")]
    Safetensors {
        /// The file.
        origin: String,
        /// What the reader says.
        source: safetensors::SafeTensorError,
    },
    /// A file cannot be read or written.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A text encoder's folder lacks a file.
    #[error("{} is missing: `scripts/fetch-minilm.sh {}` fetches the text encoder", path.display(), dir.display())]
    EncoderMissing {
        /// The file.
        path: PathBuf,
        /// The folder it should be in.
        dir: PathBuf,
    },
    /// A configuration file of a text encoder cannot be read.
    #[error("{} is not the configuration of a BERT encoder", path.display())]
    EncoderConfig {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        source: serde_json::Error,
    },
    /// The tokenizer refuses its file or a text.
    #[error("tokenizer of {}", path.display())]
    Tokenizer {
        /// The tokenizer's file.
        path: PathBuf,
        /// What the tokenizer says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A loss is NaN or infinite; stopping beats writing it into the weights. Every rank finds the same.
    #[error(
        "loss {term} is {loss}: the features or the logit scale are no longer finite; resume from an earlier \
             checkpoint with a lower learning rate or a tighter `optimizer.clip_norm`"
    )]
    NotFinite {
        /// The term's short name.
        term: &'static str,
        /// Its value.
        loss: f64,
    },
    /// A trainable parameter took no part in the step: freeze it, or the ranks that wait for its gradient hang.
    #[error("backward reached no gradient of the trainable parameter `{name}`: it takes no part in this step's losses")]
    NoGradient {
        /// The parameter.
        name: String,
    },
    /// The gradients are NaN or infinite; nothing was changed. Every rank finds the same.
    #[error(
        "the global gradient norm is {norm}: no step was taken; resume from an earlier checkpoint with a lower \
             learning rate"
    )]
    NormNotFinite {
        /// The norm.
        norm: f64,
    },
    /// A saved state lacks a tensor.
    #[error("the saved state lacks `{name}`: it belongs to another model, loss or set of trainable parameters")]
    StateLacks {
        /// The tensor.
        name: String,
    },
    /// libtorch refused.
    #[error("libtorch")]
    Torch(#[from] tch::TchError),
}

impl ModelError {
    /// What a caller does about it.
    #[must_use]
    pub fn class(&self) -> Class {
        Class::Fatal
    }
}
