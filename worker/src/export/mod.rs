//! `pixfleet-worker export`: a run's newest good checkpoint as one safetensors file with the names of PixCLIP's
//! checkpoints (method.md 1.6), which `safetensors.torch.load_file` reads.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use pixfleet_checkpoint::encode;

use crate::load::{StoredRun, Weights};

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pixfleet export s3://bucket/runs/base --out model.safetensors
  pixfleet export file:///runs/base --ema --out teacher.safetensors")]
pub(crate) struct Args {
    /// URL of the run, <store>/<name>.
    run: String,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// Write the moving average instead of the trained weights (runs with loss.teacher = "ema").
    #[arg(long)]
    ema: bool,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let stored = runtime.block_on(StoredRun::open(&args.run))?;
    let params = stored.params(if args.ema { Weights::Ema } else { Weights::Trained })?;
    let name = args.out.display().to_string();
    let file = encode(&name, &params)?;
    // Readers see the whole file or none of it.
    let part = args.out.with_extension("part");
    std::fs::write(&part, &file.bytes).with_context(|| format!("cannot write {}", part.display()))?;
    std::fs::rename(&part, &args.out).with_context(|| format!("cannot write {name}"))?;
    eprintln!(
        "{name}: step {} of {}, {} tensors, blake3 {}",
        stored.step(),
        stored.manifest.run,
        params.len(),
        file.blake3
    );
    Ok(ExitCode::SUCCESS)
}
