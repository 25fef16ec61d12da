//! What each family's files become.

use super::super::plan::{Change, MadeUp};
use super::*;
use pixfleet_checkpoint::Dtype;
use tch::Kind;

/// The names of OpenAI's CLIP for a checkpoint of Hugging Face's, in half precision.
fn as_openai(hf: &Tensors) -> Tensors {
    let mut out = Tensors::new();
    let half = |t: &Tensor| t.to_kind(Kind::Half);
    let joined = |stem: &str, kind: &str| {
        let part = |p: &str| half(&hf[&format!("{stem}.self_attn.{p}_proj.{kind}")]);
        Tensor::cat(&[part("q"), part("k"), part("v")], 0)
    };
    for (from, to, blocks) in [
        ("vision_model.encoder.layers", "visual.transformer.resblocks", 2),
        ("text_model.encoder.layers", "transformer.resblocks", 1),
    ] {
        for block in 0..blocks {
            let (from, to) = (format!("{from}.{block}"), format!("{to}.{block}"));
            for kind in ["weight", "bias"] {
                out.insert(format!("{to}.attn.in_proj_{kind}"), joined(&from, kind));
                for (hf_name, name) in [
                    ("self_attn.out_proj", "attn.out_proj"),
                    ("layer_norm1", "ln_1"),
                    ("layer_norm2", "ln_2"),
                    ("mlp.fc1", "mlp.c_fc"),
                    ("mlp.fc2", "mlp.c_proj"),
                ] {
                    out.insert(format!("{to}.{name}.{kind}"), half(&hf[&format!("{from}.{hf_name}.{kind}")]));
                }
            }
        }
    }
    for (from, to) in [
        ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
        ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
        ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight"),
        ("vision_model.pre_layrnorm.weight", "visual.ln_pre.weight"),
        ("vision_model.pre_layrnorm.bias", "visual.ln_pre.bias"),
        ("vision_model.post_layernorm.weight", "visual.ln_post.weight"),
        ("vision_model.post_layernorm.bias", "visual.ln_post.bias"),
        ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
        ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
        ("text_model.final_layer_norm.weight", "ln_final.weight"),
        ("text_model.final_layer_norm.bias", "ln_final.bias"),
        ("logit_scale", "logit_scale"),
    ] {
        out.insert(to.into(), half(&hf[from]));
    }
    out.insert("visual.proj".into(), half(&hf["visual_projection.weight"].tr()));
    out.insert("text_projection".into(), half(&hf["text_projection.weight"].tr()));
    out.insert("input_resolution".into(), Tensor::from(32i64));
    out
}

fn rounded(tensors: &Tensors) -> Tensors {
    tensors.iter().map(|(name, t)| (name.clone(), t.to_kind(Kind::Half).to_kind(Kind::Float))).collect()
}

#[test]
fn hugging_face_clip_is_taken_name_by_name() {
    let mut params = clip(AlphaInit::None, false);
    let mut published = published(&params);
    published.insert("text_model.embeddings.position_ids".into(), Tensor::arange(77, (Kind::Int64, Device::Cpu)));
    let plan = import(&[published], &mut params).unwrap();
    assert_equal(&params, &super::published(&params));
    assert_eq!(table::counts(&plan), [params.len(), 0, 0]);
    assert_eq!(plan.left_out.len(), 1);
    let shown = table::table(&plan).to_string();
    assert!(shown.contains("vision_model.*") && shown.contains("a count of positions, no weight"), "{shown}");
}

