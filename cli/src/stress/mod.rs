//! `pixfleet stress`: a real coordinator with as many sessions as are wanted, of members that only speak. What it costs,
//! how long it takes, and whether its promises hold.

mod fleet;
mod leader;
mod member;
mod scene;
mod stages;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use stages::Measured;
use std::io::Write;
use std::process::ExitCode;

/// The machine that all members say they run on.
const HOST: &str = "stress";

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Members join, form a generation and tell of its steps. Some are killed one after the other, if --faults says so. Half-way
the coordinator is killed with SIGKILL, the members do two more steps without any, and another coordinator takes over. In the
end the run is drained and its ledger audited.

  form       from the first session until all members have their place and say that they are ready
  step       processor time of the coordinator, a step and 1,000 members, in milliseconds
  memory     the most that a coordinator held
  order      from a drain until each member has its order to finish: half of them, and 99 of 100
  heal       from a member's end until the others' next step is recorded, the longest
  takeover   from the kill until all members are back and the next step is recorded

Fails if a member is lost that nobody killed, if a step is recorded twice or done again, or if the audit is not clean.

Examples:
  pixfleet stress --members 1000
  pixfleet stress --members 1000,3000,10000 --steps 20
  pixfleet stress --members 1000 --faults 3")]
pub(crate) struct Args {
    /// Members; several numbers, by comma, are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    members: Vec<u32>,
    /// Steps, of which half are done before the coordinator is killed.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..=10_000))]
    steps: u64,
    /// Members to kill, one after the other.
    #[arg(long, default_value_t = 0)]
    faults: u32,
    /// Milliseconds that a step takes at least.
    #[arg(long, default_value_t = 1000)]
    step_ms: u64,
    /// `train.patience_ms` of the run: members that share a few processors are slow to answer.
    #[arg(long, default_value_t = 40_000)]
    patience_ms: u64,
}

/// The process that a member says it is.
fn pid_of(number: u32) -> u32 {
    number + 1
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let open_files = pixfleet_proto::raise_open_files();
    // Children ask the kernel to die with the thread that started them, so they are started from this, the main one.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let mut measured = Vec::new();
    for &members in &args.members {
        let needed = u64::from(members / fleet::SESSIONS_A_CHANNEL) * 2 + 256;
        anyhow::ensure!(
            open_files >= needed,
            "{members} members need {needed} open files and this process may have {open_files}: raise the hard limit (ulimit \
             -Hn)"
        );
        eprintln!("{members} members");
        measured.push(runtime.block_on(stages::measure(&args, members))?);
    }
    writeln!(std::io::stdout(), "{}", as_table(&measured)).context("cannot write to standard output")?;
    let findings = measured.iter().flat_map(|m| m.findings.iter().map(move |finding| (m.members, finding)));
    let mut clean = true;
    for (members, finding) in findings {
        clean = false;
        eprintln!("{members} members: {finding}");
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_table(measured: &[Measured]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header([
        "members",
        "form s",
        "step ms / 1,000",
        "memory MiB",
        "order p50 ms",
        "order p99 ms",
        "heal s",
        "takeover s",
        "promises",
    ]);
    for m in measured {
        let promises = if m.findings.is_empty() { "kept" } else { "broken" };
        table.add_row([
            m.members.to_string(),
            format!("{:.2}", m.form_s),
            format!("{:.2}", m.step_ms),
            format!("{:.0}", m.memory_mib),
            format!("{:.0}", m.order_p50_ms),
            format!("{:.0}", m.order_p99_ms),
            m.heal_s.map_or_else(|| "-".into(), |s| format!("{s:.2}")),
            format!("{:.2}", m.takeover_s),
            promises.into(),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}
