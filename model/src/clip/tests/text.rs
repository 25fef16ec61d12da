//! The text tower.

use tch::{Device, Kind, Tensor};

use super::{check_gradients, close, worst_cosine};
use crate::clip::attention::Sight;
use crate::clip::stack::Stack;
use crate::clip::{ClipText, ClipTextConfig, KEPT_POSITIONS, TextPath, stretch_positions};
use crate::params::{Builder, Compute, ParamGroup, Params};
use crate::testing::hash_fill;

const EOT: i64 = 99;

fn config(long: bool) -> ClipTextConfig {
    ClipTextConfig {
        vocab: 100,
        width: 32,
        depth: 2,
        heads: 2,
        hidden: 48,
        embed: 24,
        short_positions: 30,
        long,
        eot: EOT,
    }
}

fn small(long: bool) -> (ClipText, Params) {
    let mut params = Params::new(Device::Cpu);
    let text = ClipText::new(&config(long), &mut Builder::new(&mut params, 3));
    (text, params)
}

/// A text of `words` words between start and end, padded to `length` with `pad`.
fn ids(words: i64, length: usize, pad: i64) -> Vec<i64> {
    let mut row: Vec<i64> = [98].into_iter().chain((0..words).map(|i| (i * 37 + words * 11) % 98)).collect();
    row.push(EOT);
    row.resize(length, pad);
    row
}

fn batch(rows: &[Vec<i64>]) -> Tensor {
    Tensor::from_slice2(rows)
}

/// Rows of 3, 25 and 9 words.
fn texts(length: usize, pad: i64) -> Tensor {
    batch(&[ids(3, length, pad), ids(25, length, pad), ids(9, length, pad)])
}

fn encode(tower: &(ClipText, Params), ids: &Tensor, path: TextPath) -> Tensor {
    tower.0.forward(&tower.1.weights(Compute::FP32), ids, path).expect("good ids").detach()
}

#[test]
fn names_are_those_of_fg_clip_and_the_long_path_is_there_if_asked_for() {
    let (_, params) = small(true);
    let shape = |name: &str| params.get(name).unwrap_or_else(|| panic!("no {name}")).size();
    assert_eq!(shape("text_model.embeddings.token_embedding.weight"), [100, 32]);
    assert_eq!(shape("text_model.embeddings.position_embedding.weight"), [30, 32]);
    assert_eq!(shape("text_model.embeddings.position_embedding_ori.weight"), [60, 32]);
    assert_eq!(shape("text_model.embeddings.position_embedding_res.weight"), [60, 32]);
    assert_eq!(shape("text_model.encoder.layers.1.self_attn.out_proj.bias"), [32]);
    assert_eq!(shape("text_model.encoder.layers.0.mlp.fc1.weight"), [48, 32]);
    assert_eq!(shape("text_model.final_layer_norm.bias"), [32]);
    assert_eq!(shape("text_projection.weight"), [24, 32]);
    assert_eq!(shape("text_filip_projection.weight"), [24, 32]);
    assert_eq!(small(false).1.len(), params.len() - 3);
    assert_eq!(ClipTextConfig::b16().long_positions(), 248);
}

#[test]
fn the_long_path_starts_as_the_short_one_stretched() {
    let (_, params) = small(true);
    let get = |name: &str| params.get(name).expect("registered");
    let ori = get("text_model.embeddings.position_embedding_ori.weight");
    let short = get("text_model.embeddings.position_embedding.weight");
    assert_eq!(*ori, stretch_positions(short, KEPT_POSITIONS).expect("30 rows"));
    assert_eq!(ori, get("text_model.embeddings.position_embedding_res.weight"));
    assert_eq!(get("text_filip_projection.weight"), get("text_projection.weight"));
    // Texts that stay within the kept positions cannot tell the paths apart.
    let (tower, few) = (small(true), batch(&[ids(18, 20, 0), ids(5, 20, 0)]));
    assert_eq!(encode(&tower, &few, TextPath::Short), encode(&tower, &few, TextPath::Long));
    let (a, b) = (encode(&tower, &texts(30, 0), TextPath::Short), encode(&tower, &texts(30, 0), TextPath::Long));
    assert!((a - b).abs().amax([1].as_slice(), false).double_value(&[1]) > 1e-4);
}

/// method.md 4.1 written out.
#[test]
fn stretching_follows_the_rule() {
    let table = hash_fill("table", &[77, 3], 1.0);
    let p = |i: i64| table.double_value(&[i, 1]);
    let new = stretch_positions(&table, KEPT_POSITIONS).expect("77 rows");
    assert_eq!(new.size(), [248, 3]);
    let check = |i: i64, expected: f64| assert!((new.double_value(&[i, 1]) - expected).abs() < 1e-6, "row {i}");
    (0..20).for_each(|i| check(i, p(i)));
    for i in 0..56 {
        (0..4).for_each(|k| check(20 + 4 * i + k, ((4 - k) as f64 * p(20 + i) + k as f64 * p(21 + i)) / 4.0));
    }
    (0..4).for_each(|k| check(244 + k, p(76) + k as f64 * (p(76) - p(75)) / 4.0));
    let error = stretch_positions(&table.narrow(0, 0, 21), KEPT_POSITIONS).expect_err("one row beyond the kept");
    assert_eq!(error.to_string(), "position table: expected shape [at least 22, width], found [21, 3]");
}

