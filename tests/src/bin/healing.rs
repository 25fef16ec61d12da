//! `healing`: how long pixfleet takes to go on after a fault, measured on real processes.

use clap::Parser;
use pixfleet_tests::healing;
use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(pixfleet_proto::takes_colours())
        .with_writer(std::io::stderr)
        .init();
    healing::main(&healing::HealingArgs::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
