//! The workers that this program starts: their names, who of them lives, and who is started again.

use super::children::{Children, Exit};
use crate::torch::WORKER;
use anyhow::Result;
use std::collections::BTreeMap;

/// Under which workers of one machine reach each other, and the coordinator knows their process ids.
pub(crate) const HOST: &str = "127.0.0.1";

/// Tells a worker its place among those of this machine, from which its GPU follows.
const LOCAL_RANK: &str = "LOCAL_RANK";

/// The variable that holds a process which computes beside workers to one thread of its own.
pub(crate) fn few_threads() -> (&'static str, String) {
    ("OMP_NUM_THREADS", "1".into())
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Workers {
    /// By process id, the place among the workers that this program started. It is the same in every life of a worker.
    live: BTreeMap<u32, u32>,
    /// Workers at the start: each has a place, whether it lives or not.
    places: u32,
    device: String,
    /// Threads of each.
    share: usize,
    /// How often a lost one may still be started again.
    respawns: u32,
    /// The run's folder: a coordinator may be gone before its workers have learned from it where that is.
    run: String,
}

impl Workers {
    /// Starts `count` workers, which share the cores.
    pub(crate) fn start(
        children: &mut Children,
        address: &str,
        device: &str,
        (count, respawns): (u32, u32),
        run: String,
    ) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = (cores / count as usize).max(1);
        let mut workers = Self { live: BTreeMap::new(), places: count, device: device.into(), share, respawns, run };
        for i in 0..count {
            workers.spawn(children, address, i)?;
        }
        Ok(workers)
    }

    fn spawn(&mut self, children: &mut Children, address: &str, local_rank: u32) -> Result<()> {
        let name = name_of(local_rank);
        let address = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
        let args = [
            ("--coordinator", address),
            ("--coordinator", self.run.clone()),
            ("--name", name.clone()),
            ("--host", HOST.into()),
            ("--threads", self.share.to_string()),
            ("--decode-threads", (self.share / 2).max(1).to_string()),
            ("--device", self.device.clone()),
        ];
        let args: Vec<String> = std::iter::once("worker".to_string())
            .chain(args.into_iter().flat_map(|(flag, value)| [flag.to_string(), value]))
            .collect();
        let variables = [(LOCAL_RANK, local_rank.to_string())];
        self.live.insert(children.start(&name, WORKER, &args, &variables)?, local_rank);
        Ok(())
    }

    /// How many live.
    pub(crate) fn count(&self) -> usize {
        self.live.len()
    }

    /// Whether the process is one that lives.
    pub(crate) fn has(&self, pid: u32) -> bool {
        self.live.contains_key(&pid)
    }

    /// A child ended; whether it was a worker.
    pub(crate) fn ended(&mut self, pid: u32) -> bool {
        self.live.remove(&pid).is_some()
    }

    /// Starts a lost worker again under its name, if that may be done once more; whether it was.
    pub(crate) fn respawn(&mut self, children: &mut Children, address: &str, lost: &Exit) -> Result<bool> {
        if self.respawns == 0 {
            return Ok(false);
        }
        let Some(local_rank) = (0..self.places).find(|&rank| name_of(rank) == lost.name) else { return Ok(false) };
        self.respawns -= 1;
        self.spawn(children, address, local_rank)?;
        Ok(true)
    }
}

fn name_of(local_rank: u32) -> String {
    format!("w{local_rank}")
}
