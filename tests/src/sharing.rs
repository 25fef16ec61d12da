//! Processes that share one piece of work, and what is done to them: one after the other is killed with kill -9 and replaced.

use crate::dice::Dice;
use crate::poll::wait_for;
use anyhow::{Context, Result, ensure};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// SIGKILL, as waitpid tells it.
const KILLED: i32 = 9;
/// Within which a process has something in hand again.
const IN_HAND: Duration = Duration::from_secs(30);

/// What the processes do.
pub(crate) trait SharedWork {
    /// The command of the process that is the `number`-th to be started, counted from 1.
    fn command(&self, number: usize) -> Command;

    /// Whether the process `pid` has something in hand that a kill takes from it.
    ///
    /// # Errors
    /// What kept it from being seen.
    fn in_hand(&self, pid: u32) -> Result<bool>;
}

/// How the processes are hurt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Harm {
    /// Between two kills.
    pub(crate) every: Duration,
    /// Nobody is killed after that; `None`: until the work is done.
    pub(crate) lasts: Option<Duration>,
    /// Chooses the victims.
    pub(crate) seed: u64,
}

/// A process that was killed while it lived and had something in hand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Killed {
    pub(crate) pid: u32,
    /// Which of those that were started.
    pub(crate) number: usize,
    pub(crate) at: Instant,
}

struct Living {
    child: Child,
    number: usize,
}

/// The processes.
pub(crate) struct Sharing<'w, W: SharedWork> {
    work: &'w W,
    logs: PathBuf,
    living: Vec<Living>,
    started: usize,
}

impl<'w, W: SharedWork> Sharing<'w, W> {
    /// Starts `processes` of them; what they say goes into `logs`.
    pub(crate) fn start(work: &'w W, processes: usize, logs: &Path) -> Result<Self> {
        std::fs::create_dir_all(logs)?;
        let mut sharing = Self { work, logs: logs.to_owned(), living: Vec::new(), started: 0 };
        for _ in 0..processes {
            sharing.spawn()?;
        }
        Ok(sharing)
    }

    fn spawn(&mut self) -> Result<()> {
        self.started += 1;
        let words = std::fs::File::create(self.logs.join(format!("process-{:03}.txt", self.started)))?;
        let child = self.work.command(self.started).stderr(words).spawn().context("pixfleet starts")?;
        self.living.push(Living { child, number: self.started });
        Ok(())
    }

    /// Kills one process after the other until the work is done, or for as long as it lasts.
    pub(crate) fn rage(&mut self, harm: Harm) -> Result<Vec<Killed>> {
        let (mut dice, mut killed) = (Dice::new(harm.seed ^ 0x5a), Vec::new());
        let end = harm.lasts.map(|lasts| Instant::now() + lasts);
        loop {
            let until = Instant::now() + harm.every;
            while Instant::now() < until {
                if self.any_ended()? || end.is_some_and(|end| Instant::now() >= end) {
                    return Ok(killed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let victims: Vec<usize> = (0..self.living.len()).collect();
            let &victim = dice.pick(&victims).context("there are processes")?;
            let Some(Living { mut child, number }) = self.in_hand(victim)? else { return Ok(killed) };
            let (pid, at) = (child.id(), Instant::now());
            child.kill()?;
            let status = child.wait()?;
            ensure!(status.signal() == Some(KILLED), "the victim ended with {status} and not by the kill");
            // What it had may have been done between the look and the kill: then nothing was taken from it.
            if self.work.in_hand(pid)? {
                killed.push(Killed { pid, number, at });
            }
            self.spawn()?;
        }
    }

    /// Takes a process out at a moment when it has something in hand; `None` if the work ends before.
    fn in_hand(&mut self, victim: usize) -> Result<Option<Living>> {
        let ended = wait_for("a process with something in hand", IN_HAND, || {
            let ended = self.any_ended()?;
            let busy = self.work.in_hand(self.living[victim].child.id())?;
            Ok((ended || busy).then_some(ended))
        })?;
        Ok((!ended).then(|| self.living.remove(victim)))
    }

    /// Whether a process has ended by itself: then all is done.
    fn any_ended(&mut self) -> Result<bool> {
        for Living { child, .. } in &mut self.living {
            if let Some(status) = child.try_wait()? {
                ensure!(
                    status.success(),
                    "a process that nobody hurt ended with {status}; see {}",
                    self.logs.display()
                );
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Until all have ended well.
    pub(crate) fn wait(mut self) -> Result<()> {
        for Living { mut child, .. } in std::mem::take(&mut self.living) {
            let status = child.wait()?;
            ensure!(status.success(), "a process ended with {status}; see {}", self.logs.display());
        }
        Ok(())
    }
}

impl<W: SharedWork> Drop for Sharing<'_, W> {
    fn drop(&mut self) {
        for Living { child, .. } in &mut self.living {
            // Already gone, or to go with the failed soak.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
