//! The kernels against their formulas, and what they refuse.

use tch::{Device, Kind, Tensor};

use super::{AdamWLists, AdamWStep, Guard, fused_adamw, lerp_all, norms, zero_all};

fn wave(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    (Tensor::arange(count, (Kind::Float, Device::Cpu)) + phase).sin().view(shape)
}

/// A step as it stands: nothing is clipped, nothing skipped.
fn free() -> Guard {
    Guard { divisor: Tensor::from(1f32), skip: Tensor::from(0f32) }
}

/// Loshchilov and Hutter 2019, algorithm 2, in plain tensor operations.
fn adamw(param: &mut Tensor, grad: &Tensor, m: &mut Tensor, v: &mut Tensor, at: &AdamWStep) {
    *m = &*m * at.beta1 + grad * (1.0 - at.beta1);
    *v = &*v * at.beta2 + grad.square() * (1.0 - at.beta2);
    let power = i32::try_from(at.step).unwrap();
    let m_hat = &*m / (1.0 - at.beta1.powi(power));
    let v_hat = &*v / (1.0 - at.beta2.powi(power));
    *param = &*param * (1.0 - at.lr * at.weight_decay) - m_hat / (v_hat.sqrt() + at.eps) * at.lr;
}

#[test]
fn fused_adamw_follows_the_formula() {
    let shapes: [&[i64]; 3] = [&[17, 5], &[3], &[1]];
    let mut expected: Vec<[Tensor; 3]> =
        shapes.iter().map(|shape| [wave(shape, 0.3), wave(shape, 0.0) * 0.0, wave(shape, 0.0) * 0.0]).collect();
    let list = |slot: usize, from: &[[Tensor; 3]]| from.iter().map(|row| row[slot].copy()).collect::<Vec<_>>();
    let (params, first, second) = (list(0, &expected), list(1, &expected), list(2, &expected));
    let params: Vec<Tensor> = params.into_iter().map(|tensor| tensor.set_requires_grad(true)).collect();
    for step in 1..=3 {
        let at = AdamWStep { step, lr: 0.01, beta1: 0.9, beta2: 0.98, weight_decay: 0.05, eps: 1e-6 };
        let grads: Vec<Tensor> = shapes.iter().map(|shape| wave(shape, step as f64)).collect();
        for ([param, m, v], grad) in expected.iter_mut().zip(&grads) {
            adamw(param, grad, m, v, &at);
        }
        let lists = AdamWLists { params: &params, grads: &grads, exp_avgs: &first, exp_avg_sqs: &second };
        fused_adamw(lists, &at, &free()).unwrap();
    }
    for (found, [param, ..]) in params.iter().zip(&expected) {
        assert!(found.detach().allclose(param, 1e-5, 1e-7, false));
        assert!(found.requires_grad() && found.is_leaf(), "the parameter stays a leaf");
    }
}

#[test]
fn fused_adamw_refuses_what_does_not_fit() {
    let one = [wave(&[3], 0.0)];
    let lists = AdamWLists { params: &one, grads: &[], exp_avgs: &one, exp_avg_sqs: &one };
    let mut at = AdamWStep { step: 1, lr: 0.1, beta1: 0.9, beta2: 0.9, weight_decay: 0.0, eps: 1e-8 };
    let failure = fused_adamw(lists, &at, &free()).unwrap_err();
    assert_eq!(failure.to_string(), "fused_adamw: lists of [1, 0, 1, 1] tensors at step 1 (from 1)");
    at.step = 0;
    let lists = AdamWLists { params: &one, grads: &one, exp_avgs: &one, exp_avg_sqs: &one };
    let failure = fused_adamw(lists, &at, &free()).unwrap_err();
    assert_eq!(failure.to_string(), "fused_adamw: lists of [1, 1, 1, 1] tensors at step 0 (from 1)");
    at.step = 1;
    let other = [wave(&[4], 0.0)];
    let lists = AdamWLists { params: &one, grads: &other, exp_avgs: &one, exp_avg_sqs: &one };
    let failure = fused_adamw(lists, &at, &free()).unwrap_err().to_string();
    assert!(failure.starts_with("fused_adamw: parameter 0 is"), "the CPU kernel would read past the end: {failure}");
    let view = [wave(&[2, 3], 0.0).transpose(0, 1)];
    let lists = AdamWLists { params: &view, grads: &view, exp_avgs: &view, exp_avg_sqs: &view };
    assert!(fused_adamw(lists, &at, &free()).unwrap_err().to_string().contains("strided"));
}

