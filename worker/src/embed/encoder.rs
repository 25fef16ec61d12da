//! Which text encoder, what its vectors depend on, and the encoder itself.

use super::Args;
use super::clip::ClipEncoder;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use pixfleet_model::bert::{MAX_TOKENS, MiniLm};
use pixfleet_model::llm::{Family, Llm, LlmError, LlmFolder, LlmOptions, Pooling, Template, fingerprint};
use pixfleet_model::{Compute, ModelError};
use pixfleet_shards::TokenizerError;
use pixfleet_shards::text_vectors::vector_key;
use pixfleet_shards::tokens::SHORT_TOKENS;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// A text encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum EncoderKind {
    /// all-MiniLM-L6-v2: BERT, 6 layers, 384 numbers, mean pooling, L2-normalized.
    Minilm,
    /// CLIP's text tower (transformers' CLIPModel), 77 tokens, L2-normalized.
    Clip,
    /// A Llama as LLM2Vec and LLM2CLIP read it: both ways, Llama 3's template, mean of the text's tokens.
    Llm2vec,
    /// A language model by the `architectures` of its config.json: Llama, Gemma 3 or Qwen 3.
    Llm,
}

/// Arithmetic of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum EncoderPrecision {
    /// fp32 throughout.
    Fp32,
    /// Matrix products and attention in bf16.
    Bf16,
}

/// How the last hidden states become a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PoolingKind {
    /// The mean over the text's own tokens and what stands behind them.
    Mean,
    /// The last token's.
    Last,
}

/// What stands around a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TemplateKind {
    /// Nothing but what the tokenizer itself adds.
    Plain,
    /// A user's turn of Llama 3 Instruct.
    Llama3,
}

/// What the encoder failed at.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncoderError {
    /// MiniLM.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A language model.
    #[error(transparent)]
    Llm(#[from] LlmError),
    /// CLIP's tokenizer.
    #[error(transparent)]
    Tokens(#[from] TokenizerError),
    /// CLIP's folder.
    #[error("{0:#}")]
    Clip(anyhow::Error),
    /// Somebody pressed Ctrl-C, or the machine is wanted elsewhere.
    #[error("stopped")]
    Stopped,
}

/// An encoder that was looked at and not loaded yet: a process that finds nothing to do never loads it.
pub(super) enum Chosen {
    MiniLm { weights: PathBuf, compute: Compute },
    Clip { weights: PathBuf, compute: Compute, name: String },
    Llm { folder: Box<LlmFolder>, options: LlmOptions, name: String },
}

impl Chosen {
    pub(super) fn of(args: &Args) -> Result<Self> {
        let compute = match args.precision {
            EncoderPrecision::Fp32 => Compute::FP32,
            EncoderPrecision::Bf16 => Compute::BF16,
        };
        let weights = args.weights.clone();
        match args.encoder {
            EncoderKind::Minilm => {
                fixed(args)?;
                if args.name.is_some() {
                    bail!("--name is for clip, llm2vec and llm: MiniLM is one model");
                }
                Ok(Self::MiniLm { weights, compute })
            }
            EncoderKind::Clip => {
                fixed(args)?;
                let name = name(args, "clip", || fingerprint(&weights))?;
                Ok(Self::Clip { weights, compute, name })
            }
            EncoderKind::Llm2vec | EncoderKind::Llm => Self::llm(args, compute),
        }
    }

    fn llm(args: &Args, compute: Compute) -> Result<Self> {
        let folder = LlmFolder::open(&args.weights)?;
        let family = folder.family();
        if args.encoder == EncoderKind::Llm2vec && family != Family::Llama {
            bail!("{} is a {family:?}; llm2vec reads Llamas: use --encoder llm", args.weights.display());
        }
        let options = options(args, &folder, compute)?;
        let name = name(args, &format!("{family:?}").to_lowercase(), || folder.fingerprint())?;
        Ok(Self::Llm { folder: Box::new(folder), options, name })
    }

    /// The key of its vectors: all that they depend on.
    pub(super) fn key(&self) -> String {
        match self {
            Self::MiniLm { compute, .. } => {
                let model = if *compute == Compute::BF16 { "minilm_bf16" } else { "minilm" };
                vector_key(model, "plain", MAX_TOKENS as u32)
            }
            Self::Clip { compute, name, .. } => {
                let model = if *compute == Compute::BF16 { format!("{name}_bf16") } else { name.clone() };
                vector_key(&model, "plain", SHORT_TOKENS as u32)
            }
            Self::Llm { options, name, .. } => {
                let pooling = match options.pooling {
                    Pooling::Mean => "mean",
                    Pooling::Last => "last",
                };
                let sees = if options.causal { "causal" } else { "both" };
                let bf16 = if options.compute == Compute::BF16 { "_bf16" } else { "" };
                let rule = options.rule;
                let trimmed =
                    if rule.text_length < rule.length { format!("_{}", rule.text_length) } else { String::new() };
                let template = format!("{}{trimmed}", rule.template.name());
                vector_key(&format!("{name}_{sees}_{pooling}{bf16}"), &template, rule.length as u32)
            }
        }
    }

    pub(super) fn load(&self, device: Device) -> Result<Encoder, EncoderError> {
        Ok(match self {
            Self::MiniLm { weights, compute } => Encoder::MiniLm(MiniLm::load(weights, device)?, *compute),
            Self::Clip { weights, compute, .. } => {
                Encoder::Clip(ClipEncoder::load(weights, *compute, device).map_err(EncoderError::Clip)?)
            }
            Self::Llm { folder, options, .. } => Encoder::Llm(Llm::load(folder, *options, device)?),
        })
    }
}

/// The encoder of `weights` whose vectors have `key`: what [`Chosen::key`] writes, read back.
///
/// # Errors
/// A key that has not the form of one, weights of another kind.
pub(super) fn by_key(key: &str, weights: &Path) -> Result<Chosen> {
    let parts: Vec<&str> = key.split('-').collect();
    let no_key =
        || format!("`{key}` is no key of `pixfleet shards embed`: <model>-<template>-<tokens>, as minilm-plain-256");
    let [model, template, tokens] = parts.as_slice() else { bail!(no_key()) };
    let tokens: usize = tokens.parse().with_context(no_key)?;
    let (model, compute) = model.strip_suffix("_bf16").map_or((*model, Compute::FP32), |model| (model, Compute::BF16));
    let weights = weights.to_owned();
    if model == "minilm" {
        return Ok(Chosen::MiniLm { weights, compute });
    }
    let Some((name, pooling, causal)) = seen(model) else {
        let name = named(model, "clip", || fingerprint(&weights))?;
        return Ok(Chosen::Clip { weights, compute, name });
    };
    let folder = LlmFolder::open(&weights)?;
    let kind = format!("{:?}", folder.family()).to_lowercase();
    let name = named(name, &kind, || folder.fingerprint())?;
    let mut options = LlmOptions::of(folder.family(), compute);
    (options.pooling, options.causal) = (pooling, causal);
    let (template, text_length) = match template.split_once('_') {
        Some((template, length)) => (template, length.parse().with_context(|| format!("the key `{key}`"))?),
        None => (*template, tokens),
    };
    let known = [Template::Plain, Template::Llama3].into_iter().find(|t| t.name() == template);
    options.rule.template = known.with_context(|| format!("the key `{key}` has an unknown template `{template}`"))?;
    (options.rule.length, options.rule.text_length) = (tokens, text_length);
    Ok(Chosen::Llm { folder: Box::new(folder), options, name })
}

/// Name, pooling and sight of a language model's part of a key; `None` for other encoders.
pub(super) fn seen(model: &str) -> Option<(&str, Pooling, bool)> {
    let (rest, pooling) = model.rsplit_once('_')?;
    let (name, sees) = rest.rsplit_once('_')?;
    let pooling = match pooling {
        "mean" => Pooling::Mean,
        "last" => Pooling::Last,
        _ => return None,
    };
    match sees {
        "causal" => Some((name, pooling, true)),
        "both" => Some((name, pooling, false)),
        _ => None,
    }
}

/// The model's name in a key. Where it was not chosen by a person it is a fingerprint of the weights, taken anew.
fn named(name: &str, kind: &str, print: impl FnOnce() -> Result<String, LlmError>) -> Result<String> {
    let prefix = format!("{kind}_");
    let is_print = name.strip_prefix(&prefix).is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()));
    Ok(if is_print { format!("{prefix}{}", print()?) } else { name.to_owned() })
}

