//! A coordinator's process: started, called on, measured, killed.

use super::fleet::{SESSIONS_A_CHANNEL, StressBook};
use super::scene::Scene;
use crate::train::children::{Children, Exit};
use anyhow::{Context, Result, bail, ensure};
use pixfleet_checkpoint::leaders;
use pixfleet_proto::{Client, Patience, connect, pb};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::time::Duration;

/// What the child is called.
const NAME: &str = "coordinator";
/// How often the store is asked who leads.
const LOOK: Duration = Duration::from_millis(10);
/// How long a coordinator may take to lead, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clock ticks of /proc in a second: Linux has told user programs 100 on every machine for decades.
const TICKS: f64 = 100.0;

/// A coordinator that leads.
pub(super) struct StressLeader {
    pid: u32,
    pub(super) clients: Arc<[Client]>,
}

impl StressLeader {
    /// Starts coordinator number `life` of `members` members and waits until the store says that it leads.
    pub(super) async fn start(
        children: &mut Children,
        scene: &Scene,
        (life, members): (u32, u32),
        book: &Arc<StressBook>,
    ) -> Result<Self> {
        let file = scene.folder().join("run.toml");
        std::fs::write(&file, scene.spec.to_toml()).with_context(|| format!("cannot write {}", file.display()))?;
        let mut args = vec!["--spec".to_string(), file.display().to_string()];
        args.extend(["--listen", "127.0.0.1:0", "--expect"].map(String::from));
        args.push(members.to_string());
        let pid = children.start(NAME, "pixfleet-coordinator", &args, &[])?;
        let address = leads(children, scene, u64::from(life)).await?;
        let mut clients = Vec::new();
        for _ in 0..members.div_ceil(SESSIONS_A_CHANNEL) {
            clients.push(connect(&address, Patience::default()).await?);
        }
        let mut watcher = connect(&address, Patience::default()).await?;
        let mut notices = watcher.watch(pb::WatchRequest {}).await?.into_inner();
        let book = book.clone();
        tokio::spawn(async move {
            while let Ok(Some(notice)) = notices.message().await {
                book.noticed(notice);
            }
        });
        Ok(Self { pid, clients: clients.into() })
    }

    pub(super) async fn status(&self) -> Result<pb::StatusReply> {
        Ok(self.client().status(pb::StatusRequest {}).await?.into_inner())
    }

    pub(super) async fn control(&self, kind: pb::control_request::Kind) -> Result<()> {
        self.client().control(pb::ControlRequest { kind: Some(kind) }).await?;
        Ok(())
    }

    fn client(&self) -> Client {
        self.clients[0].clone()
    }

    /// SIGKILL, and its end.
    pub(super) async fn kill(self, children: &mut Children) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, Signal::KILL).context("cannot kill the coordinator")?;
        end(children).await.map(drop)
    }

    /// Its end, which is to be a drained run's.
    pub(super) async fn drained(self, children: &mut Children) -> Result<()> {
        let exit = end(children).await?;
        ensure!(exit.status.code() == Some(75), "the coordinator ended with {}, a drained run's is 75", exit.how());
        Ok(())
    }

    /// Seconds of processors that it has used.
    pub(super) fn cpu_s(&self) -> Result<f64> {
        let text =
            std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).context("no /proc of the coordinator")?;
        // The name may hold anything; what follows its bracket does not.
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok());
        let (user, system) = ticks(11).zip(ticks(12)).context("a line of /proc/PID/stat")?;
        Ok((user + system) / TICKS)
    }

    /// The most memory that it has held, in MiB.
    pub(super) fn memory_mib(&self) -> Result<f64> {
        let text =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid)).context("no /proc of the coordinator")?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a line of /proc/PID/status")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("a number of kB")?;
        Ok(kib / 1024.0)
    }
}

/// Where coordinator `life` listens, once it leads.
async fn leads(children: &mut Children, scene: &Scene, life: u64) -> Result<String> {
    let run = scene.run()?;
    let looked = async {
        loop {
            let newest = leaders::newest(&run).await?;
            if let Some(leader) = newest.filter(|leader| leader.number == life) {
                return Ok(leader.address);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let exit = tokio::select! {
        found = tokio::time::timeout(PATIENCE, looked) => return found.context("no coordinator leads")?,
        exit = children.exits.recv() => exit.map_or_else(String::new, |exit| exit.how()),
    };
    bail!("the coordinator ended: {exit}: {}", children.last_error(NAME).unwrap_or_default())
}

async fn end(children: &mut Children) -> Result<Exit> {
    let exit = tokio::time::timeout(PATIENCE, children.exits.recv()).await.context("the coordinator does not end")?;
    exit.context("nobody tells of its end")
}
