//! What can be told without published weights; `make llm-peers` holds the families against transformers.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::*;
use crate::params::save_tensors;

/// A folder of a tiny model with random weights and a tokenizer of words.
fn folder(config: Value, shards: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("a file");
    write("config.json", config.to_string().as_bytes());
    write("tokenizer.json", tokenizer().to_string().as_bytes());
    tch::manual_seed(7);
    let tensors = tensors(&config);
    let mut map = BTreeMap::new();
    for shard in 0..shards {
        let mine = tensors.iter().enumerate().filter(|(i, _)| i % shards == shard).map(|(_, t)| t);
        let name = if shards == 1 { "model.safetensors".into() } else { format!("model-{shard}.safetensors") };
        mine.clone().for_each(|(tensor, _)| drop(map.insert(tensor.clone(), name.clone())));
        write(&name, &save_tensors(mine.map(|(name, t)| (name.as_str(), t))).expect("bytes"));
    }
    if shards > 1 {
        write("model.safetensors.index.json", json!({ "weight_map": map }).to_string().as_bytes());
    }
    folder
}

fn tokenizer() -> Value {
    let words = "[UNK] <bos> <|eot_id|> user a red fox sits on the old stone wall and looks at us";
    let vocab: serde_json::Map<String, Value> =
        words.split(' ').enumerate().map(|(id, word)| (word.to_owned(), json!(id))).collect();
    json!({
        "version": "1.0",
        "added_tokens": [
            { "id": 2, "content": "<|eot_id|>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false },
        ],
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<bos>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "<bos>": { "id": "<bos>", "ids": [1], "tokens": ["<bos>"] } },
        },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
    })
}

fn config(architecture: &str) -> Value {
    json!({
        "architectures": [architecture], "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 24, "rms_norm_eps": 1e-6,
        "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_theta": 10000.0,
    })
}

fn tensors(config: &Value) -> Vec<(String, Tensor)> {
    let size = |key: &str| config[key].as_i64().expect("a number");
    let (width, hidden) = (size("hidden_size"), size("intermediate_size"));
    let (q, kv) = (size("num_attention_heads") * 16, size("num_key_value_heads") * 16);
    let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.2;
    let mut all = vec![("model.embed_tokens.weight".to_owned(), random(&[size("vocab_size"), width]))];
    for i in 0..size("num_hidden_layers") {
        let mut add = |name: &str, shape: &[i64]| all.push((format!("model.layers.{i}.{name}.weight"), random(shape)));
        for (name, rows) in [("q", q), ("k", kv), ("v", kv)] {
            add(&format!("self_attn.{name}_proj"), &[rows, width]);
        }
        add("self_attn.o_proj", &[width, q]);
        for name in ["self_attn.q_norm", "self_attn.k_norm"] {
            add(name, &[16]);
        }
        for (name, shape) in [("gate", [hidden, width]), ("up", [hidden, width]), ("down", [width, hidden])] {
            add(&format!("mlp.{name}_proj"), &shape);
        }
        for name in ["input", "post_attention", "pre_feedforward", "post_feedforward"] {
            add(&format!("{name}_layernorm"), &[width]);
        }
    }
    all.push(("model.norm.weight".to_owned(), random(&[width])));
    all
}

fn load(folder: &Path, change: impl Fn(&mut LlmOptions)) -> Llm {
    let folder = LlmFolder::open(folder).expect("a good folder");
    let mut options = LlmOptions::of(folder.family(), Compute::FP32);
    options.rule = TextRule { template: Template::Plain, length: 12, text_length: 12 };
    change(&mut options);
    Llm::load(&folder, options, Device::Cpu).expect("good weights")
}

const TEXTS: [&str; 4] =
    ["a red fox", "the old stone wall and a fox sits on the wall", "a", "us looks at a red fox on the wall"];

fn furthest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn a_texts_vector_is_its_own_whatever_stands_beside_it() {
    for architecture in ["LlamaModel", "Gemma3TextModel", "Qwen3ForCausalLM"] {
        let folder = folder(config(architecture), 1);
        for (causal, pooling) in
            [(true, Pooling::Mean), (false, Pooling::Mean), (true, Pooling::Last), (false, Pooling::Last)]
        {
            let llm = load(folder.path(), |o| (o.causal, o.pooling) = (causal, pooling));
            let together = llm.encode(&TEXTS).expect("vectors");
            assert_eq!(together.size(), [4, 32]);
            for (i, text) in TEXTS.iter().enumerate() {
                let alone = llm.encode(&[text]).expect("a vector").get(0);
                let apart = furthest(&alone, &together.get(i as i64));
                assert!(apart < 1e-5, "{architecture}, causal {causal}, {pooling:?}, `{text}`: {apart:e}");
            }
            assert!(furthest(&together.get(0), &together.get(3)) > 1e-2, "different texts, different vectors");
        }
    }
}

#[test]
fn who_sees_nothing_that_comes_later_gives_a_prefix_the_same_states() {
    let folder = folder(config("Qwen3Model"), 1);
    let last = |causal| load(folder.path(), |o| (o.causal, o.pooling) = (causal, Pooling::Mean));
    // The mean over a prefix of a text says nothing of what follows; so compare states through means of both.
    let (causal, both) = (last(true), last(false));
    let first = |llm: &Llm, text: &str| llm.encode(&[text]).expect("a vector").get(0);
    let (short, long) = ("a red", "a red fox");
    let state = |llm: &Llm| first(llm, long) * 3.0 - first(llm, short) * 2.0;
    let third =
        load(folder.path(), |o| (o.causal, o.pooling) = (true, Pooling::Last)).encode(&[long]).expect("a vector");
    assert!(furthest(&state(&causal), &third.get(0)) < 1e-5, "causal: the first two states are those of the prefix");
    assert!(furthest(&state(&both), &third.get(0)) > 1e-3, "both ways: they are not");
}

