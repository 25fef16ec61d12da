//! What libtorch is told once for the whole process, over `cpp/settings.cpp`.

use std::ffi::c_int;

use crate::{Failure, Message, check};

unsafe extern "C" {
    fn pf_settle_environment() -> Message;
    fn pf_deterministic(on: c_int) -> Message;
    fn pf_attention_without_plans() -> Message;
}

/// Gives the process the settings of c10d that its groups need, each unless the environment has it already. Groups do so
/// themselves; whoever comes before the process has a second thread spares it a race.
///
/// # Errors
/// None is known.
pub fn settle_environment() -> Result<(), Failure> {
    // SAFETY: no arguments.
    check(unsafe { pf_settle_environment() })
}

/// Whether operations must give the same bits every time. Then those that have no kernel for that fail, and their failure
/// names them; cuBLAS must not have been used before.
///
/// # Errors
/// None is known.
pub fn deterministic(on: bool) -> Result<(), Failure> {
    // SAFETY: a number.
    check(unsafe { pf_deterministic(c_int::from(on)) })
}

/// Attention on GPUs by kernels that take any shape at once. cuDNN's made a plan for every new one, in about 100 ms forward and
/// as much backward (LOG.md), and a step's crops and texts are seldom as many as the last one's.
///
/// # Errors
/// None is known.
pub fn attention_without_plans() -> Result<(), Failure> {
    // SAFETY: no arguments.
    check(unsafe { pf_attention_without_plans() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use tch::Tensor;

    /// Set in the process that [`what_the_environment_has_stays_and_the_rest_is_set`] starts.
    const CHILD: &str = "PIXFLEET_TEST_SETTINGS";
    const GIVEN: &str = "TORCH_NCCL_DUMP_ON_TIMEOUT";
    const SET: [(&str, &str); 5] = [
        ("TORCH_FR_BUFFER_SIZE", "0"),
        ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2"),
        ("TORCH_NCCL_ENABLE_MONITORING", "0"),
        (GIVEN, "0"),
        ("TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "0"),
    ];

    /// In a process of its own, whose environment is known; by itself nothing.
    #[test]
    fn settles() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        settle_environment().expect("no failure is known");
        for (name, value) in SET {
            let value = if name == GIVEN { "1" } else { value };
            assert_eq!(std::env::var(name).as_deref(), Ok(value), "{name}");
        }
    }

    #[test]
    fn what_the_environment_has_stays_and_the_rest_is_set() {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "settings::tests::settles"]).env(CHILD, "1");
        for (name, _) in SET {
            command.env_remove(name);
        }
        let status = command.env(GIVEN, "1").stdout(Stdio::null()).status().expect("it starts");
        assert!(status.success(), "its words stand above");
    }

    #[test]
    fn an_operation_without_a_deterministic_kernel_names_itself() {
        // With one index twice, which value stays is a matter of timing, on CPUs too.
        let put = || {
            let mut into = Tensor::from_slice(&[0f32; 4]);
            into.f_put_(&Tensor::from_slice(&[1i64, 1]), &Tensor::from_slice(&[1f32, 2.0]), false).map(drop)
        };
        deterministic(true).expect("no failure is known");
        let refused = put();
        deterministic(false).expect("no failure is known");
        let words = refused.expect_err("it has none").to_string();
        assert!(words.contains("put_ does not have a deterministic implementation"), "{words}");
        put().expect("nobody asks any more");
    }
}
