//! Each kernel against its composition, values and gradients: 1e-5 in fp32, 1e-2 in bf16 (of the largest element), at the
//! towers' widths and at some that fill no vector; on the CPU, and on a GPU where there is one (`make gpu-check`).

use tch::{Device, Kind, Tensor};

use super::*;
use crate::testing::hash_fill;

/// Every device that has kernels.
fn devices() -> Vec<Device> {
    let gpu = pixfleet_shim::cuda::is_available().then_some(Device::Cuda(0));
    std::iter::once(Device::Cpu).chain(gpu).filter(|device| kernels::run_on(*device)).collect()
}

/// Values of `run` and gradients on `inputs` under a pull that differs from number to number.
fn run(inputs: &[Tensor], run: impl Fn(&[Tensor]) -> Vec<Tensor>) -> (Vec<Tensor>, Vec<Tensor>) {
    let leaves: Vec<Tensor> = inputs.iter().map(|t| t.detach().copy().set_requires_grad(true)).collect();
    let out = run(&leaves);
    let pull = |t: &Tensor| hash_fill("pull", &t.size(), 1.0).to_device(t.device());
    let pulled = out.iter().map(|t| (t.to_kind(Kind::Float) * pull(t)).sum(Kind::Float));
    pulled.sum::<Tensor>().backward();
    (out.iter().map(Tensor::detach).collect(), leaves.iter().map(Tensor::grad).collect())
}

fn assert_same(
    what: &str,
    dtype: Kind,
    inputs: &[Tensor],
    fused: impl Fn(&[Tensor]) -> Vec<Tensor>,
    composed: impl Fn(&[Tensor]) -> Vec<Tensor>,
) {
    let most = if dtype == Kind::Float { 1e-5 } else { 1e-2 };
    for device in devices() {
        let inputs: Vec<Tensor> = inputs.iter().map(|t| t.to_device(device)).collect();
        let (got, want) = (run(&inputs, &fused), run(&inputs, &composed));
        let pairs = got.0.iter().zip(&want.0).chain(got.1.iter().zip(&want.1));
        for (at, (got, want)) in pairs.enumerate() {
            let what = format!("{what} {dtype:?} on {device:?}: tensor {at}");
            assert_eq!((got.kind(), got.size()), (want.kind(), want.size()), "{what}");
            let [got, want] = [got, want].map(|t| t.to_kind(Kind::Double));
            let (gap, peak) = ((got - &want).abs().max().double_value(&[]), want.abs().max().double_value(&[]));
            assert!(peak > 0.0 && gap <= most * peak, "{what} differs by {gap} of {peak}");
        }
    }
}

fn leaves(width: i64) -> [Tensor; 2] {
    [hash_fill("weight", &[width], 1.0) + 1.0, hash_fill("bias", &[width], 0.5)]
}

const DTYPES: [Kind; 2] = [Kind::Float, Kind::BFloat16];

#[test]
fn norm_is_its_composition() {
    for (width, from, to) in [5, 31, 256, 672, 768, 1024]
        .iter()
        .flat_map(|&width| DTYPES.iter().flat_map(move |&from| DTYPES.iter().map(move |&to| (width, from, to))))
    {
        let [weight, bias] = leaves(width);
        let inputs = [(hash_fill("x", &[3, 37, width], 2.0) + 0.7).to_kind(from), weight, bias];
        let coarser = if to == Kind::Float { from } else { to };
        assert_same(
            &format!("norm of {width} {from:?}"),
            coarser,
            &inputs,
            |t| vec![done(kernels::norm(&t[0], [&t[1], &t[2]], 1e-6, to == Kind::BFloat16))],
            |t| vec![composed::norm(&t[0], [&t[1], &t[2]], 1e-6, to)],
        );
    }
}