#[test]
fn fused_adamw_reads_a_transposed_gradient_in_order() {
    let at = AdamWStep { step: 1, lr: 0.5, beta1: 0.0, beta2: 0.0, weight_decay: 0.0, eps: 0.0 };
    let zeros = || [Tensor::zeros([2, 2], (Kind::Float, Device::Cpu))];
    let (params, first, second) = (zeros(), zeros(), zeros());
    let grads = [Tensor::from_slice(&[1f32, -1.0, 1.0, 1.0]).view([2, 2]).transpose(0, 1)];
    let lists = AdamWLists { params: &params, grads: &grads, exp_avgs: &first, exp_avg_sqs: &second };
    fused_adamw(lists, &at, &free()).unwrap();
    assert_eq!(Vec::<f32>::try_from(params[0].view(-1)).unwrap(), [-0.5, -0.5, 0.5, -0.5]);
}

#[test]
fn a_guard_clips_or_skips() {
    let at = AdamWStep { step: 1, lr: 0.5, beta1: 0.0, beta2: 0.5, weight_decay: 0.1, eps: 0.0 };
    let [params, grads, first, second] = [0.3, 1.0, 2.0, 3.0].map(|phase| [wave(&[5], phase).square()]);
    let lists = AdamWLists { params: &params, grads: &grads, exp_avgs: &first, exp_avg_sqs: &second };
    let before = [&params, &grads, &first, &second].map(|list| list[0].copy());
    fused_adamw(lists, &at, &Guard { divisor: Tensor::from(1f32), skip: Tensor::from(1f32) }).unwrap();
    assert_eq!([&params, &grads, &first, &second].map(|list| list[0].copy()), before, "a skipped step changes nothing");
    fused_adamw(lists, &at, &Guard { divisor: Tensor::from(4f32), skip: Tensor::from(0f32) }).unwrap();
    assert_eq!(grads[0], &before[1] / 4.0);
    assert_eq!(first[0], grads[0], "with beta1 = 0 the first moment is the clipped gradient");
    assert_ne!(params[0], before[0]);
    let odd = Guard { divisor: Tensor::from(1f64), skip: Tensor::from(0f32) };
    assert!(fused_adamw(lists, &at, &odd).unwrap_err().to_string().contains("expected a number in fp32"));
}

#[test]
fn lists_are_worked_on_tensor_by_tensor() {
    let tensors = [wave(&[7, 3], 0.1), wave(&[], 2.0), wave(&[50], 1.0)];
    let found = norms(&tensors).unwrap();
    for (at, tensor) in (0..).zip(&tensors) {
        assert!((found.double_value(&[at]) - tensor.norm().double_value(&[])).abs() < 1e-6);
    }
    assert_eq!(norms(&[]).unwrap_err().to_string(), "norms: no tensors");
    let targets: Vec<Tensor> = tensors.iter().map(|tensor| tensor * 3.0).collect();
    lerp_all(&targets, &tensors, 0.25).unwrap();
    for (target, tensor) in targets.iter().zip(&tensors) {
        assert!(target.allclose(&(tensor * 2.5), 1e-6, 1e-7, false));
    }
    assert!(lerp_all(&targets[..1], &tensors, 0.25).is_err());
    zero_all(&targets).unwrap();
    assert!(targets.iter().all(|target| target.abs().max().double_value(&[]) == 0.0));
}
