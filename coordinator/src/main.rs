//! `pixfleet-coordinator`: serves one run on one address until it is over.

mod args;

use anyhow::{Context, Result, ensure};
use args::Args;
use clap::{CommandFactory, Parser};
use pixfleet_cluster::RunSpec;
use pixfleet_coordinator::{Config, CoordinatorError, Doors, Ended, bind, serve};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    if pixfleet_proto::is_orphan() {
        return ExitCode::FAILURE;
    }
    pixfleet_proto::raise_open_files();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(pixfleet_proto::takes_colours())
        .with_writer(std::io::stderr)
        .init();
    // Not among the arguments: those that are required would be missing.
    if let [_, flag, folder] = &std::env::args_os().collect::<Vec<_>>()[..]
        && flag == "--manual"
    {
        return manual(Path::new(folder));
    }
    match run(Args::parse()) {
        Ok(ended) => ExitCode::from(ended.outcome.exit_code()),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(error.downcast_ref::<CoordinatorError>().map_or(1, CoordinatorError::exit_code))
        }
    }
}

/// The man page, for whoever packs this program.
fn manual(folder: &Path) -> ExitCode {
    match clap_mangen::generate_to(Args::command(), folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write to {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: Args) -> Result<Ended> {
    let text = std::fs::read_to_string(&args.spec).with_context(|| format!("cannot read {}", args.spec.display()))?;
    let spec = RunSpec::parse(&text, &args.set)?;
    let fleet = bind(args.listen, args.insecure).await?;
    ensure!(
        args.advertise.is_some() || !args.listen.ip().is_unspecified(),
        "--listen {} is every address of this machine and none that others could be told: say --advertise HOST:PORT",
        args.listen
    );
    let metrics = match args.metrics {
        Some(address) => Some(bind(address, args.insecure).await?),
        None => None,
    };
    let address = fleet.local_addr().context("cannot tell the own address")?.to_string();
    tracing::info!(address, run = spec.run.name, "listening");
    if let Some(file) = &args.port_file {
        write_whole(file, &address).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let shutdown = async move {
        terminate.recv().await;
    };
    let config = Config {
        spec,
        expect: args.expect,
        join_window: Duration::from_secs(args.join_window),
        fresh: args.fresh,
        standby: args.standby,
        advertise: args.advertise.unwrap_or(address),
    };
    Ok(serve(Doors { fleet, metrics }, config, shutdown).await?)
}

/// Whoever waits for the file sees all of it or nothing.
fn write_whole(file: &Path, text: &str) -> std::io::Result<()> {
    let beside = file.with_extension("part");
    std::fs::write(&beside, text)?;
    std::fs::rename(beside, file)
}