#[test]
fn swiglu_and_norm_are_their_composition() {
    for (width, stride) in [(672, 672), (2730, 2752), (21, 64)] {
        for dtype in DTYPES {
            let [weight, bias] = leaves(width);
            let half = |name: &str| hash_fill(name, &[2, 9, width], 3.0).constant_pad_nd([0, stride - width]);
            let gated = Tensor::cat(&[half("gate"), half("value")], -1).to_kind(dtype);
            assert_same(
                &format!("swiglu of {width}"),
                dtype,
                &[gated, weight, bias],
                |t| vec![done(kernels::swiglu_norm(&t[0], [&t[1], &t[2]], 1e-6))],
                |t| vec![composed::swiglu_norm(&t[0], [&t[1], &t[2]], 1e-6)],
            );
        }
    }
}

#[test]
fn heads_are_their_composition() {
    let factors = rope::factors(6, 16, 64, Device::Cpu);
    for (parts, turned) in [(3, 2), (2, 1), (3, 0), (1, 0)] {
        for dtype in DTYPES {
            let heads = Heads { parts, width: 64, turned };
            let x = hash_fill("x", &[2, 37, 64 * 3 * parts as i64], 1.0).to_kind(dtype);
            let factors = |t: &Tensor| (turned > 0).then(|| factors.to_device(t.device()));
            assert_same(
                &format!("{heads:?}"),
                dtype,
                &[x],
                |t| done(kernels::split_heads(&t[0], factors(&t[0]).as_ref(), heads, false)),
                |t| composed::heads(&t[0], heads, factors(&t[0]).as_ref(), Kind::Float),
            );
        }
    }
}

#[test]
fn quick_gelu_is_its_composition() {
    for dtype in DTYPES {
        let x = hash_fill("x", &[3, 37, 70], 4.0).to_kind(dtype);
        assert_same(
            "quick_gelu",
            dtype,
            &[x],
            |t| vec![done(kernels::quick_gelu(&t[0]))],
            |t| vec![composed::quick_gelu(&t[0])],
        );
    }
}

/// Sums over rows are cut by the number of rows alone.
#[test]
fn threads_change_no_bit() {
    let [weight, bias] = leaves(768);
    let inputs = [hash_fill("x", &[1500, 768], 2.0), weight, bias];
    let norm = |t: &[Tensor]| vec![done(kernels::norm(&t[0], [&t[1], &t[2]], 1e-6, false))];
    let threads = tch::get_num_threads();
    let runs = [1, 2, 3].map(|threads| {
        tch::set_num_threads(threads);
        run(&inputs, norm)
    });
    tch::set_num_threads(threads);
    assert!(runs.iter().all(|run| *run == runs[0]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let [weight, bias] = leaves(8);
    let x = hash_fill("x", &[2, 8], 1.0);
    let refused = |result: Result<Tensor, Failure>| result.expect_err("refused").to_string();
    let error = refused(kernels::norm(&x.narrow(1, 0, 7), [&weight, &bias], 1e-6, false));
    assert!(error.contains("norm: the last dimension of [2, 7] is not that of [8]"), "{error}");
    let error = refused(kernels::norm(&x.to_kind(Kind::Double), [&weight, &bias], 1e-6, false));
    assert!(error.contains("norm: expected fp32 or bf16 on a CPU or a GPU with kernels, found Double"), "{error}");
    let error = refused(kernels::swiglu_norm(&x, [&weight, &bias], 1e-6));
    assert!(error.contains("gates and values of 8 numbers do not fit into [2, 8]"), "{error}");
    let heads = Heads { parts: 2, width: 3, turned: 0 };
    let error = kernels::split_heads(&x.unsqueeze(0), None, heads, false).expect_err("refused").to_string();
    assert!(error.contains("[1, 2, 8] are not 2 parts with heads of 3"), "{error}");
    let heads = Heads { parts: 2, width: 4, turned: 1 };
    assert!(kernels::split_heads(&x.unsqueeze(0), None, heads, false).is_err());
}
