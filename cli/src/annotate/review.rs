//! `pixfleet annotate review`.

use anyhow::{Context, Result};
use pixfleet_annotate::Review;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Serves a page on this machine alone: one region at a time, its mask marked in the picture, all that was written of it, who
wrote it, and the check's verdict. Keys: a accept, r reject, u undo, arrows move.

Ctrl-C writes the verdicts into the rows: `check_ok` of what was rejected becomes false, so training leaves it out, and
`provenance` says that a person looked. Text vectors beside files that were written anew must be made again.

Examples:
  pixfleet annotate review file:///data/longgrit
  pixfleet annotate review s3://bucket/longgrit --split train --rows 50 --seed 2")]
pub(crate) struct Args {
    /// URL of an annotated dataset.
    url: String,
    /// The split to look at.
    #[arg(long, default_value = "train")]
    split: String,
    /// How many rows.
    #[arg(long, default_value_t = 200)]
    rows: usize,
    /// Other seeds draw other rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the page is.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

pub(crate) async fn main(args: Args) -> Result<ExitCode> {
    let review = Arc::new(Review::open(&args.url, &args.split, args.rows, args.seed).await?);
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr().context("cannot tell the own address")?;
    crate::shards::say(format_args!("{} regions at http://{address}/ ; Ctrl-C writes the verdicts", review.count()))?;
    let stopped = async {
        // An error means that there is no Ctrl-C to wait for: then the page stays until the process is killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    pixfleet_annotate::serve(&review, listener, stopped).await.context("the page cannot be served")?;
    let applied = review.apply().await?;
    let (accepted, rejected, files) = (applied.accepted, applied.rejected, applied.files);
    crate::shards::say(format_args!("{accepted} accepted, {rejected} rejected, {files} files written anew"))?;
    Ok(ExitCode::SUCCESS)
}
