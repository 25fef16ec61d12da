//! What an import refuses, and the words for it.

use super::super::rule::{fits, generic};
use super::*;

#[test]
fn a_checkpoint_of_another_tower_names_both_and_the_first_difference() {
    let mut params = clip(AlphaInit::None, false);
    let wide = ClipVisionConfig { width: 128, heads: 2, depth: 3, ..vision() };
    let text = said(&[published(&sized(&wide, &text()))], &mut params);
    for part in [
        "0.safetensors is a checkpoint of another tower",
        "it holds CLIP of width 128, 3 blocks, patches of 8 px, 32 px",
        "clip-b16 is CLIP of width 64, 2 blocks, patches of 8 px, 32 px",
        "`vision_model.embeddings.class_embedding` has shape [128], expected [64]",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let deep = ClipVisionConfig { depth: 3, ..vision() };
    let text = said(&[published(&sized(&deep, &super::text()))], &mut params);
    assert!(text.contains("3 blocks") && text.contains("layers.2.") && text.contains("does not have"), "{text}");
    let text = said(&[published(&eva())], &mut params);
    for part in ["it holds EVA02 (pixclip)", "clip-b16 is CLIP of width 64", "patch_embedding.weight` [64, 3, 8, 8]"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(said(&[published(&params)], &mut eva()).contains("it holds CLIP (hf-clip)"));
}

#[test]
fn a_lacking_tensor_is_named_with_its_shape() {
    let mut params = clip(AlphaInit::None, false);
    let mut file = published(&params);
    file.remove("vision_model.post_layernorm.bias");
    let text = said(&[file], &mut params);
    assert!(
        text.ends_with("(hf-clip) lacks 1 parameters of clip-b16: vision_model.post_layernorm.bias [64]"),
        "{text}"
    );
}

#[test]
fn names_of_no_family_are_shown() {
    let mut params = clip(AlphaInit::None, false);
    let file = Tensors::from([("backbone.conv.weight".to_owned(), hash_fill("x", &[2], 1.0))]);
    let text = said(&[file], &mut params);
    assert!(text.contains("its names (backbone.conv.weight, ...) are of no family"), "{text}");
}

#[test]
fn two_tensors_of_one_parameter_are_refused() {
    let mut params = eva();
    let mut file = published(&params);
    file.insert(
        "visual.blocks.0.attn.q_bias".into(),
        hash_fill("x", &params.get("visual.blocks.0.attn.q_proj.bias").unwrap().size(), 1.0),
    );
    let text = said(&[file], &mut params);
    assert!(text.contains("both are `visual.blocks.0.attn.q_proj.bias`"), "{text}");
}

#[test]
fn integers_are_no_weights() {
    let mut params = clip(AlphaInit::None, false);
    let mut file = published(&params);
    file.insert("logit_scale".into(), Tensor::from(4i64));
    let text = said(&[file], &mut params);
    assert!(text.contains("`logit_scale` in") && text.contains("expected floats"), "{text}");
}

#[test]
fn torch_files_that_are_cut_or_would_run_code_are_refused() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../checkpoint/tests/golden");
    let error = open(&golden.join("command.pt"), None).unwrap_err().to_string();
    assert!(error.contains("refers to `posix.system`") && error.contains("Nothing was run."), "{error}");
    let whole = std::fs::read(golden.join("plain.pt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.pth");
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = open(&path, None).unwrap_err().to_string();
    assert!(error.ends_with("cut.pth is a damaged or truncated torch.save file; fetch it again"), "{error}");
    let error = open(&golden.join("plain.pt"), None).unwrap_err().to_string();
    assert!(error.contains("of no family"), "{error}");
    let params = published(&clip(AlphaInit::None, false));
    let path = file(&folder, "cut.safetensors", &params);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = open(&path, None).unwrap_err().to_string();
    assert!(error.ends_with("cut.safetensors is damaged or truncated"), "{error}");
}

#[test]
fn patterns_fit_whole_names() {
    let filled = |pattern, name, to| fits(pattern, name).map(|holes| holes.fill(to));
    assert_eq!(filled("a.#.b.*", "a.12.b.c.d", "x.#.y.*").as_deref(), Some("x.12.y.c.d"));
    assert_eq!(filled("a.#.b", "a.3.b", "x.#").as_deref(), Some("x.3"));
    assert_eq!(filled("a", "a", "b").as_deref(), Some("b"));
    for (pattern, name) in [("a", "ab"), ("a.*", "a."), ("a.#.b", "a.x.b"), ("a.#.b", "a..b"), ("a.#.b", "a.1.bc")] {
        assert_eq!(filled(pattern, name, "x"), None, "{pattern} and {name}");
    }
    assert_eq!(generic("visual.blocks.11.norm1.weight"), "visual.blocks.#.norm1.weight");
}

#[test]
fn every_model_has_the_parameters_of_its_kind() {
    let has = |preset: Preset, name: &str| {
        let params = start(preset, &[]);
        params.get(name).is_some()
    };
    let alpha = "vision_model.embeddings.alpha_patch_embedding.weight";
    assert!(!has(Preset::ClipB16, alpha) && has(Preset::AlphaclipB16, alpha));
    assert!(!has(Preset::ClipB16, "text_filip_projection.weight"));
    for name in ["text_filip_projection.weight", "logit_scale_finegraind", "logit_scale_hardneg"] {
        assert!(has(Preset::Fgclip1Tiny, name), "{name}");
    }
}
