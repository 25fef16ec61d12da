//! A file of a worker's own, asked for by an environment variable that holds its prefix: `<prefix>-<worker>.log`. Each write is one
//! write(2), so a kill takes none away, and a second life appends.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use super::error::TrainError;

/// See the module.
#[derive(Debug)]
pub(crate) struct WorkerLog {
    path: PathBuf,
    file: File,
}

impl WorkerLog {
    /// That of the worker called `name`, if `variable` asks for one.
    ///
    /// # Errors
    /// [`TrainError::File`] if it cannot be opened.
    pub(crate) fn from_env(variable: &str, name: &str) -> Result<Option<Self>, TrainError> {
        std::env::var_os(variable).map(|prefix| Self::open(prefix, name)).transpose()
    }

    /// That of the worker called `name`.
    ///
    /// # Errors
    /// [`TrainError::File`] if it cannot be opened.
    pub(crate) fn open(mut prefix: std::ffi::OsString, name: &str) -> Result<Self, TrainError> {
        prefix.push(format!("-{name}.log"));
        let path = PathBuf::from(prefix);
        match File::options().create(true).append(true).open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(TrainError::File { path, source }),
        }
    }

    /// Adds whole lines.
    ///
    /// # Errors
    /// [`TrainError::File`] if they cannot be written.
    pub(crate) fn append(&mut self, lines: &str) -> Result<(), TrainError> {
        self.file.write_all(lines.as_bytes()).map_err(|source| TrainError::File { path: self.path.clone(), source })
    }
}
