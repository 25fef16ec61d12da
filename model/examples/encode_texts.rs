//! Texts through a language model, for `tests/peers/llm_encoders.py`:
//!
//!     encode_texts FOLDER TEXTS.json OUT.safetensors [precision=bf16] [pooling=mean|last] [template=plain|llama3]
//!                  [length=N] [text_length=N] [causal=true|false] [rounds=N]
//!
//! TEXTS is a list of strings. OUT has `vectors` [n, width], `ids` (all texts' one after the other), `counts` [n] and
//! `pooled` [n]. Tokens, and the seconds of each round after the first, are printed as JSON.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use pixfleet_model::Compute;
use pixfleet_model::llm::{Llm, LlmFolder, LlmOptions, Pooling, Template};
use pixfleet_model::params::save_tensors;
use tch::{Device, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, texts, out, settings @ ..] = args.as_slice() else {
        return Err("FOLDER TEXTS OUT are missing".into());
    };
    let folder = LlmFolder::open(Path::new(folder))?;
    let mut options = LlmOptions::of(folder.family(), Compute::FP32);
    let mut rounds = 1;
    for setting in settings {
        match setting.split_once('=').ok_or("a setting is key=value")? {
            ("precision", "bf16") => options.compute = Compute::BF16,
            ("pooling", "mean") => options.pooling = Pooling::Mean,
            ("pooling", "last") => options.pooling = Pooling::Last,
            ("template", "plain") => options.rule.template = Template::Plain,
            ("template", "llama3") => options.rule.template = Template::Llama3,
            ("length", n) => (options.rule.length, options.rule.text_length) = (n.parse()?, n.parse()?),
            ("text_length", n) => options.rule.text_length = n.parse()?,
            ("causal", causal) => options.causal = causal.parse()?,
            ("rounds", n) => rounds = n.parse()?,
            _ => return Err(format!("unknown setting {setting}").into()),
        }
    }
    let texts: Vec<String> = serde_json::from_slice(&std::fs::read(texts)?)?;
    let device = Device::cuda_if_available();
    let llm = Llm::load(&folder, options, device)?;
    let tokens = llm.tokens(&texts)?;
    let mut vectors = llm.encode(&texts)?;
    let mut seconds = Vec::new();
    for _ in 1..rounds {
        let since = Instant::now();
        vectors = llm.encode(&texts)?;
        seconds.push(since.elapsed().as_secs_f64());
    }
    let numbers = |of: &dyn Fn(&pixfleet_model::llm::LlmTokens) -> i64| tokens.iter().map(of).collect::<Vec<_>>();
    let ids: Vec<i64> = tokens.iter().flat_map(|t| t.ids.clone()).collect();
    let counts = numbers(&|t| t.ids.len() as i64);
    let pooled = numbers(&|t| t.pooled as i64);
    let tensors = [
        ("vectors", vectors),
        ("ids", Tensor::from_slice(&ids)),
        ("counts", Tensor::from_slice(&counts)),
        ("pooled", Tensor::from_slice(&pooled)),
    ];
    std::fs::write(out, save_tensors(tensors.iter().map(|(name, t)| (*name, t)))?)?;
    let told = serde_json::json!({ "tokens": ids.len(), "seconds": seconds });
    Ok(writeln!(std::io::stdout(), "{told}")?)
}
