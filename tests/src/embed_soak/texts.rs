//! What the processes' logs of texts say (`worker/src/embed/text_log.rs`).

use anyhow::{Context, Result, bail, ensure};
use pixfleet_shards::text_vectors::TextHash;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One process's: texts of units that it did to the end, and those that it had in hand when it ended.
#[derive(Default)]
struct TextLines {
    done: Vec<String>,
    in_hand: Vec<String>,
}

fn read(logs: &Path, pid: u32) -> Result<TextLines> {
    let path = logs.join(format!("texts-{pid}.log"));
    // Written when the first batch comes.
    let text = if path.exists() { std::fs::read_to_string(&path)? } else { String::new() };
    let mut lines = TextLines::default();
    for line in text.lines() {
        match line {
            "done" => lines.done.append(&mut lines.in_hand),
            text => lines.in_hand.push(text.to_owned()),
        }
    }
    Ok(lines)
}

/// Whether a process has texts in hand.
pub(super) fn has_in_hand(logs: &Path, pid: u32) -> Result<bool> {
    Ok(!read(logs, pid)?.in_hand.is_empty())
}

/// Holds the logs of all processes against the dataset's texts; how many texts were encoded again.
pub(super) fn check(logs: &Path, killed: &[u32], distinct: &BTreeSet<TextHash>) -> Result<usize> {
    let (mut done, mut all) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    for entry in std::fs::read_dir(logs)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("texts-").and_then(|n| n.strip_suffix(".log")) else { continue };
        let pid: u32 = pid.parse().context("a log is named after its process")?;
        let lines = read(logs, pid)?;
        ensure!(killed.contains(&pid) || lines.in_hand.is_empty(), "process {pid} lived and lost its unit");
        for text in lines.done {
            *all.entry(text.clone()).or_default() += 1;
            if !done.insert(text.clone()) {
                bail!("text {text} was encoded twice in units that were done");
            }
        }
        for text in lines.in_hand {
            *all.entry(text).or_default() += 1;
        }
    }
    let wanted: BTreeSet<String> =
        distinct.iter().map(|hash| hash.iter().map(|b| format!("{b:02x}")).collect()).collect();
    let encoded: BTreeSet<String> = all.keys().cloned().collect();
    ensure!(encoded == wanted, "{} texts encoded, {} in the dataset", encoded.len(), wanted.len());
    Ok(all.values().sum::<usize>() - wanted.len())
}
