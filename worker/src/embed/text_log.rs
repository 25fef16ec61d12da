//! `PIXFLEET_TEXT_LOG=PREFIX`: which texts this process gave to its encoder, for tests that count. `PREFIX-<pid>.log` has a
//! line with the hash of each, written before its batch is encoded, and a line `done` after each unit.

use pixfleet_shards::text_vectors::text_hash;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;

pub(super) struct TextLog(Option<File>);

impl TextLog {
    pub(super) fn open() -> std::io::Result<Self> {
        let Some(prefix) = std::env::var_os("PIXFLEET_TEXT_LOG") else { return Ok(Self(None)) };
        let path = format!("{}-{}.log", prefix.to_string_lossy(), std::process::id());
        Ok(Self(Some(File::options().append(true).create(true).open(path)?)))
    }

    pub(super) fn texts(&self, texts: &[&str]) {
        let mut lines = String::new();
        for text in texts {
            for byte in text_hash(text) {
                let _ = write!(lines, "{byte:02x}");
            }
            lines.push('\n');
        }
        self.write(&lines);
    }

    pub(super) fn unit_done(&self) {
        self.write("done\n");
    }

    /// One write(2), so that a kill leaves whole lines.
    fn write(&self, lines: &str) {
        if let Some(mut file) = self.0.as_ref()
            && let Err(error) = file.write_all(lines.as_bytes())
        {
            tracing::warn!(%error, "the log of texts cannot be written");
        }
    }
}
