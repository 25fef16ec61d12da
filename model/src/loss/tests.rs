//! InfoNCE and cosine against open_clip, against autograd of the plain formula, and against themselves over splits,
//! tiles and scales.

use std::fs;
use std::ops::Range;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::*;
use crate::testing::hash_fill;

fn rows(name: &str, n: i64, d: i64) -> Tensor {
    normalized(&hash_fill(name, &[n, d], 1.0))
}

fn normalized(x: &Tensor) -> Tensor {
    x / (x * x).sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt()
}

fn nce(scale: f64, smoothing: f64, tile: Tile) -> InfoNce {
    InfoNce { scale, smoothing, tile }
}

fn one_lane(rows: Range<i64>) -> [Range<i64>; 1] {
    [rows]
}

/// Both halves at world size 1: mean loss and gradients.
fn whole(nce: &InfoNce, a: &Tensor, b: &Tensor) -> (f64, PairGrad) {
    let (a, b) = (PairFeatures::of(a).unwrap(), PairFeatures::of(b).unwrap());
    let whole = one_lane(0..a.count());
    let stats = nce.stats(&a, &b, &whole).unwrap();
    let grad = nce.grad([&a, &b], [&stats.lse_ab, &stats.lse_ba], &whole).unwrap();
    (stats.loss.mean(Kind::Double).double_value(&[]), grad)
}

fn gap(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

fn peak(a: &Tensor) -> f64 {
    a.abs().max().double_value(&[])
}

/// In f64.
fn sum(rows: &Tensor) -> f64 {
    rows.sum(Kind::Double).double_value(&[])
}

/// Tolerance: losses to 1e-5 relative, gradients to 1e-5 of the largest element. The golden is float64 on inputs that
/// are exact in fp32; at scale 100 one rounding of a logit is 4e-6.
#[test]
fn equals_open_clips_clip_loss() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/info_nce.json");
    let golden: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let number = |key: &str| case[key].as_f64().unwrap();
        let (n, d) = (number("n") as i64, number("d") as i64);
        let matrix = |key: &str| {
            let values: Vec<f64> = case[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            Tensor::from_slice(&values).reshape([n, d]).to_kind(Kind::Float)
        };
        let loss = nce(number("logit_scale").exp(), number("smoothing"), Tile::new(4, 8));
        let (got, grad) = whole(&loss, &matrix("a"), &matrix("b"));
        let close = |got: f64, want: f64, size: f64| assert!((got - want).abs() <= 1e-5 * size, "{got} {want}: {case}");
        close(got, number("loss"), number("loss").max(1e-2));
        for (got, want) in [(&grad.a, matrix("grad_a")), (&grad.b, matrix("grad_b"))] {
            assert!(gap(got, &want) <= 1e-5 * peak(&want) + 1e-9, "{case}");
        }
        close(sum(&grad.log_scale), number("grad_logit_scale"), number("grad_logit_scale").abs().max(1e-2));
    }
}

#[test]
fn gradients_are_those_of_autograd() {
    let n = 37;
    for (scale, smoothing) in [(1.0, 0.0), (14.3, 0.0), (14.3, 0.2), (100.0, 0.1)] {
        let a = rows("ga", n, 16);
        // Unit length is not needed: the closed form is of the dot products.
        let b = (&a + rows("gb", n, 16)) * 0.8;
        let leaf = |t: &Tensor| t.to_kind(Kind::Double).set_requires_grad(true);
        let (la, lb) = (leaf(&a), leaf(&b));
        let log_scale = Tensor::from(f64::ln(scale)).set_requires_grad(true);
        let z = la.matmul(&lb.tr()) * log_scale.exp();
        let labels = Tensor::arange(n, (Kind::Int64, Device::Cpu));
        let ce = |z: &Tensor| z.cross_entropy_loss(&labels, None::<Tensor>, tch::Reduction::Mean, -100, smoothing);
        let expected = (ce(&z) + ce(&z.tr())) * 0.5;
        expected.backward();
        let (got, grad) = whole(&nce(scale, smoothing, Tile::new(8, 16)), &a, &b);
        assert!((got - expected.double_value(&[])).abs() < 1e-5 * expected.double_value(&[]).max(0.1));
        assert!(gap(&grad.a, &la.grad()) < 2e-5 * peak(&la.grad()), "{scale} {smoothing}");
        assert!(gap(&grad.b, &lb.grad()) < 2e-5 * peak(&lb.grad()), "{scale} {smoothing}");
        let want = log_scale.grad().double_value(&[]);
        let got = sum(&grad.log_scale);
        assert!((got - want).abs() < 2e-5 * want.abs().max(0.1), "{got} {want}");
    }
}

