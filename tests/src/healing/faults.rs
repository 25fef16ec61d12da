//! The four ways to hurt a run. Each asserts that its fault fired.

use super::harness::{Aim, FAREWELL, Harness};
use super::report::Recovery;
use super::{Mode, Respawn, secs};
use crate::fleet::{COORDINATOR, Signal};
use crate::poll::wait_for;
use crate::steps;
use anyhow::{Result, bail, ensure};
use pixfleet_cluster::spec::Rung;
use std::time::Duration;

/// A stopped worker stays so for this much longer than the heartbeat timeout.
const BEYOND_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the kernel may take to stop a process.
const STOPS: Duration = Duration::from_secs(5);

/// A fault that fired.
struct Struck {
    aim: Aim,
    /// When the signal was sent.
    at: u64,
    /// When the next step was committed; `None`: not within the limit.
    next: Option<u64>,
    /// Steps committed while the coordinator was dead.
    while_dead: Option<usize>,
}

/// Hurts the run as often as was asked, or until it does not come back.
pub(super) fn inflict(harness: &mut Harness) -> Result<()> {
    let faults = harness.args.faults.unwrap_or(harness.args.mode.faults());
    let mut whole = harness.settle()?;
    for number in 1..=faults {
        let struck = match harness.args.mode {
            Mode::Kill => kill(harness)?,
            Mode::Stop => stop(harness)?,
            Mode::Drain => drain(harness)?,
            Mode::Coordinator => coordinator(harness)?,
        };
        let settled = match struck.next {
            Some(_) => harness.settle(),
            None => Err(anyhow::anyhow!("fault {number}: no step within {} s", harness.args.limit_s)),
        };
        let event = examine(harness, struck, whole)?;
        tracing::info!(number, faults, ?event, "struck");
        harness.events.push(event);
        whole = settled?;
    }
    Ok(())
}

/// What a fault has cost up to now.
fn examine(harness: &mut Harness, struck: Struck, whole: bool) -> Result<Recovery> {
    let Struck { aim, at, next, while_dead } = struck;
    let commits = harness.commits()?;
    Ok(Recovery {
        from_signal_s: next.map(|next| steps::seconds(at, next)),
        pause_s: steps::longest_pause_s(commits, at, steps::now()),
        steps_redone: steps::redone_after(commits, aim.generation),
        target: aim.worker,
        generation: aim.generation,
        world: aim.world,
        whole,
        while_dead,
    })
}

/// kill -9 of a worker; another takes its name.
fn kill(harness: &mut Harness) -> Result<Struck> {
    let aim = harness.aim()?;
    let at = harness.fleet.kill(&aim.worker, Signal::KILL)?;
    let exit = harness.fleet.wait(&aim.worker, FAREWELL)?;
    ensure!(
        exit.signal() == Some(Signal::KILL.as_raw()),
        "kill -9 did not end it: {}",
        harness.fleet.last_words(&exit)
    );
    let next = replaced(harness, &aim)?;
    Ok(Struck { aim, at, next, while_dead: None })
}

/// SIGTERM to a worker: it leaves with the code of a drain; another takes its name.
fn drain(harness: &mut Harness) -> Result<Struck> {
    let aim = harness.aim()?;
    let at = harness.fleet.kill(&aim.worker, Signal::TERM)?;
    harness.expect_drained(&aim.worker)?;
    let next = replaced(harness, &aim)?;
    Ok(Struck { aim, at, next, while_dead: None })
}

/// Starts another worker in the place of one that is gone, and awaits the next commit, in the order that was asked for.
fn replaced(harness: &mut Harness, aim: &Aim) -> Result<Option<u64>> {
    if harness.args.respawn == Respawn::AtOnce {
        harness.spawn(&aim.worker)?;
    }
    let next = harness.next_commit(aim.generation)?;
    if harness.args.respawn == Respawn::AfterCommit {
        harness.spawn(&aim.worker)?;
    }
    Ok(next)
}

/// SIGSTOP of a worker until the others have given it up, then SIGCONT: it either ends, and another takes its name, or it
/// trains again in a later generation.
fn stop(harness: &mut Harness) -> Result<Struck> {
    let aim = harness.aim()?;
    let at = harness.fleet.kill(&aim.worker, Signal::STOP)?;
    wait_for("SIGSTOP stops it", STOPS, || Ok((harness.fleet.state(&aim.worker)? == 'T').then_some(())))?;
    let timeout = harness.spec.ladder()[Rung::HeartbeatTimeout] + BEYOND_TIMEOUT;
    let next = harness.next_commit(aim.generation)?;
    std::thread::sleep(timeout.saturating_sub(Duration::from_secs_f64(steps::seconds(at, steps::now()))));
    ensure!(harness.fleet.state(&aim.worker)? == 'T', "{} does not stay stopped", aim.worker);
    let continued = harness.fleet.kill(&aim.worker, Signal::CONT)?;
    let limit = secs(harness.args.limit_s);
    let ended = wait_for("a worker that was stopped ends or trains again", limit, || {
        if harness.fleet.try_wait(&aim.worker)?.is_some() {
            return Ok(Some(true));
        }
        let again = |c: &steps::Commit| c.worker == aim.worker && c.at > continued && c.generation > aim.generation;
        Ok(harness.logged()?.iter().any(again).then_some(false))
    })?;
    if ended {
        harness.spawn(&aim.worker)?;
    }
    Ok(Struck { aim, at, next, while_dead: None })
}

/// kill -9 of the coordinator; the workers go on without it, until another one is started on another port.
fn coordinator(harness: &mut Harness) -> Result<Struck> {
    let aim = Aim { worker: COORDINATOR.into(), ..harness.aim()? };
    let at = harness.fleet.kill(COORDINATOR, Signal::KILL)?;
    let exit = harness.fleet.wait(COORDINATOR, FAREWELL)?;
    ensure!(
        exit.signal() == Some(Signal::KILL.as_raw()),
        "kill -9 did not end it: {}",
        harness.fleet.last_words(&exit)
    );
    let until = at + u64::try_from(secs(harness.args.dead_s).as_nanos()).expect("less than centuries");
    while steps::now() < until {
        std::thread::sleep(secs(1).min(Duration::from_nanos(until.saturating_sub(steps::now()))));
        // Looks for workers that have ended.
        harness.commits()?;
    }
    let commits = harness.commits()?;
    let (while_dead, next) = (steps::committed(commits, at, until), commits.iter().find(|c| c.at > at).map(|c| c.at));
    if while_dead == 0 {
        bail!("no step was committed while the coordinator was dead");
    }
    harness.fleet.start_coordinator(harness.args.workers)?;
    Ok(Struck { aim, at, next, while_dead: Some(while_dead) })
}
