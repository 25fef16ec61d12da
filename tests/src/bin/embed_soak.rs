//! `embed-soak`: several processes embed one dataset while one after the other is killed.

use clap::Parser;
use pixfleet_tests::embed_soak::{EmbedSoakArgs, soak};
use std::process::ExitCode;

fn main() -> ExitCode {
    match soak(&EmbedSoakArgs::parse()) {
        Ok(report) => {
            eprintln!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
