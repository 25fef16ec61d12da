//! Starting the coordinator and finding out where it listens.

use super::children::{Children, Exit};
use anyhow::{Result, anyhow};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the file with the address is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// How long the coordinator's end may take to be seen after its wire broke.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the coordinator is told.
pub(crate) struct Start<'a> {
    /// The resolved run file.
    pub(crate) spec: &'a Path,
    /// Workers to expect.
    pub(crate) expect: u32,
    /// Refuse a run that exists.
    pub(crate) fresh: bool,
    /// A folder of our own.
    pub(crate) folder: &'a Path,
}

/// Starts it and waits until it listens; its address.
///
/// # Errors
/// What it died of, in its own words.
pub(crate) async fn start(children: &mut Children, start: Start<'_>) -> Result<String> {
    let file: PathBuf = start.folder.join("address");
    let mut args: Vec<String> = vec!["--spec".into(), start.spec.display().to_string()];
    args.extend(["--listen".into(), "127.0.0.1:0".into(), "--expect".into(), start.expect.to_string()]);
    args.extend(["--port-file".into(), file.display().to_string()]);
    if start.fresh {
        args.push("--fresh".into());
    }
    children.start("coordinator", "pixfleet-coordinator", &args)?;
    loop {
        if let Ok(address) = std::fs::read_to_string(&file) {
            return Ok(address);
        }
        tokio::select! {
            exit = children.exits.recv() => return Err(death(children, exit)),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// `doing`, unless the coordinator ends meanwhile: it listens before it opens run and dataset, so that is when their
/// faults show.
///
/// # Errors
/// What the coordinator died of, in its own words; else the error of `doing`.
pub(crate) async fn unless_it_ends<T>(children: &mut Children, doing: impl Future<Output = Result<T>>) -> Result<T> {
    let error = tokio::select! {
        biased;
        exit = children.exits.recv() => return Err(death(children, exit)),
        done = doing => match done {
            Ok(done) => return Ok(done),
            Err(error) => error,
        },
    };
    // A broken wire may be the first sign of its end.
    match tokio::time::timeout(LAST_WORDS, children.exits.recv()).await {
        Ok(exit) => Err(death(children, exit)),
        Err(_) => Err(error),
    }
}

fn death(children: &Children, exit: Option<Exit>) -> anyhow::Error {
    let how = exit.map_or("it is gone".into(), |e| e.how());
    match children.last_error("coordinator") {
        Some(cause) => anyhow!("{cause}"),
        None => anyhow!(
            "the coordinator ended before training began: {how}; see {}",
            children.log_of("coordinator").display()
        ),
    }
}
