//! Waiting for something by looking again and again, until a deadline.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// What `look` finds; `None` if it has found nothing for as long as `limit`. It looks at least once.
///
/// # Errors
/// Those of `look`, at once.
pub fn look_for<T>(limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
}

/// What `look` finds.
///
/// # Errors
/// Those of `look`; or that `what` did not come about within `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    match look_for(limit, look)? {
        Some(found) => Ok(found),
        None => bail!("{what}: not within {} s", limit.as_secs_f64()),
    }
}
