//! Commands that need torch live in `pixfleet-worker`, which lies beside this program; their arguments pass through
//! unchanged, as git does with its sub-programs.

use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

/// A command of `pixfleet-worker`.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Join a run as a worker.
    Worker(Passed),
    /// Evaluate a checkpoint: which region or picture a text means, and which of many texts is true of a region.
    Eval(Passed),
    /// Write image, region and text embeddings of a split to Parquet.
    Encode(Passed),
    /// What the parts of a run can do on this machine, each for itself.
    Bench(Passed),
    /// One forward and backward in fp32 on given tensors, for people who port weights.
    Probe(Passed),
    /// Encode captions and write their vectors beside the rows (`pixfleet shards embed`).
    Embed(Passed),
    /// A checkpoint as one safetensors file with the names PyTorch code expects, or as a folder for the Hugging Face Hub.
    Export(Passed),
    /// A published checkpoint (safetensors, torch.save) as a file of weights under pixfleet's names.
    Import(Passed),
}

/// Arguments of the other program.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Passed {
    /// Passed on; `--help` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn main(command: Command) -> Result<ExitCode> {
    let (name, passed) = match command {
        Command::Worker(p) => ("worker", p),
        Command::Eval(p) => ("eval", p),
        Command::Encode(p) => ("encode", p),
        Command::Bench(p) => ("bench", p),
        Command::Probe(p) => ("probe", p),
        Command::Embed(p) => ("embed", p),
        Command::Export(p) => ("export", p),
        Command::Import(p) => ("import", p),
    };
    pass(WORKER, Some(name), passed)
}

/// Becomes the program `name` that lies beside this one.
pub(crate) fn pass(name: &str, command: Option<&str>, passed: Passed) -> Result<ExitCode> {
    let mut program = beside(name)?;
    let error = program.args(command).args(passed.args).exec();
    Err(error).with_context(|| format!("cannot start {}", program.get_program().display()))
}

/// The program that runs torch, and its twin that drives GPUs as well, in installations that have one: libtorch's part for
/// CUDA is large and slow to load, and is not everywhere.
pub(crate) const WORKER: &str = "pixfleet-worker";
const CUDA_WORKER: &str = "pixfleet-worker-cuda";
/// What NVIDIA's driver shows to every process that may use a GPU, in containers too.
const DRIVER: &str = "/dev/nvidiactl";

/// A command that starts the program `name` that lies beside this one, on a machine with a GPU the worker that drives it.
///
/// Idle OpenMP threads sleep instead of spinning: a worker shares its cores with its decode pool and often with other
/// workers, and a spinning thread takes the core that the one it waits for needs. Measured with one worker of two
/// threads beside two busy processes on two cores: 14.2 s a step spinning, 1.7 s sleeping.
pub(crate) fn beside(name: &str) -> Result<std::process::Command> {
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    let twin = Some(own.with_file_name(CUDA_WORKER))
        .filter(|twin| name == WORKER && Path::new(DRIVER).exists() && twin.exists());
    let mut command = std::process::Command::new(twin.unwrap_or_else(|| own.with_file_name(name)));
    if std::env::var_os("OMP_WAIT_POLICY").is_none() {
        command.env("OMP_WAIT_POLICY", "passive");
    }
    Ok(command)
}