/// What a rank computes for its lanes is, bit for bit, what one rank computes for all.
#[test]
fn rows_do_not_depend_on_who_computes_them() {
    let loss = nce(20.0, 0.1, Tile::new(8, 24));
    let lanes = [0..16, 16..22, 22..23, 23..23, 23..45, 45..67];
    let sides = [rows("sa", 67, 24), rows("sb", 67, 24)].map(|side| PairFeatures::of(&side).unwrap());
    let stats = loss.stats(&sides[0], &sides[1], &lanes).unwrap();
    let lse = [&stats.lse_ab, &stats.lse_ba];
    let grad = loss.grad([&sides[0], &sides[1]], lse, &lanes).unwrap();
    for cuts in [vec![0, 3, 6], vec![0, 1, 2, 6], vec![0, 3, 4, 5, 6]] {
        for own in cuts.windows(2).map(|w| &lanes[w[0]..w[1]]) {
            let first = own[0].start;
            let cut = |t: &Tensor| t.narrow(0, first, own[own.len() - 1].end - first);
            let part = loss.stats(&sides[0], &sides[1], own).unwrap();
            for (got, want) in [
                (&part.loss, &stats.loss),
                (&part.lse_ab, &stats.lse_ab),
                (&part.lse_ba, &stats.lse_ba),
                (&part.hit_ab, &stats.hit_ab),
                (&part.hit_ba, &stats.hit_ba),
            ] {
                assert_eq!(got, &cut(want), "{own:?}");
            }
            let part = loss.grad([&sides[0], &sides[1]], lse, own).unwrap();
            assert_eq!(part.a, cut(&grad.a), "{own:?}");
            assert_eq!(part.b, cut(&grad.b), "{own:?}");
            assert_eq!(part.log_scale, cut(&grad.log_scale), "{own:?}");
        }
    }
}

/// Some slots of a matrix, in fp32 and in bf16, are the rows that were chosen.
#[test]
fn columns_give_the_chosen_slots_block_by_block() {
    let matrix = rows("slots", 5, 12);
    let slots = || matrix.unflatten(1, [3i64, 4].as_slice());
    let all = matrix.reshape([15, 4]);
    let chosen = Tensor::from_slice(&[0i64, 4, 5, 9, 14]);
    for dtype in [Kind::Float, Kind::BFloat16] {
        let every = PairFeatures::slots(slots().to_kind(dtype), None);
        let some = PairFeatures::slots(slots().to_kind(dtype), Some(&chosen));
        let want = all.to_kind(dtype).to_kind(Kind::Float);
        assert_eq!((every.count(), some.count(), some.width()), (15, 5, 4));
        for range in [0..0, 0..15, 1..2, 2..11, 14..15] {
            assert_eq!(every.block(&range).unwrap(), want.narrow(0, range.start, range.end - range.start), "{range:?}");
        }
        assert_eq!(some.block(&(1..4)).unwrap(), want.index_select(0, &chosen.narrow(0, 1, 3)));
    }
}

#[test]
fn tiles_change_nothing_but_rounding() {
    let n = 50;
    let (a, b) = (rows("ta", n, 12), rows("tb", n, 12));
    let (loss, grad) = whole(&nce(14.0, 0.05, Tile::new(64, 64)), &a, &b);
    for tile in [Tile::new(1, 1), Tile::new(3, 7), Tile::new(16, 16), Tile::new(5, 1000)] {
        let (other, tiled) = whole(&nce(14.0, 0.05, tile), &a, &b);
        assert!((loss - other).abs() < 1e-6 * loss, "{tile:?}");
        assert!(gap(&grad.a, &tiled.a) < 2e-6 * peak(&grad.a), "{tile:?}");
        assert!(gap(&grad.b, &tiled.b) < 2e-6 * peak(&grad.b), "{tile:?}");
    }
}

