//! What a device is told before anything is computed on it: above all what `train.reduce = "exact"` asks of it, and how an
//! operation that cannot give that is told.

use pixfleet_cluster::spec::Reduce;
use pixfleet_shim::{cuda, settings};
use tch::Device;

use super::error::TrainError;

/// What libtorch says of an operation without a deterministic kernel, after its name (`Context::alertNotDeterministic`).
const NONE: &str = " does not have a deterministic implementation";
/// What it says where cuBLAS was given a workspace that makes its order of additions a matter of timing
/// (`Context::alertCuBLASConfigNotDeterministic`).
const WORKSPACE: &str = "this operation is not deterministic because it uses CuBLAS";

/// Set to anything, it has every wait of the host for a GPU written to standard error.
const WAITS_VARIABLE: &str = "PIXFLEET_TELL_WAITS";

/// Readies `device` for this thread, before anything is computed on it. Kernels of the CPU give the same bits every time as
/// it is; those of GPUs must be asked to.
///
/// # Errors
/// [`TrainError::Device`].
pub(crate) fn prepare(device: Device, reduce: Reduce) -> Result<(), TrainError> {
    let Device::Cuda(_) = device else { return Ok(()) };
    let failed = |source| TrainError::Device { device: super::start::device_name(device), source };
    cuda::set_current(device).map_err(failed)?;
    settings::attention_without_plans().map_err(failed)?;
    if std::env::var_os(WAITS_VARIABLE).is_some() {
        cuda::tell_waits().map_err(failed)?;
    }
    match reduce {
        Reduce::Exact => settings::deterministic(true).map_err(failed),
        Reduce::Fast => Ok(()),
    }
}

/// The operation without a deterministic kernel that libtorch's words name.
fn operation(words: &str) -> Option<String> {
    if words.contains(WORKSPACE) {
        return Some("cuBLAS with this CUBLAS_WORKSPACE_CONFIG (unset it, or set it to :4096:8)".into());
    }
    let before = words.split_once(NONE)?.0;
    // What stands before the name is the frame of some error around libtorch's.
    let name = before.rsplit(|c: char| c.is_whitespace() || c == '"').next().unwrap_or(before);
    Some(format!("`{name}`"))
}

/// `error`, or what it comes down to: an operation that keeps `exact` from its promise.
pub(crate) fn told(error: TrainError) -> TrainError {
    match operation(&error.sentence()) {
        Some(operation) => TrainError::NotDeterministic { operation, source: Box::new(error) },
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_without_a_deterministic_kernel_is_named_with_what_to_do() {
        let words = "upsample_bicubic2d_backward_out_cuda does not have a deterministic implementation, but you set \
                     'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation.";
        let source = tch::TchError::Torch(words.into());
        let error = told(TrainError::Torch { doing: "a test", source });
        assert_eq!(
            error.to_string(),
            "train.reduce = \"exact\" needs deterministic kernels, and libtorch has none for \
             `upsample_bicubic2d_backward_out_cuda` on this device; train on CPUs, or with train.reduce = \"fast\""
        );
        assert!(!error.ends_only_the_generation(), "no other generation mends it");
        assert!(error.sentence().contains("libtorch refused a test"), "{}", error.sentence());
    }

    #[test]
    fn a_workspace_that_is_not_deterministic_is_named() {
        let words = "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or \
                     `at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because \
                     it uses CuBLAS and you have CUDA >= 10.2.";
        let error = told(TrainError::Torch { doing: "a test", source: tch::TchError::Torch(words.into()) });
        assert!(error.to_string().contains("CUBLAS_WORKSPACE_CONFIG (unset it"), "{error}");
    }

    #[test]
    fn other_errors_stay_what_they_are() {
        let source = tch::TchError::Torch("out of memory".into());
        let error = told(TrainError::Torch { doing: "a test", source });
        assert!(matches!(error, TrainError::Torch { .. }), "{error}");
    }
}
