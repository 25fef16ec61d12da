//! `leaderless`: how long ranks pause when their coordinator dies in the midst of a change of members.

use clap::Parser;
use pixfleet_tests::leaderless;
use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(pixfleet_proto::takes_colours())
        .with_writer(std::io::stderr)
        .init();
    leaderless::main(&leaderless::LeaderlessArgs::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