#[test]
fn openai_clip_is_split_turned_and_cast() {
    let mut params = clip(AlphaInit::None, false);
    let published = published(&params);
    let plan = import(&[as_openai(&published)], &mut params).unwrap();
    assert_equal(&params, &rounded(&published));
    assert_eq!(table::counts(&plan), [0, params.len(), 0]);
    let shown = table::table(&plan).to_string();
    for part in ["rows of third 2 of 3", "fp16 to fp32, transposed", "a setting, no weight"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn alphaclip_goes_over_its_base() {
    let mut params = clip(AlphaInit::Zero, false);
    let base = published(&clip(AlphaInit::None, false));
    let doubled: Tensors = base.iter().map(|(name, t)| (name.clone(), t * 2.0)).collect();
    let mut alpha: Tensors = as_openai(&doubled)
        .into_iter()
        .filter_map(|(name, t)| Some((name.strip_prefix("visual.")?.to_owned(), t)))
        .collect();
    let convolution = hash_fill("alpha", &[64, 1, 8, 8], 1.0);
    alpha.insert("conv1_alpha.weight".into(), convolution.shallow_clone());
    let of_vision = |name: &str| name.starts_with("vision_model") || name.starts_with("visual_projection");
    let mut expected: Tensors = rounded(&doubled).into_iter().filter(|(name, _)| of_vision(name)).collect();
    expected.extend(published(&params).into_iter().filter(|(name, _)| !of_vision(name)));
    expected.insert("vision_model.embeddings.alpha_patch_embedding.weight".into(), convolution);
    import(&[base, alpha], &mut params).unwrap();
    assert_equal(&params, &expected);
    let mut alone = clip(AlphaInit::Zero, false);
    let visual = as_openai(&doubled).into_iter().filter_map(|(n, t)| Some((n.strip_prefix("visual.")?.to_owned(), t)));
    let text = said(&[visual.collect()], &mut alone);
    assert!(text.contains("(alphaclip) lacks") && text.contains("give the base CLIP's file before it"), "{text}");
}

#[test]
fn clip_becomes_the_start_of_fgclip_and_of_alphaclip() {
    let base = published(&clip(AlphaInit::None, false));
    let mut params = clip(AlphaInit::Random, true);
    let plan = import(&[base], &mut params).unwrap();
    let at = |name: &str| params.get(name).unwrap();
    let short = at("text_model.embeddings.position_embedding.weight");
    for name in ["ori", "res"] {
        let long = at(&format!("text_model.embeddings.position_embedding_{name}.weight"));
        assert_eq!(long.size(), [248, 64]);
        assert_eq!(long.narrow(0, 0, 20), short.narrow(0, 0, 20));
        // new[20 + 4i + k] = ((4 - k) p[20 + i] + k p[21 + i]) / 4; the last: p[76] + 3 (p[76] - p[75]) / 4.
        let between = (short.get(30) + short.get(31) * 3.0) / 4.0;
        assert!((long.get(20 + 4 * 10 + 3) - between).abs().max().double_value(&[]) < 1e-6);
        let onward = short.get(76) * 1.75 - short.get(75) * 0.75;
        assert!((long.get(247) - onward).abs().max().double_value(&[]) < 1e-6);
    }
    assert_eq!(at("text_filip_projection.weight"), at("text_projection.weight"));
    assert_eq!(at("logit_scale_hardneg"), at("logit_scale"));
    assert_eq!(at("logit_scale_finegraind"), at("logit_scale"));
    assert_eq!(at("vision_model.embeddings.alpha_patch_embedding.weight").abs().max().double_value(&[]), 0.0);
    assert_eq!(table::counts(&plan)[2], 6);
    let origin = &plan.origins["vision_model.embeddings.alpha_patch_embedding.weight"];
    assert_eq!(*origin, Origin::MadeUp(MadeUp::Zero));
}

#[test]
fn fgclip_is_taken_whole_and_gives_its_clip() {
    let mut params = clip(AlphaInit::None, true);
    let whole = published(&params);
    let plan = import(&[published(&params)], &mut params).unwrap();
    assert_equal(&params, &whole);
    assert_eq!(table::counts(&plan), [params.len(), 0, 0]);
    let mut short = clip(AlphaInit::None, false);
    let plan = import(&[whole], &mut short).unwrap();
    assert_eq!(plan.left_out.len(), 5);
    assert!(plan.left_out.iter().all(|l| l.why == "the model has no such parameter"));
}

#[test]
fn positions_of_another_grid_are_resized() {
    let mut params = clip(AlphaInit::None, false);
    let mut other = published(&params);
    const NAME: &str = "vision_model.embeddings.position_embedding.weight";
    other.insert(NAME.into(), Tensor::ones([1 + 49, 64], (Kind::Float, Device::Cpu)));
    let plan = import(&[other], &mut params).unwrap();
    let Origin::File { changes, .. } = &plan.origins[NAME] else { panic!("a file's") };
    assert_eq!(changes[..], [Change::Resized { from: 7, to: 4 }]);
    let error = (params.get(NAME).unwrap() - 1.0).abs().max().double_value(&[]);
    assert!(error < 1e-5, "constant positions stay constant, {error}");
    let shown = table::table(&plan).to_string();
    assert!(shown.contains("bicubic from 7 x 7 to 4 x 4 positions"), "{shown}");
}

#[test]
fn pixclip_and_llm2clip_keep_their_names() {
    let mut params = eva();
    let mut file = published(&params);
    for name in ["visual.rope.freqs_cos", "visual.blocks.0.attn.rope.freqs_sin", "l2v.model.norm.weight"] {
        file.insert(name.into(), hash_fill(name, &[4, 64], 1.0));
    }
    let plan = import(&[file], &mut params).unwrap();
    assert_equal(&params, &published(&params));
    assert_eq!((table::counts(&plan), plan.left_out.len()), ([params.len(), 0, 0], 3));
    // LLM2CLIP's file lacks the alpha convolution.
    let base: Tensors = published(&params).into_iter().filter(|(name, _)| !name.contains("alpha")).collect();
    let plan = import(&[base], &mut params).unwrap();
    assert_eq!(table::counts(&plan)[2], 2);
    for part in ["weight", "bias"] {
        let alpha = params.get(&format!("visual.alpha_patch_embed.proj.{part}")).unwrap();
        assert_eq!(alpha.abs().max().double_value(&[]), 0.0);
    }
}

#[test]
fn eva_clip_gives_its_trunk_alone() {
    let mut params = eva();
    let fresh = eva();
    let whole = published(&params);
    let mut file = Tensors::new();
    for (name, t) in published(&params) {
        let name = name.replace(".q_proj.bias", ".q_bias").replace(".v_proj.bias", ".v_bias");
        if !name.contains("alpha") && !name.starts_with("text.") && !name.starts_with("visual.head") {
            file.insert(name, t.to_kind(Kind::BFloat16));
        }
    }
    file.insert("visual.head.weight".into(), hash_fill("head", &[512, 5], 1.0));
    file.insert("text.token_embedding.weight".into(), hash_fill("text", &[10, 5], 1.0));
    let plan = import(&[file], &mut params).unwrap();
    assert_eq!(plan.left_out.iter().filter(|l| l.why == "of another joint space").count(), 2);
    let head = "visual.head.weight";
    assert_eq!(plan.origins[head], Origin::MadeUp(MadeUp::Fresh));
    assert_eq!(params.get(head).unwrap(), fresh.get(head).unwrap());
    let bias = "visual.blocks.1.attn.v_proj.bias";
    let Origin::File { changes, name, .. } = &plan.origins[bias] else { panic!("a file's") };
    assert_eq!((changes[..].to_vec(), name.as_str()), (vec![Change::Cast(Dtype::BF16)], "visual.blocks.1.attn.v_bias"));
    assert_eq!(params.get(bias).unwrap(), &whole[bias].to_kind(Kind::BFloat16).to_kind(Kind::Float));
}

#[test]
fn what_is_written_is_read_again() {
    let mut params = clip(AlphaInit::None, true);
    let start = published(&params);
    import(&[start], &mut params).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.safetensors");
    write::write(&params, &out).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no part is left behind");
    let mut again = clip(AlphaInit::None, true);
    let report = again.load_safetensors(&out, &Default::default()).unwrap();
    assert_eq!((report.loaded, report.missing.len(), report.unexpected.len()), (params.len(), 0, 0));
    assert_equal(&again, &published(&params));
    assert_eq!(open(&out, None).unwrap().family, Family::Fgclip1);
}

#[test]
fn a_model_in_several_files_is_read_by_its_index() {
    let mut params = clip(AlphaInit::None, false);
    let folder = tempfile::tempdir().unwrap();
    let (mut parts, mut map) = ([Tensors::new(), Tensors::new()], BTreeMap::new());
    for (i, (name, tensor)) in published(&params).into_iter().enumerate() {
        map.insert(name.clone(), format!("model-{}.safetensors", i % 2));
        parts[i % 2].insert(name, tensor);
    }
    for (i, part) in parts.iter().enumerate() {
        file(&folder, &format!("model-{i}.safetensors"), part);
    }
    let index = folder.path().join("model.safetensors.index.json");
    let write = |map: &BTreeMap<String, String>| {
        std::fs::write(&index, serde_json::to_vec(&serde_json::json!({"metadata": {}, "weight_map": map})).unwrap())
    };
    write(&map).unwrap();
    let sources = [open(&index, None).unwrap()];
    let plan = Plan::new(&sources, &shapes(&params), "clip-b16").unwrap();
    fill(&mut params, &plan, &sources).unwrap();
    assert_equal(&params, &published(&params));
    map.insert("logit_scale".into(), "../../secret".into());
    write(&map).unwrap();
    let error = open(&index, None).unwrap_err().to_string();
    assert!(error.ends_with("names the file `../../secret`; expected a name without a folder"), "{error}");
}
