//! What config.json says, and what is hidden.

use super::config::{Config, EncoderFacts, TextFacts, preprocessor};
use super::*;

fn spec(more: &str) -> RunSpec {
    let text = format!(
        "[run]\nname = \"one\"\nstore = \"s3://secret/runs\"\n[data]\nurl = \"file:///home/me/grit\"\n[model]\n\
         weights = \"/home/me/start.safetensors\"\n[spot]\nurl = \"http://10.0.0.1\"\n[schedule]\nsteps = 9\nwarmup = 1\n{more}"
    );
    RunSpec::parse(&text, &[]).expect("a run file")
}

#[test]
fn a_published_run_file_tells_no_place_and_reads_back() {
    let shown = published(&spec(""), None);
    let text = shown.to_toml();
    assert!(!text.contains("secret") && !text.contains("/home/me") && !text.contains("10.0.0.1"), "{text}");
    assert_eq!(RunSpec::parse(&text, &[]).expect("a run file"), shown);
    assert!(is_hidden(&shown.data.url) && shown.data.url.ends_with("grit"));
    assert_eq!(published(&spec(""), Some("me/grit")).data.url, "hf://datasets/me/grit");
    let mut started = spec("");
    started.model.weights = "run:stage1".into();
    assert_eq!(published(&started, None).model.weights, "run:stage1");
}

#[test]
fn a_key_of_vectors_tells_its_encoder() {
    let of = EncoderFacts::of;
    let minilm = of("minilm-plain-256");
    assert_eq!((minilm.model.as_str(), minilm.template.as_str(), minilm.max_tokens), ("minilm", "plain", Some(256)));
    assert_eq!((minilm.pooling.as_deref(), minilm.causal), (Some("mean"), None));
    let llm = of("llama_1a2b_both_mean_bf16-llama3_400-512");
    assert_eq!((llm.template.as_str(), llm.max_tokens, llm.causal), ("llama3_400", Some(512), Some(false)));
    assert_eq!(llm.pooling.as_deref(), Some("mean"));
    assert_eq!(of("gemma_3c_causal_last-plain-256").pooling.as_deref(), Some("last"));
    assert_eq!(of("mine").model, "mine");
}

#[test]
fn config_says_the_sizes_and_reads_back() {
    let config = Config::of(&spec(""), 7);
    let json = serde_json::to_string(&config).expect("JSON");
    assert_eq!(serde_json::from_str::<Config>(&json).expect("reads back"), config);
    assert_eq!((config.architectures[0].as_str(), config.vision_config.hidden_size), ("PixCLIP", 768));
    assert!(config.vision_config.takes_mask);
    let picture = preprocessor(&spec("").data, &config);
    assert_eq!((&picture["size"]["height"], &picture["pad_to_square"]), (&224.into(), &true.into()));
    assert_eq!(picture["mask_std"], 0.26);
    let mut clip = spec("");
    (clip.model.vision, clip.model.text) =
        (pixfleet_cluster::spec::VisionPreset::ClipB16, pixfleet_cluster::spec::TextPreset::ClipB16);
    assert!(matches!(Config::of(&clip, 0).text_config, TextFacts::Clip { vocab_size: 49408, hidden_size: 512, .. }));
}

#[tokio::test]
async fn a_folder_that_is_no_model_of_ours_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().display().to_string();
    assert!(!is_hub_folder(&at));
    std::fs::write(folder.path().join(WEIGHTS), b"").expect("written");
    assert!(is_hub_folder(&at) && is_hub_folder(&format!("file://{at}")));
    let said = format!("{:#}", HubFolder::open(&at).await.expect_err("no config"));
    assert!(said.contains("published weights of others go through `pixfleet import`"), "{said}");
    let config = Config { model_type: "clip".into(), ..Config::of(&spec(""), 0) };
    std::fs::write(folder.path().join(CONFIG), serde_json::to_vec(&config).expect("JSON")).expect("written");
    let said = format!("{:#}", HubFolder::open(&at).await.expect_err("another model"));
    assert!(said.contains("its config.json tells of a `clip`"), "{said}");
}
