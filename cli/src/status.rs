//! `pixfleet status`: what a coordinator says of its run.

use anyhow::{Context, Result};
use comfy_table::{LineStyle, Table, presets};
use pixfleet_proto::{FleetError, Patience, connect, pb};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Address of the coordinator, host:port.
    address: String,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let status = runtime.block_on(ask(&args.address))?;
    writeln!(std::io::stdout(), "{}", as_table(&status)).context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(address: &str) -> Result<pb::StatusReply> {
    let mut client = connect(address, Patience(Duration::from_secs(1))).await?;
    Ok(client.status(pb::StatusRequest {}).await.map_err(FleetError::from)?.into_inner())
}

fn as_table(status: &pb::StatusReply) -> String {
    let mut text = format!(
        "run {}: {}, generation {}, step {} of {}, {} members lost",
        status.run, status.state, status.generation, status.next_step, status.steps, status.losses_of_members
    );
    if let Some(step) = status.checkpoint_step {
        text += &format!(", newest checkpoint at step {step}");
    }
    if let Some((last, losses)) = status.last.as_ref().and_then(|l| Some((l, l.report.as_ref()?.losses?))) {
        text += &format!("\nloss {:.4}, {:.1} samples/s, epoch {}", losses.total, last.samples_per_s, last.epoch);
    }
    if !status.message.is_empty() {
        text += &format!("\n{}", status.message);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header(["member", "name", "host", "pid", "rank", "next step", "state"]);
    let or_dash = |n: Option<u64>| n.map_or("-".to_string(), |n| n.to_string());
    for m in &status.members {
        table.add_row([
            m.member.to_string(),
            m.name.clone(),
            m.host.clone(),
            m.pid.to_string(),
            or_dash(m.rank.map(u64::from)),
            or_dash(m.next_step),
            m.state.clone(),
        ]);
    }
    format!("{text}\n{table}")
}
