//! Large language models as frozen text encoders: text -> one vector. Families are told apart by `architectures` in the
//! `config.json` of a Hugging Face folder.
//!
//! | family | attention | template | pooling | source |
//! |---|---|---|---|---|
//! | Llama | both ways | Llama 3's user turn | mean of the text's tokens | LLM2Vec, LLM2CLIP; method.md 1.5 |
//! | Gemma 3 | causal | plain | mean of the text's tokens | transformers' `Gemma3TextModel` |
//! | Qwen 3 | causal | plain | last token | transformers' `Qwen3Model`; Qwen3-Embedding pools so |
//!
//! These are defaults; each can be chosen. Vectors are fp32 and not normalized. Batches are of texts of like length and
//! hold a budget of tokens, so that little of them is padding.

mod block;
mod config;
mod error;
mod files;
mod rope;
mod stack;
#[cfg(test)]
mod tests;
mod text;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

pub use config::Family;
pub use error::LlmError;
pub use text::{LlmTokens, Template, TextRule};

use crate::packing::{in_order, pack};
use crate::params::Compute;
use config::LlmConfig;
use files::Files;
use stack::Stack;
use text::Texts;

/// Padded tokens of one batch on a CPU: the widest activations of a small model stay in its caches.
const CPU_BATCH_TOKENS: usize = 1024;
/// Padded tokens of one batch on a GPU: enough to keep it busy with a model of a billion weights and more.
const GPU_BATCH_TOKENS: usize = 16_384;
/// Letters of a text in a message.
const LETTERS: usize = 60;

/// How the last hidden states of a text become its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over [`LlmTokens::pooled`].
    Mean,
    /// The last token's.
    Last,
}

/// What the vectors of a model depend on, beside its weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LlmOptions {
    /// How texts become tokens.
    pub rule: TextRule,
    /// How tokens become a vector.
    pub pooling: Pooling,
    /// Whether a token sees only those before it.
    pub causal: bool,
    /// Arithmetic of matrix products and attention; all between them is fp32.
    pub compute: Compute,
}

/// LLM2Vec's `max_length` for PixCLIP (method.md 1.5).
pub const LENGTH: usize = 512;

impl LlmOptions {
    /// What suits a family; see the module.
    #[must_use]
    pub fn of(family: Family, compute: Compute) -> Self {
        let (template, pooling) = match family {
            Family::Llama => (Template::Llama3, Pooling::Mean),
            Family::Gemma3 => (Template::Plain, Pooling::Mean),
            Family::Qwen3 => (Template::Plain, Pooling::Last),
        };
        let rule = TextRule { template, length: LENGTH, text_length: LENGTH };
        Self { rule, pooling, causal: family.is_causal(), compute }
    }
}

/// A folder that was looked at, before its weights are loaded.
#[derive(Debug)]
pub struct LlmFolder {
    config: LlmConfig,
    files: Files,
    dir: PathBuf,
}

impl LlmFolder {
    /// Reads `config.json` and the headers of the weights, which are mapped.
    ///
    /// # Errors
    /// What is missing, unreadable or of another family.
    pub fn open(dir: &Path) -> Result<Self, LlmError> {
        let config = dir.join("config.json");
        if !config.is_file() {
            return Err(LlmError::Missing { path: config });
        }
        Ok(Self { config: LlmConfig::read(&config)?, files: Files::open(dir)?, dir: dir.to_owned() })
    }

    /// Which family it is.
    #[must_use]
    pub fn family(&self) -> Family {
        self.config.family
    }

    /// Whether its own configuration says that attention goes both ways.
    #[must_use]
    pub fn is_bidirectional(&self) -> bool {
        self.config.bidirectional
    }

    /// As [`fingerprint`].
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn fingerprint(&self) -> Result<String, LlmError> {
        print(&self.dir, &self.files)
    }
}

/// Eight hexadecimal digits that tell the weights, configuration and tokenizer of a folder from others: of the weights,
/// names, shapes and the first 4 KiB of each tensor; of a tokenizer, if there is a file of it.
///
/// # Errors
/// What is missing or cannot be read.
pub fn fingerprint(dir: &Path) -> Result<String, LlmError> {
    print(dir, &Files::open(dir)?)
}

fn print(dir: &Path, files: &Files) -> Result<String, LlmError> {
    let mut hash = blake3::Hasher::new();
    for path in [dir.join("config.json"), dir.join("tokenizer.json")] {
        match std::fs::read(&path) {
            Ok(bytes) => {
                hash.update(&bytes);
            }
            Err(error) if error.kind() == ErrorKind::NotFound && path.ends_with("tokenizer.json") => {}
            Err(source) => return Err(LlmError::Io { path, source }),
        }
    }
    files.sample(&mut hash)?;
    Ok(hash.finalize().to_hex()[..8].to_owned())
}

