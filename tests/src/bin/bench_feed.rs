//! `bench-feed`: how fast rows are fed from a far store, against local disk. `make bench-feed`.

use clap::Parser;
use pixfleet_tests::far::feed;
use std::process::ExitCode;

fn main() -> ExitCode {
    feed::main(&feed::FarFeedArgs::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