#[test]
fn a_huge_scale_neither_overflows_nor_underflows() {
    let n = 20;
    let a = rows("ha", n, 8);
    let (loss, grad) = whole(&nce(1e4, 0.0, Tile::new(4, 8)), &a, &a);
    assert!((0.0..1e-6).contains(&loss), "{loss}");
    assert!(sum(&grad.log_scale).is_finite() && peak(&grad.a).is_finite());
    // Every target is now its row's worst match.
    let (loss, grad) = whole(&nce(1e4, 0.0, Tile::new(4, 8)), &a, &-&a);
    assert!(loss > 1e4 && loss.is_finite() && peak(&grad.b).is_finite(), "{loss}");
}

#[test]
fn hits_count_nearest_targets() {
    let a = rows("ka", 6, 8);
    let swapped = Tensor::from_slice(&[1i64, 0, 2, 3, 4, 5]);
    let (b, a) = (PairFeatures::of(&a.index_select(0, &swapped)).unwrap(), PairFeatures::of(&a).unwrap());
    let stats = nce(1.0, 0.0, Tile::new(4, 4)).stats(&a, &b, &one_lane(0..6)).unwrap();
    let want = Tensor::from_slice(&[0f32, 0.0, 1.0, 1.0, 1.0, 1.0]);
    assert_eq!(stats.hit_ab, want);
    assert_eq!(stats.hit_ba, want);
}

/// Columns of a wider matrix (the gathered one) are taken as they lie.
#[test]
fn operands_may_be_columns_of_a_wider_matrix() {
    let wide = Tensor::cat(&[rows("wa", 30, 8), rows("wb", 30, 8)], 1);
    let (a, b) = (wide.narrow(1, 0, 8), wide.narrow(1, 8, 8));
    let loss = nce(9.0, 0.0, Tile::new(8, 16));
    let (strided, _) = whole(&loss, &a, &b);
    let (dense, _) = whole(&loss, &a.contiguous(), &b.contiguous());
    assert!((strided - dense).abs() < 1e-6);
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let loss = nce(1.0, 0.0, Tile::new(8, 8));
    let [a, b] = [rows("fa", 4, 8), rows("fb", 5, 8)].map(|side| PairFeatures::of(&side).unwrap());
    let error = loss.stats(&a, &b, &one_lane(0..4)).unwrap_err();
    let want = "second operand of a contrastive term: expected shape that of the first, [rows, width] = [4, 8], \
                found [5, 8]";
    assert_eq!(error.to_string(), want);
    let error = loss.stats(&a, &a, &one_lane(2..6)).unwrap_err();
    assert!(error.to_string().contains("expected shape [at least 6, width], found [4, 8]"), "{error}");
}

#[test]
fn cosine_and_its_gradient_are_those_of_autograd() {
    let x = rows("cx", 9, 5).set_requires_grad(true);
    let y = rows("cy", 9, 5).set_requires_grad(true);
    let dots = (&x * &y).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    let naive = (dots * -1.0 + 1.0).sum(Kind::Float) * (1.0 / 12.0);
    naive.backward();
    let per_row = cosine::row_losses(&x.detach(), &y.detach()).unwrap();
    assert!((per_row.sum(Kind::Double).double_value(&[]) / 12.0 - naive.double_value(&[])).abs() < 1e-6);
    assert!(gap(&cosine::grad(&y.detach(), 12).unwrap(), &x.grad()) < 1e-7);
    assert!(gap(&cosine::grad(&x.detach(), 12).unwrap(), &y.grad()) < 1e-7);
}

/// Two tiles at once, at 65,536 rows. (`tests/loss_cost.rs` measures it.)
#[test]
fn tiles_are_bounded() {
    assert!(Tile::for_device(Device::Cpu).peak_elements(65_536) * 4 * 2 <= 8 << 20);
    assert!(Tile::for_device(Device::Cuda(0)).peak_elements(65_536) * 4 * 2 <= 128 << 20);
}