/// A loaded text encoder.
#[derive(Debug)]
pub struct Llm {
    texts: Texts,
    stack: Stack,
    pooling: Pooling,
    width: i64,
    vocab: i64,
}

impl Llm {
    /// Loads the weights onto `device`. On a CPU those that are stored as they are multiplied stay pages of their files,
    /// which processes on one machine share.
    ///
    /// # Errors
    /// What is missing or does not fit `config.json`; no memory.
    pub fn load(folder: &LlmFolder, options: LlmOptions, device: Device) -> Result<Self, LlmError> {
        let _guard = tch::no_grad_guard();
        let texts = Texts::load(&folder.dir, options.rule)?;
        let stack = Stack::load(&folder.files, &folder.config, options.causal, options.compute, device)?;
        let LlmConfig { width, vocab, .. } = folder.config;
        Ok(Self { texts, stack, pooling: options.pooling, width, vocab })
    }

    /// Width of the vectors.
    #[must_use]
    pub fn width(&self) -> i64 {
        self.width
    }

    /// The tokens of each text.
    ///
    /// # Errors
    /// If the tokenizer refuses a text, or gives ids that the model lacks.
    pub fn tokens<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<LlmTokens>, LlmError> {
        let tokens = self.texts.tokens(texts)?;
        for (text, tokens) in texts.iter().zip(&tokens) {
            if tokens.ids.is_empty() {
                return Err(LlmError::NoTokens { text: shown(text.as_ref()) });
            }
            if let Some(&id) = tokens.ids.iter().find(|&&id| id >= self.vocab) {
                return Err(LlmError::TokenOutside { path: self.texts.path().to_owned(), id, vocab: self.vocab });
            }
        }
        Ok(tokens)
    }

    /// `texts` -> [n, width] fp32 on the CPU, in the order of the texts.
    ///
    /// # Errors
    /// As [`Llm::tokens`]; [`LlmError::NotFinite`]; what libtorch refuses.
    pub fn encode<S: AsRef<str>>(&self, texts: &[S]) -> Result<Tensor, LlmError> {
        let _guard = tch::no_grad_guard();
        let tokens = self.tokens(texts)?;
        let lengths: Vec<usize> = tokens.iter().map(|t| t.ids.len()).collect();
        let budget = if self.stack.device().is_cuda() { GPU_BATCH_TOKENS } else { CPU_BATCH_TOKENS };
        let batches = pack(&lengths, budget);
        let mut vectors = vec![Tensor::zeros([0, self.width], (Kind::Float, Device::Cpu))];
        for batch in &batches {
            let batch: Vec<&LlmTokens> = batch.iter().map(|&i| &tokens[i]).collect();
            vectors.push(self.batch(&batch)?.to_device(Device::Cpu));
        }
        let vectors = Tensor::cat(&vectors, 0).index_select(0, &in_order(&batches));
        let finite = Vec::<bool>::try_from(vectors.isfinite().all_dim(1, false))?;
        if let Some(bad) = finite.iter().position(|finite| !finite) {
            return Err(LlmError::NotFinite { text: shown(texts[bad].as_ref()) });
        }
        Ok(vectors)
    }

    /// Texts, the longest last -> [n, width].
    fn batch(&self, texts: &[&LlmTokens]) -> Result<Tensor, LlmError> {
        let longest = texts.iter().map(|t| t.ids.len()).max().unwrap_or_default();
        let cells = texts.len() * longest;
        let (mut ids, mut attended, mut pooled) = (vec![0i64; cells], vec![false; cells], vec![0f32; cells]);
        for (row, text) in texts.iter().enumerate() {
            let (start, end) = (row * longest, row * longest + text.ids.len());
            ids[start..end].copy_from_slice(&text.ids);
            attended[start..end].fill(true);
            let count = match self.pooling {
                Pooling::Mean => text.pooled.max(1),
                Pooling::Last => 1,
            };
            pooled[end - count..end].fill(1.0 / count as f32);
        }
        let padded = attended.contains(&false);
        let shape = [texts.len() as i64, longest as i64];
        let there = |t: Tensor| t.reshape(shape).to_device(self.stack.device());
        let (ids, attended) = (there(Tensor::from_slice(&ids)), there(Tensor::from_slice(&attended)));
        let hidden = self.stack.forward(&ids, padded.then_some(&attended));
        // What padding came to must not reach a vector, not even as NaN times zero.
        let hidden = hidden.masked_fill(&attended.logical_not().unsqueeze(-1), 0.0);
        Ok(there(Tensor::from_slice(&pooled)).unsqueeze(1).f_bmm(&hidden)?.squeeze_dim(1))
    }
}

fn shown(text: &str) -> String {
    text.chars().take(LETTERS).collect()
}
