//! `config.json` of a language model as transformers writes it: which family it is, its sizes, and what its blocks have.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::error::LlmError;
use super::rope::{Rope, Scaling};

/// A family of language models that can encode texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3, and LLM2Vec's encoders over them.
    Llama,
    /// Gemma 3, text only.
    Gemma3,
    /// Qwen 3, dense.
    Qwen3,
}

/// The names in `architectures` by family. LLM2CLIP's files call theirs `LlamaEncoderModel`.
const ARCHITECTURES: [(&str, Family); 8] = [
    ("LlamaForCausalLM", Family::Llama),
    ("LlamaModel", Family::Llama),
    ("LlamaEncoderModel", Family::Llama),
    ("LlamaBiModel", Family::Llama),
    ("Gemma3ForCausalLM", Family::Gemma3),
    ("Gemma3TextModel", Family::Gemma3),
    ("Qwen3ForCausalLM", Family::Qwen3),
    ("Qwen3Model", Family::Qwen3),
];

impl Family {
    /// The architectures that are known, for messages.
    pub(crate) fn known() -> String {
        ARCHITECTURES.map(|(name, _)| name).join(", ")
    }

    /// Whether a text token sees those after it unless somebody says otherwise: LLM2Vec's way for Llama (method.md 1.5);
    /// the other families as they were trained.
    #[must_use]
    pub fn is_causal(self) -> bool {
        self != Self::Llama
    }
}

/// Which positions a layer's tokens see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sees {
    All,
    /// Those fewer than so many away.
    Window(i64),
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct LlmConfig {
    pub(crate) family: Family,
    pub(crate) width: i64,
    pub(crate) hidden: i64,
    pub(crate) heads: i64,
    pub(crate) kv_heads: i64,
    pub(crate) head_dim: i64,
    pub(crate) vocab: i64,
    pub(crate) eps: f64,
    /// Queries are multiplied by it.
    pub(crate) scale: f64,
    /// Biases of the projections of attention.
    pub(crate) attention_bias: bool,
    pub(crate) mlp_bias: bool,
    /// For each layer.
    pub(crate) sees: Vec<Sees>,
    /// Of layers that see all.
    pub(crate) rope: Rope,
    /// Of layers that see a window.
    pub(crate) rope_local: Rope,
    /// Whether the file itself says that attention goes both ways.
    pub(crate) bidirectional: bool,
}

/// The keys that matter, under transformers' names.
#[derive(Deserialize)]
struct Raw {
    architectures: Vec<String>,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: usize,
    num_attention_heads: i64,
    num_key_value_heads: Option<i64>,
    head_dim: Option<i64>,
    vocab_size: i64,
    rms_norm_eps: Option<f64>,
    query_pre_attn_scalar: Option<f64>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    sliding_window: Option<i64>,
    #[serde(alias = "_sliding_window_pattern")]
    sliding_window_pattern: Option<usize>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    use_bidirectional_attention: Option<bool>,
    attn_logit_softcapping: Option<f64>,
}

/// What is wrong with one key.
struct Wrong {
    key: &'static str,
    found: String,
    expected: String,
}

impl Wrong {
    fn new(key: &'static str, found: impl ToString, expected: impl ToString) -> Self {
        Self { key, found: found.to_string(), expected: expected.to_string() }
    }
}

impl LlmConfig {
    /// Reads and checks the file.
    pub(crate) fn read(path: &Path) -> Result<Self, LlmError> {
        let bytes = std::fs::read(path).map_err(|source| LlmError::Io { path: path.to_owned(), source })?;
        let json = |source| LlmError::Json { path: path.to_owned(), what: "a language model's configuration", source };
        let raw: Raw = serde_json::from_slice(&bytes).map_err(json)?;
        let of = |name: &String| ARCHITECTURES.iter().find(|(known, _)| known == name).map(|(_, family)| *family);
        let Some(family) = raw.architectures.iter().find_map(of) else {
            return Err(LlmError::Architecture { path: path.to_owned(), found: raw.architectures });
        };
        Self::check(family, &raw).map_err(|wrong| LlmError::Setting {
            path: path.to_owned(),
            key: wrong.key,
            found: wrong.found,
            expected: wrong.expected,
        })
    }