#[test]
fn shards_hold_the_same_as_one_file_and_bf16_is_near() {
    let (one, three) = (folder(config("Gemma3TextModel"), 1), folder(config("Gemma3TextModel"), 3));
    let whole = load(one.path(), |_| {}).encode(&TEXTS).expect("vectors");
    let parts = load(three.path(), |_| {}).encode(&TEXTS).expect("vectors");
    assert_eq!(furthest(&whole, &parts), 0.0);
    let bf16 = load(one.path(), |o| o.compute = Compute::BF16).encode(&TEXTS).expect("vectors");
    let cosine = Tensor::cosine_similarity(&whole, &bf16, 1, 1e-9).min().double_value(&[]);
    assert!(cosine > 0.999 && furthest(&whole, &bf16) > 0.0, "{cosine}");
    let print = |folder: &Path| LlmFolder::open(folder).expect("a folder").fingerprint().expect("readable");
    assert_eq!(print(one.path()), print(three.path()));
    std::fs::write(one.path().join("tokenizer.json"), "{}").expect("written");
    assert_ne!(print(one.path()), print(three.path()));
}

#[test]
fn a_template_and_trimming_decide_what_is_read_and_pooled() {
    let folder = folder(config("LlamaModel"), 1);
    let tokens = |template, length, text_length, text: &str| {
        let llm = load(folder.path(), |o| o.rule = TextRule { template, length, text_length });
        let mut tokens = llm.tokens(&[text]).expect("tokens");
        tokens.pop().map(|t| (t.ids, t.pooled)).expect("one text")
    };
    // `<bos>`, then the text.
    assert_eq!(tokens(Template::Plain, 12, 12, "a red fox"), (vec![1, 4, 5, 6], 3));
    assert_eq!(tokens(Template::Plain, 3, 3, "a red fox"), (vec![1, 4, 5], 3), "cut, as LLM2Vec counts it");
    assert_eq!(tokens(Template::Plain, 12, 2, "a red fox"), (vec![1, 4, 5], 2), "whole words dropped");
    let (ids, pooled) = tokens(Template::Llama3, 40, 40, "a red fox \n");
    assert_eq!((&ids[ids.len() - 4..], pooled), (&[4, 5, 6, 2][..], 4), "the text, stripped, and the end of the turn");
    assert_eq!(ids[0], 1);
}

#[test]
fn what_does_not_fit_is_named() {
    let fails = |config: Value, spoil: &dyn Fn(&Path)| {
        let folder = folder(config, 1);
        spoil(folder.path());
        let opened = LlmFolder::open(folder.path());
        let loaded = opened.and_then(|f| Llm::load(&f, LlmOptions::of(f.family(), Compute::FP32), Device::Cpu));
        let error = loaded.expect_err("something is wrong").to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    };
    let with = |key: &str, value: Value| {
        let mut config = config("LlamaModel");
        config[key] = value;
        config
    };
    let nothing: &dyn Fn(&Path) = &|_| {};
    let remove = |name: &'static str| move |folder: &Path| std::fs::remove_file(folder.join(name)).expect("removed");
    let known = Family::known();
    let cases = [
        (
            with("architectures", json!(["MambaModel"])),
            nothing,
            format!("config.json: `architectures` says [\"MambaModel\"]; text encoders are built for {known}"),
        ),
        (with("hidden_act", json!("relu")), nothing, "config.json: `hidden_act` is relu, expected silu".into()),
        (
            with("rope_scaling", json!({ "rope_type": "yarn" })),
            nothing,
            "config.json: `rope_type` is yarn, expected default, linear or llama3".into(),
        ),
        (
            with("num_key_value_heads", json!(3)),
            nothing,
            "config.json: `num_key_value_heads` is 3, expected a divisor of 4 heads".into(),
        ),
    ];
    for (config, spoil, expected) in cases {
        assert_eq!(fails(config, spoil), expected);
    }
    let missing = fails(config("LlamaModel"), &remove("model.safetensors"));
    assert!(missing.starts_with("model.safetensors is missing: expected a Hugging Face folder"), "{missing}");
    let cut = |folder: &Path| {
        let path = folder.join("model.safetensors");
        let bytes = std::fs::read(&path).expect("read");
        std::fs::write(&path, &bytes[..bytes.len() - 100]).expect("written");
    };
    let truncated = fails(config("LlamaModel"), &cut);
    assert!(truncated.contains("its header speaks of"), "{truncated}");
    let other = |folder: &Path| {
        std::fs::write(folder.join("config.json"), with("hidden_size", json!(40)).to_string()).expect("written")
    };
    let shape = fails(config("LlamaModel"), &other);
    assert_eq!(shape, "`embed_tokens.weight` in model.safetensors has shape [24, 32], config.json says [24, 40]");
    let more = |folder: &Path| {
        std::fs::write(
            folder.join("config.json"),
            with("num_hidden_layers", json!(4)).to_string().replace("\"layer_types\"", "\"other\""),
        )
        .expect("written")
    };
    assert!(fails(config("LlamaModel"), &more).starts_with("no tensor `layers.3."));
}
