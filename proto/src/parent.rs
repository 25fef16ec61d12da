//! Children that do not outlive the program that started them.
//!
//! The kernel is asked by the child itself, since asking between fork and exec would need `unsafe`. The parent names
//! itself in [`PARENT`]; if it is gone before the child has asked, the child sees another parent and ends at once.

/// The variable in which a parent names its process id to its children.
pub const PARENT: &str = "PIXFLEET_PARENT";

/// If a parent named itself in [`PARENT`]: die (SIGKILL) when it dies. Call it first thing in `main`, on the main
/// thread. True if the parent is gone already and this process must end.
///
/// Linux only; elsewhere the end of the session with the coordinator ends a worker a little later.
#[must_use]
pub fn is_orphan() -> bool {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|p| p.parse::<u32>().ok()) else { return false };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)) {
        // Sandboxes may forbid it. The child then lives until its session breaks.
        let _ = error;
    }
    std::os::unix::process::parent_id() != parent
}