#[test]
fn what_stands_behind_a_texts_first_end_is_not_read() {
    let tower = small(true);
    for path in [TextPath::Short, TextPath::Long] {
        let cut = encode(&tower, &texts(27, EOT), path);
        for other in [texts(27, 7), texts(29, 0), texts(30, EOT), texts(30, EOT).to_kind(Kind::Int)] {
            assert_eq!(encode(&tower, &other, path), cut, "{path:?}");
        }
        // Alone a text is cut shorter, and sums run over other lengths.
        let alone = encode(&tower, &batch(&[ids(3, 5, 0)]), path);
        assert!(close(&alone, &cut.narrow(0, 0, 1)) < 1e-6);
    }
    let changed = batch(&[ids(3, 27, 0), ids(25, 27, 0), ids(8, 27, 0)]);
    let (a, b) = (encode(&tower, &texts(27, 0), TextPath::Short), encode(&tower, &changed, TextPath::Short));
    assert_eq!(a.narrow(0, 0, 2), b.narrow(0, 0, 2));
    assert!(close(&a, &b) > 1e-3);
}

#[test]
fn the_pooled_token_alone_is_that_of_the_whole_causal_block() {
    let mut params = Params::new(Device::Cpu);
    let stack =
        Stack::new(&config(false).stack(), Sight::Causal, |_| ParamGroup::Text, &mut Builder::new(&mut params, 3));
    let w = params.weights(Compute::FP32);
    let (x, last) = stack.run(&w, hash_fill("x", &[2, 7, 32], 1.0));
    let whole = last.forward(&w, &x).narrow(1, 4, 1);
    let seen = Tensor::arange(7, (Kind::Int64, Device::Cpu)).le(4).expand([2, 1, 1, 7], false);
    assert!(close(&last.forward_one(&w, &x, |x| x.narrow(1, 4, 1), Some(&seen)), &whole) < 1e-5);
}

#[test]
fn bf16_stays_near_fp32_and_every_parameter_gets_an_fp32_gradient() {
    let (text, params) = small(true);
    let w = params.weights(Compute::BF16);
    let mut loss = Tensor::from(0f32);
    for path in [TextPath::Short, TextPath::Long] {
        let exact = text.forward(&params.weights(Compute::FP32), &texts(27, 0), path).expect("good ids");
        // A forward without gradients first: its cached copies must not cut the graph of the next one.
        let _ = tch::no_grad(|| text.forward(&w, &texts(27, 0), path)).expect("good ids");
        let rough = text.forward(&w, &texts(27, 0), path).expect("good ids");
        assert_eq!(rough.kind(), Kind::Float);
        let cosine = worst_cosine(&exact, &rough);
        assert!(cosine > 0.9999, "{path:?}: cosine {cosine}");
        loss += (rough * hash_fill("g", &[3, 24], 1.0)).sum(Kind::Float);
    }
    loss.backward();
    check_gradients(&params);
    // Of each long table one half is read.
    let rows = |name: &str, start: i64, count: i64| {
        let table = params.get(&format!("text_model.embeddings.{name}.weight")).expect("registered");
        table.grad().narrow(0, start, count).abs().max().double_value(&[])
    };
    assert_eq!((rows("position_embedding_ori", 20, 40), rows("position_embedding_res", 0, 20)), (0.0, 0.0));
}

#[test]
fn no_texts_and_short_texts_reach_every_parameter_of_their_path() {
    let short_only = ["text_model.embeddings.position_embedding.weight", "text_projection.weight"];
    for ids in [batch(&[ids(2, 4, 0)]), Tensor::zeros([0, 9], (Kind::Int64, Device::Cpu))] {
        let (text, params) = small(true);
        let out = text.forward(&params.weights(Compute::FP32), &ids, TextPath::Long).expect("good ids");
        assert_eq!(out.size(), [ids.size()[0], 24]);
        out.sum(Kind::Float).backward();
        for p in params.iter() {
            assert_eq!(p.tensor().grad().defined(), !short_only.contains(&p.name()), "{}", p.name());
        }
    }
}

#[test]
fn bad_ids_are_refused_with_their_row() {
    let (text, params) = small(false);
    let error =
        |ids: &Tensor, path| text.forward(&params.weights(Compute::FP32), ids, path).expect_err("bad").to_string();
    let short = |ids: &Tensor| error(ids, TextPath::Short);
    assert_eq!(
        short(&texts(31, 0)),
        "texts of 31 tokens: the tower has positions for 30 on this path; cut the texts to that length"
    );
    let (mut foreign, mut negative) = (ids(5, 9, 0), ids(5, 9, 0));
    (foreign[8], negative[2]) = (100, -1);
    assert_eq!(
        short(&batch(&[ids(5, 9, 0), foreign])),
        "text 1 has the token id 100, the vocabulary has 100: its tokenizer is not the tower's"
    );
    assert!(short(&batch(&[negative])).starts_with("text 0 has the token id -1,"));
    let endless = "has no end-of-text token (99): cut texts so that the last token left is that one";
    assert_eq!(short(&batch(&[ids(5, 9, 0), ids(3, 9, 0), vec![1; 9]])), format!("text 2 {endless}"));
    assert_eq!(short(&Tensor::zeros([2, 0], (Kind::Int64, Device::Cpu))), format!("text 0 {endless}"));
    assert_eq!(short(&Tensor::from_slice(&[1i64])), "token ids: expected shape [texts, tokens], found [1]");
    assert!(error(&texts(27, 0), TextPath::Long).starts_with("the text tower has no long path"));
}
