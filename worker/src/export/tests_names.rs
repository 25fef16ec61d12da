//! Exports of small models under each kind of names.

use super::names::{Names, named};
use pixfleet_checkpoint::{Dtype, HostTensor};

fn tensor(name: &str, shape: &[usize], from: f32) -> HostTensor {
    let values = (0..shape.iter().product::<usize>()).flat_map(|i| (from + i as f32).to_le_bytes());
    HostTensor {
        name: name.to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        bytes: values.collect::<Vec<u8>>().into(),
    }
}

fn numbers(t: &HostTensor) -> Vec<f32> {
    t.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn get<'t>(tensors: &'t [HostTensor], name: &str) -> &'t HostTensor {
    tensors.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn pixclip_gets_the_rotary_tables_of_its_code() {
    let params = vec![
        tensor("visual.pos_embed", &[1, 197, 2], 0.0),
        tensor("visual.blocks.0.attn.q_proj.weight", &[2, 2], 0.0),
        tensor("visual.blocks.1.attn.q_proj.weight", &[2, 2], 0.0),
    ];
    assert_eq!(named(params.clone(), Names::Pixfleet).unwrap(), params);
    let official = named(params, Names::Official).unwrap();
    assert_eq!(official.len(), 3 + 6);
    // method.md 1.2.3, golden values of B/16.
    let (cos, sin) =
        (numbers(get(&official, "visual.rope.freqs_cos")), numbers(get(&official, "visual.rope.freqs_sin")));
    for (n, c, want_cos, want_sin) in [
        (17, 0, 0.414997, 0.909823),
        (17, 1, 0.414997, 0.909823),
        (17, 2, 0.800495, 0.599340),
        (17, 32, -0.959103, -0.283056),
        (17, 34, -0.349681, 0.936869),
        (195, 0, -0.659367, 0.751822),
        (195, 63, 0.999997, 0.002642),
    ] {
        assert!((cos[n * 64 + c] - want_cos).abs() < 2e-6, "cos {n} {c}: {}", cos[n * 64 + c]);
        assert!((sin[n * 64 + c] - want_sin).abs() < 2e-6, "sin {n} {c}: {}", sin[n * 64 + c]);
    }
    assert_eq!(get(&official, "visual.blocks.1.attn.rope.freqs_sin").shape, [196, 64]);
}

#[test]
fn clip_goes_back_to_the_names_of_openai() {
    let part =
        |p: &str, from| tensor(&format!("vision_model.encoder.layers.3.self_attn.{p}_proj.weight"), &[2, 2], from);
    let params = vec![
        part("k", 10.0),
        part("q", 0.0),
        part("v", 20.0),
        tensor("visual_projection.weight", &[2, 3], 0.0),
        tensor("vision_model.embeddings.alpha_patch_embedding.weight", &[2, 1, 1, 1], 7.0),
        tensor("text_model.final_layer_norm.bias", &[2], 0.0),
    ];
    assert_eq!(named(params.clone(), Names::Official).unwrap(), params);
    let openai = named(params.clone(), Names::Openai).unwrap();
    let joined = get(&openai, "visual.transformer.resblocks.3.attn.in_proj_weight");
    assert_eq!(joined.shape, [6, 2]);
    assert_eq!(numbers(joined), [0., 1., 2., 3., 10., 11., 12., 13., 20., 21., 22., 23.]);
    assert_eq!(numbers(get(&openai, "visual.proj")), [0., 3., 1., 4., 2., 5.]);
    assert_eq!(openai.len(), 4);
    get(&openai, "ln_final.bias");
    let alpha = named(params, Names::Alphaclip).unwrap();
    assert_eq!(alpha.len(), 3);
    assert_eq!(numbers(get(&alpha, "conv1_alpha.weight")), [7., 8.]);
    let error =
        named(vec![tensor("text_filip_projection.weight", &[2, 2], 0.0)], Names::Openai).unwrap_err().to_string();
    assert!(error.starts_with("`text_filip_projection.weight` has no name in OpenAI's CLIP"), "{error}");
    assert!(named(vec![tensor("visual.norm.bias", &[2], 0.0)], Names::Alphaclip).is_err());
}
