//! The rules of the house, each named with its cure.

mod arms;
mod code;
mod crates;
mod files;
mod functions;
mod names;
mod pure;

use pixfleet_tests::root;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every source file of ours, by its path within the workspace.
fn sources() -> Vec<PathBuf> {
    let out = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    String::from_utf8(out.stdout).expect("paths are UTF-8").lines().map(PathBuf::from).collect()
}

fn rust_sources() -> impl Iterator<Item = PathBuf> {
    sources().into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs"))
}

/// `None`: it was deleted, and git has not heard of it.
fn read(path: &Path) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}