    fn check(family: Family, raw: &Raw) -> Result<Self, Wrong> {
        let heads = raw.num_attention_heads;
        let kv_heads = raw.num_key_value_heads.unwrap_or(heads);
        if heads < 1 || kv_heads < 1 || heads % kv_heads != 0 {
            return Err(Wrong::new("num_key_value_heads", kv_heads, format!("a divisor of {heads} heads")));
        }
        let head_dim = raw.head_dim.unwrap_or(raw.hidden_size / heads);
        if head_dim < 2 || head_dim % 2 != 0 {
            return Err(Wrong::new("head_dim", head_dim, "an even number"));
        }
        let act = raw.hidden_activation.as_ref().or(raw.hidden_act.as_ref());
        let expected = if family == Family::Gemma3 { "gelu_pytorch_tanh" } else { "silu" };
        if let Some(found) = act.filter(|act| *act != expected) {
            return Err(Wrong::new("hidden_act", found, expected));
        }
        if let Some(cap) = raw.attn_logit_softcapping {
            return Err(Wrong::new("attn_logit_softcapping", cap, "null, as in Gemma 3"));
        }
        let scalar = raw.query_pre_attn_scalar.unwrap_or(head_dim as f64);
        Ok(Self {
            family,
            width: raw.hidden_size,
            hidden: raw.intermediate_size,
            heads,
            kv_heads,
            head_dim,
            vocab: raw.vocab_size,
            eps: raw.rms_norm_eps.unwrap_or(1e-6),
            scale: scalar.powf(-0.5),
            attention_bias: raw.attention_bias,
            mlp_bias: raw.mlp_bias,
            sees: sees(family, raw)?,
            rope: rope(raw, "full_attention")?,
            rope_local: rope(raw, "sliding_attention")?,
            bidirectional: raw.use_bidirectional_attention == Some(true),
        })
    }

    /// Half of the heads' width turns with the other half; each of these groups of query heads shares keys and values.
    pub(crate) fn queries_per_key(&self) -> i64 {
        self.heads / self.kv_heads
    }
}

/// What each layer's tokens see.
fn sees(family: Family, raw: &Raw) -> Result<Vec<Sees>, Wrong> {
    let layers = raw.num_hidden_layers;
    let window = || {
        let found = raw.sliding_window.filter(|&w| w > 0);
        // Both ways, half of the window lies on each side (transformers' Gemma3TextConfig).
        let halved = |w: i64| if raw.use_bidirectional_attention == Some(true) { w / 2 + 1 } else { w };
        found.map(halved).map(Sees::Window).ok_or_else(|| Wrong::new("sliding_window", "missing", "a width"))
    };
    if let Some(types) = &raw.layer_types {
        if types.len() != layers {
            return Err(Wrong::new("layer_types", types.len(), format!("one for each of {layers} layers")));
        }
        let of = |kind: &String| match kind.as_str() {
            "full_attention" => Ok(Sees::All),
            "sliding_attention" => window(),
            other => Err(Wrong::new("layer_types", other, "full_attention or sliding_attention")),
        };
        return types.iter().map(of).collect();
    }
    if family == Family::Gemma3 {
        // Every sixth layer sees all, unless the file says otherwise.
        let pattern = raw.sliding_window_pattern.unwrap_or(6).max(1);
        return (1..=layers).map(|i| if i % pattern == 0 { Ok(Sees::All) } else { window() }).collect();
    }
    if raw.use_sliding_window == Some(true) {
        return Err(Wrong::new("use_sliding_window", true, "layer_types beside it, which say where"));
    }
    Ok(vec![Sees::All; layers])
}

/// The rotation of one kind of layer, from the keys of transformers 5 (`rope_parameters`, flat or by kind of layer) or of
/// those before it.
fn rope(raw: &Raw, kind: &str) -> Result<Rope, Wrong> {
    let local = kind == "sliding_attention";
    let parameters = raw.rope_parameters.as_ref().map(|p| p.get(kind).unwrap_or(p));
    let older = if local && raw.rope_local_base_freq.is_some() { None } else { raw.rope_scaling.as_ref() };
    let stretch = parameters.or(older);
    let number = |key: &str| stretch.and_then(|s| s.get(key)).and_then(Value::as_f64);
    let older_theta = if local { raw.rope_local_base_freq.or(raw.rope_theta) } else { raw.rope_theta };
    let theta = number("rope_theta").or(older_theta).unwrap_or(10_000.0);
    let name = stretch.and_then(|s| s.get("rope_type").or(s.get("type"))).and_then(Value::as_str);
    let want = |key: &'static str| number(key).ok_or_else(|| Wrong::new(key, "missing", "a number"));
    let scaling = match name.unwrap_or("default") {
        "default" => Scaling::None,
        "linear" => Scaling::Linear { factor: want("factor")? },
        "llama3" => Scaling::Llama3 {
            factor: want("factor")?,
            low: want("low_freq_factor")?,
            high: want("high_freq_factor")?,
            original: want("original_max_position_embeddings")?,
        },
        other => return Err(Wrong::new("rope_type", other, "default, linear or llama3")),
    };
    Ok(Rope { theta, scaling })
}
