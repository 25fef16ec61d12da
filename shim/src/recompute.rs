//! Segments of a graph that are not kept but made anew in backward, over `cpp/recompute.cpp`.
//!
//! Invariant: no panic crosses into C++. A segment that panics there fails the backward, with its words.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;

use crate::{CxxTensor, Failure, Message, own_tensor, tensor_ptr, tensor_ptrs};

/// What makes a segment's output from its inputs: a function of nothing else, called on whatever thread runs backward.
pub type SegmentBody = Box<dyn Fn(&[Tensor]) -> Tensor + Send>;

/// `pf_segment_calls` of recompute.cpp.
///
/// What C++ promises each callback: `user` is this struct's and `drop` was not called yet; tensors, and the array of them,
/// live for the call; out-pointers are valid for the call. The SAFETY comments below call this the promise.
#[repr(C)]
struct Calls {
    user: *mut c_void,
    run: unsafe extern "C" fn(*mut c_void, *const *const CxxTensor, usize, *mut CxxTensor, *mut c_void) -> c_int,
    drop: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    fn pf_recompute(
        inputs: *const *const CxxTensor,
        count: usize,
        output: *const CxxTensor,
        calls: Calls,
        out: *mut *mut CxxTensor,
    ) -> Message;
    fn pf_tensor_assign(target: *mut CxxTensor, value: *const CxxTensor);
    fn pf_bytes_assign(bytes: *mut c_void, data: *const u8, len: usize);
}

/// `output`, which `segment` made of `inputs` without a graph, as a tensor with one: its backward runs `segment` again.
/// Gradients flow to those of `inputs` that require them, so everything that `segment` reads and that learns must be among
/// them.
///
/// # Errors
/// libtorch refuses.
pub fn recompute(inputs: &[Tensor], output: &Tensor, segment: SegmentBody) -> Result<Tensor, Failure> {
    let user = Box::into_raw(Box::new(segment)).cast();
    let (list, calls) = (tensor_ptrs(inputs), Calls { user, run, drop: drop_user });
    // SAFETY: live tensors, borrowed for the call, which stores a fresh tensor where it reports no failure. It owns `user`
    // from its first line on, and calls `drop` once, also where it fails.
    own_tensor(|out| unsafe { pf_recompute(list.as_ptr(), list.len(), tensor_ptr(output), calls, out) })
}

unsafe extern "C" fn run(
    user: *mut c_void,
    inputs: *const *const CxxTensor,
    count: usize,
    out: *mut CxxTensor,
    why: *mut c_void,
) -> c_int {
    // SAFETY: the promise; tch's tensors of their own share the storage.
    let (segment, inputs): (&SegmentBody, Vec<Tensor>) = unsafe {
        (&*user.cast(), (0..count).map(|i| Tensor::clone_from_ptr((*inputs.add(i)).cast_mut().cast())).collect())
    };
    match catch_unwind(AssertUnwindSafe(|| segment(&inputs))) {
        Ok(output) => {
            // SAFETY: the promise; C++ copies the handle during the call.
            unsafe { pf_tensor_assign(out, tensor_ptr(&output)) };
            0
        }
        Err(panic) => {
            let words = words(panic.as_ref());
            // SAFETY: the promise; the bytes are copied during the call.
            unsafe { pf_bytes_assign(why, words.as_ptr(), words.len()) };
            -1
        }
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

unsafe extern "C" fn drop_user(user: *mut c_void) {
    // SAFETY: C++ calls this once, from the segment's destructor, for the box that `recompute` leaked.
    let user = unsafe { Box::from_raw(user.cast::<SegmentBody>()) };
    // Dropping what a closure holds may panic; the panic ends here.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(user)));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tch::{Kind, no_grad};

    use super::*;

    fn numbers(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    fn of(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor).expect("fp32")
    }

    #[test]
    fn a_segment_runs_again_in_backward_and_gives_the_gradients_of_a_kept_graph() {
        let (x, weight) = (numbers(&[1.0, -2.0, 3.0]), numbers(&[0.5, 4.0, -1.0]));
        let frozen = Tensor::from_slice(&[2f32, 2.0, 2.0]);
        let make = |x: &Tensor, w: &Tensor, f: &Tensor| (x * w * f).sin();
        let runs = Arc::new(AtomicUsize::new(0));
        let (counted, inputs) = (Arc::clone(&runs), [&x * 1.0, &weight * 1.0, frozen.shallow_clone()]);
        let again: SegmentBody = Box::new(move |inputs: &[Tensor]| {
            counted.fetch_add(1, Ordering::Relaxed);
            make(&inputs[0], &inputs[1], &inputs[2])
        });
        let output = no_grad(|| make(&x, &weight, &frozen));
        let output = recompute(&inputs, &output, again).expect("a node");
        assert_eq!(runs.load(Ordering::Relaxed), 0);
        (&output * &output).sum(Kind::Float).backward();
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        let found = [of(&x.grad()), of(&weight.grad())];

        let (x, weight) = (numbers(&[1.0, -2.0, 3.0]), numbers(&[0.5, 4.0, -1.0]));
        let kept = make(&x, &weight, &frozen);
        (&kept * &kept).sum(Kind::Float).backward();
        assert_eq!(found, [of(&x.grad()), of(&weight.grad())]);
    }

    #[test]
    fn a_segment_that_panics_fails_the_backward_with_its_words_and_is_dropped() {
        let held = Arc::new(());
        let (x, kept) = (numbers(&[1.0]), Arc::clone(&held));
        let again: SegmentBody = Box::new(move |_| {
            let _held = &kept;
            panic!("no second time")
        });
        let output = recompute(&[&x * 1.0], &Tensor::from_slice(&[1f32]), again).expect("a node");
        let error = output.sum(Kind::Float).f_backward().unwrap_err();
        assert!(error.to_string().contains("could not be run again: no second time"), "{error}");
        assert_eq!(Arc::strong_count(&held), 2);
        drop(output);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
