//! `annotate-soak`: several processes annotate one dataset while one after the other is killed.

use clap::Parser;
use pixfleet_tests::annotate_soak::{AnnotateSoakArgs, soak};
use std::process::ExitCode;

fn main() -> ExitCode {
    match soak(&AnnotateSoakArgs::parse()) {
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