/// Refuses what only a language model leaves to choose.
fn fixed(args: &Args) -> Result<()> {
    let chosen = [args.pooling.is_some(), args.template.is_some(), args.length.is_some(), args.causal.is_some()];
    if chosen.contains(&true) || args.text_length.is_some() {
        bail!("--pooling, --template, --length, --text-length and --causal are for llm2vec and llm");
    }
    Ok(())
}

/// The model's part of the key.
fn name(args: &Args, kind: &str, print: impl FnOnce() -> Result<String, LlmError>) -> Result<String> {
    Ok(match &args.name {
        Some(name) if name.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c)) => name.clone(),
        Some(name) => bail!("--name {name}: letters, digits, `.` and `_` only, for it is part of paths"),
        None => format!("{kind}_{}", print()?),
    })
}

fn options(args: &Args, folder: &LlmFolder, compute: Compute) -> Result<LlmOptions> {
    let mut options = LlmOptions::of(folder.family(), compute);
    let causal = if folder.is_bidirectional() { Some(false) } else { None };
    options.causal = args.causal.or(causal).unwrap_or(options.causal);
    if let Some(pooling) = args.pooling {
        options.pooling = match pooling {
            PoolingKind::Mean => Pooling::Mean,
            PoolingKind::Last => Pooling::Last,
        };
    }
    if let Some(template) = args.template {
        options.rule.template = match template {
            TemplateKind::Plain => Template::Plain,
            TemplateKind::Llama3 => Template::Llama3,
        };
    }
    if let Some(length) = args.length {
        (options.rule.length, options.rule.text_length) = (length, length);
    }
    options.rule.text_length = args.text_length.unwrap_or(options.rule.text_length);
    if options.rule.length < 8 || options.rule.text_length < 1 {
        bail!("--length is at least 8 tokens, of which a template takes some, and --text-length at least 1");
    }
    Ok(options)
}

/// A loaded encoder.
pub(super) enum Encoder {
    MiniLm(MiniLm, Compute),
    Clip(ClipEncoder),
    Llm(Llm),
}

impl Encoder {
    /// [n, width] fp32 on the CPU.
    pub(super) fn encode(&self, texts: &[&str]) -> Result<Tensor, EncoderError> {
        Ok(match self {
            Self::MiniLm(minilm, compute) => minilm.encode(texts, *compute)?,
            Self::Clip(clip) => clip.encode(texts)?,
            Self::Llm(llm) => llm.encode(texts)?,
        })
    }
}
