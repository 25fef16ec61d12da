//! Starting the coordinator and finding out where it listens.

use super::children::Children;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the file with the address is looked for.
const LOOK: Duration = Duration::from_millis(10);

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
            exit = children.exits.recv() => {
                let log = children.log_of("coordinator");
                let how = exit.map_or("it is gone".into(), |e| e.how());
                match children.last_error("coordinator") {
                    Some(cause) => bail!("{cause}"),
                    None => bail!("the coordinator ended before it listened: {how}; see {}", log.display()),
                }
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
