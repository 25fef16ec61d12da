//! A run's newest good checkpoint, or a file of weights, as one safetensors file that other programs load:
//! `safetensors.torch.load_file`, then `load_state_dict`.

use super::names::{self, Names};
use crate::load::{StoredRun, Weights};
use anyhow::{Context, Result, bail};
use pixfleet_checkpoint::{HostTensor, decode, encode};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pixfleet export s3://bucket/runs/base --out model.safetensors
  pixfleet export file:///runs/base --ema --out teacher.safetensors
  pixfleet export file:///runs/alpha --as alphaclip --out clip_b16_alpha.safetensors
  pixfleet export imported.safetensors --as openai --out clip.safetensors
  pixfleet export hub s3://bucket/runs/base --out base --license apache-2.0    # for the Hub")]
pub(super) struct FileArgs {
    /// URL of the run, <store>/<name>; or a file of weights that `pixfleet import` wrote.
    #[arg(value_name = "RUN")]
    run: String,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// Write the moving average instead of the trained weights (runs with loss.teacher = "ema").
    #[arg(long)]
    ema: bool,
    /// Whose names to write.
    #[arg(long = "as", value_enum, value_name = "NAMES", default_value = "official")]
    names: Names,
}

pub(super) fn export(args: &FileArgs) -> Result<ExitCode> {
    let path = Path::new(&args.run);
    let (params, from) = if path.is_file() {
        if args.ema {
            bail!("{} is a file of weights, which holds no moving average; --ema wants a run", args.run);
        }
        (read(path)?, args.run.clone())
    } else {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let stored = runtime.block_on(StoredRun::open(&args.run))?;
        let params = stored.params(if args.ema { Weights::Ema } else { Weights::Trained })?;
        (params, format!("step {} of {}", stored.step(), stored.manifest.run))
    };
    let tensors = names::named(params, args.names)?;
    let name = args.out.display().to_string();
    let file = encode(&name, &tensors)?;
    // Readers see the whole file or none of it.
    let part = args.out.with_extension("part");
    std::fs::write(&part, &file.bytes).with_context(|| format!("cannot write {}", part.display()))?;
    std::fs::rename(&part, &args.out).with_context(|| format!("cannot write {name}"))?;
    eprintln!("{name}: {from}, {} tensors, blake3 {}", tensors.len(), file.blake3);
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<HostTensor>> {
    let origin = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {origin}"))?;
    decode(&origin, &bytes.into()).with_context(|| format!("{origin} is no file of weights"))
}
