//! `config.json` and `preprocessor_config.json`: what the model is, in the words that transformers uses where it has any
//! (https://huggingface.co/docs/transformers/main_classes/configuration, `CLIPImageProcessor`).

use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::spec::{AlphaInit, DataSpec, Fit, LastBlock, RunSpec, TextPreset, VisionPreset};
use pixfleet_model::VisionSizes;
use pixfleet_model::clip::ClipTextConfig;
use pixfleet_shards::sample::{MASK_STD, MEAN, STD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What `model_type` says.
pub(crate) const MODEL_TYPE: &str = "pixfleet";

/// `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Config {
    /// [`MODEL_TYPE`].
    pub(crate) model_type: String,
    /// The system: `PixCLIP` or `FG-CLIP`.
    pub(crate) architectures: Vec<String>,
    pub(crate) torch_dtype: String,
    /// The version that wrote the folder.
    pub(crate) pixfleet_version: String,
    /// Optimizer steps that the weights have seen.
    pub(crate) step: u64,
    /// Width D of the joint embedding.
    pub(crate) projection_dim: i64,
    pub(crate) vision_config: VisionFacts,
    pub(crate) text_config: TextFacts,
}

/// Sizes of the vision tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VisionFacts {
    /// As a run file names it.
    pub(crate) name: VisionPreset,
    pub(crate) image_size: i64,
    pub(crate) patch_size: i64,
    pub(crate) hidden_size: i64,
    pub(crate) num_hidden_layers: i64,
    pub(crate) num_attention_heads: i64,
    pub(crate) intermediate_size: i64,
    /// Whether a picture may come with a mask.
    pub(crate) takes_mask: bool,
    /// The last block on the way to the patch map.
    pub(crate) last_block: LastBlock,
}

/// How a text becomes an embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum TextFacts {
    /// Through the adapter, from a vector of a frozen encoder.
    Adapter {
        /// The encoder and how it was asked.
        encoder: EncoderFacts,
        /// Numbers of its vectors.
        encoder_dim: u32,
        hidden_size: u32,
        num_hidden_layers: u32,
    },
    /// Through CLIP's text transformer, from token ids.
    Clip {
        /// As a run file names it.
        name: TextPreset,
        tokenizer: String,
        vocab_size: i64,
        hidden_size: i64,
        num_hidden_layers: i64,
        num_attention_heads: i64,
        intermediate_size: i64,
        /// Tokens of a short text, and of a long one where the tower reads them.
        max_position_embeddings: i64,
        long_position_embeddings: Option<i64>,
        /// Which token's feature stands for the text.
        pooling: String,
    },
}

/// The frozen text encoder, as the key of its vectors tells it (`docs/embedding.md`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EncoderFacts {
    /// The key: `minilm-plain-256`.
    pub(crate) key: String,
    pub(crate) model: String,
    /// What a text is put into.
    pub(crate) template: String,
    pub(crate) max_tokens: Option<u32>,
    /// `mean`, `last` or `eot`; absent where the key does not tell.
    pub(crate) pooling: Option<String>,
    /// Whether a token sees those after it; absent where the key does not tell.
    pub(crate) causal: Option<bool>,
}

impl EncoderFacts {
    /// Of a key `model-template-length`, where the model of an LLM ends in `_causal_mean` and its like.
    pub(crate) fn of(key: &str) -> Self {
        let mut parts = key.rsplitn(3, '-');
        let (length, template, model) = (parts.next(), parts.next(), parts.next());
        let model = model.unwrap_or(key).to_owned();
        let has = |word: &str| model.split('_').any(|part| part == word);
        let named = |words: &[&str]| words.iter().find(|word| has(word)).map(|word| (*word).to_owned());
        let known = match model.split('_').next() {
            Some("minilm") => Some("mean".to_owned()),
            Some("clip") => Some("eot".to_owned()),
            _ => None,
        };
        let causal = if has("causal") { Some(true) } else { has("both").then_some(false) };
        Self {
            key: key.to_owned(),
            template: template.unwrap_or_default().to_owned(),
            max_tokens: length.and_then(|length| length.parse().ok()),
            pooling: known.or_else(|| named(&["mean", "last"])),
            causal,
            model,
        }
    }
}

impl Config {
    /// Of a run's model after `step` steps.
    pub(crate) fn of(spec: &RunSpec, step: u64) -> Self {
        let sizes = VisionSizes::of(&spec.model);
        let is_pixclip = spec.needs().draws_region();
        Self {
            model_type: MODEL_TYPE.into(),
            architectures: vec![if is_pixclip { "PixCLIP" } else { "FG-CLIP" }.into()],
            torch_dtype: "float32".into(),
            pixfleet_version: env!("CARGO_PKG_VERSION").into(),
            step,
            projection_dim: sizes.embed(),
            vision_config: vision(spec, &sizes),
            text_config: text(spec),
        }
    }
}

fn vision(spec: &RunSpec, sizes: &VisionSizes) -> VisionFacts {
    let [patch_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size] = match sizes {
        VisionSizes::Eva(c) => [c.patch, c.width, c.depth, c.heads, c.hidden],
        VisionSizes::Clip(c) => [c.patch, c.width, c.depth, c.heads, c.hidden],
    };
    VisionFacts {
        name: spec.model.vision,
        image_size: sizes.image(),
        patch_size,
        hidden_size,
        num_hidden_layers,
        num_attention_heads,
        intermediate_size,
        takes_mask: spec.model.alpha_init != AlphaInit::None,
        last_block: spec.model.last_block,
    }
}

fn text(spec: &RunSpec) -> TextFacts {
    let long = spec.needs().has(Set::LongText);
    match ClipTextConfig::of(&spec.model, long) {
        None => TextFacts::Adapter {
            encoder: EncoderFacts::of(&spec.data.vectors),
            encoder_dim: spec.model.text_proj.width,
            hidden_size: spec.model.text_proj.hidden,
            num_hidden_layers: spec.model.text_proj.layers,
        },
        Some(c) => TextFacts::Clip {
            name: spec.model.text,
            tokenizer: spec.data.tokenizer.clone(),
            vocab_size: c.vocab,
            hidden_size: c.width,
            num_hidden_layers: c.depth,
            num_attention_heads: c.heads,
            intermediate_size: c.hidden,
            max_position_embeddings: c.short_positions,
            long_position_embeddings: long.then(|| c.long_positions()),
            pooling: "eot".into(),
        },
    }
}

/// `preprocessor_config.json`. What `CLIPImageProcessor` has no word for begins with `mask_` or `pad_`.
pub(crate) fn preprocessor(data: &DataSpec, config: &Config) -> Value {
    let side = config.vision_config.image_size;
    let mut all = json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": true,
        "do_resize": true,
        "size": {"height": side, "width": side},
        "resample": 3,
        "do_center_crop": false,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": MEAN.map(written),
        "image_std": STD.map(written),
        // Zeros on both sides of the shorter edge make a picture square before it is resized.
        "pad_to_square": data.fit == Fit::Pad,
    });
    if config.vision_config.takes_mask {
        all["mask_mean"] = json!(0.5);
        all["mask_std"] = json!(written(MASK_STD));
        all["mask_full_value"] = json!(data.full_mask_value);
    }
    all
}

/// A number of fp32 with the digits that it is written with, and not all that fp64 has of it.
fn written(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}
