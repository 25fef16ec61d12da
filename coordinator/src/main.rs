//! `pixfleet-coordinator`: serves one run on one address until it is over.

use anyhow::{Context, Result};
use clap::Parser;
use pixfleet_cluster::RunSpec;
use pixfleet_coordinator::{Config, Ended, bind, serve};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Coordinates one run: gathers workers, forms generations, keeps the ledger, commits checkpoints.
#[derive(Parser)]
#[command(name = "pixfleet-coordinator", version)]
struct Args {
    /// The run file.
    #[arg(long)]
    spec: PathBuf,
    /// Overrides: section.key=value.
    #[arg(long = "set")]
    set: Vec<String>,
    /// Where to listen; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Listen where other machines can reach it, although nothing proves who they are.
    #[arg(long)]
    insecure: bool,
    /// Workers to wait for before the first step.
    #[arg(long, default_value_t = 1)]
    expect: u32,
    /// Seconds to wait for the others once one worker is there.
    #[arg(long, default_value_t = 60)]
    join_window: u64,
    /// File to write the address to, once it listens.
    #[arg(long)]
    port_file: Option<PathBuf>,
    /// Refuse a run that exists.
    #[arg(long)]
    fresh: bool,
}

fn main() -> ExitCode {
    if pixfleet_proto::is_orphan() {
        return ExitCode::FAILURE;
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    match run(Args::parse()) {
        Ok(ended) => ExitCode::from(ended.outcome.exit_code()),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: Args) -> Result<Ended> {
    let text = std::fs::read_to_string(&args.spec).with_context(|| format!("cannot read {}", args.spec.display()))?;
    let spec = RunSpec::parse(&text, &args.set)?;
    let listener = bind(args.listen, args.insecure).await?;
    let address = listener.local_addr().context("cannot tell the own address")?;
    tracing::info!(%address, run = spec.run.name, "listening");
    if let Some(file) = &args.port_file {
        write_whole(file, &address.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let shutdown = async move {
        terminate.recv().await;
    };
    let join_window = Duration::from_secs(args.join_window);
    Ok(serve(listener, Config { spec, expect: args.expect, join_window, fresh: args.fresh }, shutdown).await?)
}

/// Whoever waits for the file sees all of it or nothing.
fn write_whole(file: &Path, text: &str) -> std::io::Result<()> {
    let beside = file.with_extension("part");
    std::fs::write(&beside, text)?;
    std::fs::rename(beside, file)
}
