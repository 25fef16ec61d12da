//! What was typed.

use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

const MORE: &str = "\
Exit codes: 0 all steps are done; 75 drained, wants to be started again; 3 another coordinator leads the run now; 1 fault.
SIGTERM drains: the step in flight ends, a checkpoint is committed.

Killed, it costs no step: workers train on, and another coordinator, started anywhere with the same run file, takes over.
One with --standby follows whoever leads, takes over when it falls silent, and ends when the run does; of several that
start at once, one leads.

Examples:
  pixfleet coordinator --spec run.toml --listen 127.0.0.1:7000
  pixfleet coordinator --spec run.toml --listen 0.0.0.0:7000 --insecure --advertise node7:7000 --expect 16
  pixfleet coordinator --spec run.toml --listen 0.0.0.0:7000 --insecure --advertise node8:7000 --standby
  pixfleet coordinator --spec run.toml --metrics 127.0.0.1:9464     # curl http://127.0.0.1:9464/metrics";

/// Coordinates one run: gathers workers, forms generations, keeps the ledger, commits checkpoints.
#[derive(Parser)]
#[command(name = "pixfleet-coordinator", version, after_help = MORE)]
pub(crate) struct Args {
    /// The run file.
    #[arg(long)]
    pub(crate) spec: PathBuf,
    /// Overrides: section.key=value.
    #[arg(long = "set")]
    pub(crate) set: Vec<String>,
    /// Where to listen; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Where workers reach this coordinator: written to the run's store, for those that lost the one before. Default:
    /// the address it listens on.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// Listen where other machines can reach it, although nothing proves who they are.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Serve metrics for Prometheus at http://ADDR/metrics.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Workers to wait for before the first step.
    #[arg(long, default_value_t = 1)]
    pub(crate) expect: u32,
    /// Seconds to wait for the others once one worker is there.
    #[arg(long, default_value_t = 60)]
    pub(crate) join_window: u64,
    /// File to write the address to, once it listens.
    #[arg(long)]
    pub(crate) port_file: Option<PathBuf>,
    /// Stand by while another coordinator leads the run, and take over when it is silent.
    #[arg(long)]
    pub(crate) standby: bool,
    /// Refuse a run that exists.
    #[arg(long)]
    pub(crate) fresh: bool,
}
