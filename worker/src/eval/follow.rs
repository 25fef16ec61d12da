//! `--follow`: each checkpoint as a run commits it, by a process beside the run. No rank waits for it, and no bit of training
//! depends on it: it reads what is in the store.

use anyhow::{Context, Result};
use pixfleet_checkpoint::{Folder, newest_good_where};
use std::time::Duration;

/// How often the store is asked for a new checkpoint.
const PAUSE: Duration = Duration::from_secs(2);

/// What was evaluated last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Followed {
    /// Steps of the checkpoint.
    pub(super) steps: u64,
    /// Steps of the whole run.
    pub(super) end: u64,
}

impl Followed {
    /// Whether a checkpoint after `steps` steps is due: the first at or after a multiple of `every`, or at the end.
    fn is_next(self, steps: u64, every: u64) -> bool {
        steps > self.steps && (steps / every > self.steps / every || steps >= self.end)
    }
}

/// Evaluates checkpoints of the run at `url`: the newest good one, then each time the newest at or after another multiple of
/// `every` steps, until that of its last step.
///
/// # Errors
/// What `evaluate` returns; a store that fails.
pub(super) fn follow(
    (url, every): (&str, u64),
    runtime: &tokio::runtime::Runtime,
    mut evaluate: impl FnMut() -> Result<Followed>,
) -> Result<()> {
    let run = Folder::parse(url)?;
    let mut last: Option<Followed> = None;
    loop {
        let due = |steps: u64| last.is_none_or(|last| last.is_next(steps, every));
        let found = runtime.block_on(newest_good_where(&run, |step, _| due(step.0)));
        if found.with_context(|| format!("looking for checkpoints in {url}"))?.is_none() {
            std::thread::sleep(PAUSE);
            continue;
        }
        let evaluated = evaluate()?;
        if evaluated.steps >= evaluated.end {
            return Ok(());
        }
        last = Some(evaluated);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_some_steps_later_or_at_the_end() {
        let last = Followed { steps: 130, end: 1010 };
        let due: Vec<u64> = [100, 150, 199, 200, 950, 1010].into_iter().filter(|&s| last.is_next(s, 100)).collect();
        assert_eq!(due, [200, 950, 1010]);
        assert!(Followed { steps: 1000, end: 1010 }.is_next(1010, 100));
    }
}
