//! The zip container of torch.save: where each record's bytes lie. Records are stored as they are (torch never
//! compresses them), so a record is a range of the file.
//!
//! Invariant: every range that is handed out lies within the file.

use super::error::{Container, RecordFault, TorchFileError};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The pickle and a few small records are read whole; more than this is no state dict.
const WHOLE_MAX: u64 = 64 << 20;
/// Most records that are listed. A model has a storage per parameter.
const RECORDS_MAX: usize = 1 << 20;

/// An open torch.save file.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    /// By name below the archive's own folder: `data.pkl`, `data/0`.
    records: BTreeMap<String, Range<u64>>,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self, TorchFileError> {
        let io = |source| TorchFileError::Io { path: path.into(), source };
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut head = [0u8; 512];
        let read = file.read_at(&mut head, 0).map_err(io)?;
        if let Some(container) = not_zip(&head[..read]) {
            return Err(TorchFileError::Container { path: path.into(), container });
        }
        let listed = list(&file, size, path)?;
        let records = below_own_folder(listed, path)?;
        let archive = Self { path: path.into(), file, records };
        if archive.records.contains_key("constants.pkl") {
            return Err(TorchFileError::Container { path: path.into(), container: Container::Script });
        }
        if archive.records.contains_key("byteorder") && archive.whole("byteorder")? != b"little" {
            return Err(archive.fault("byteorder", RecordFault::ByteOrder));
        }
        Ok(archive)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of a small record.
    pub(super) fn whole(&self, record: &str) -> Result<Vec<u8>, TorchFileError> {
        let bytes = self.size(record)?;
        if bytes > WHOLE_MAX {
            return Err(self.fault(record, RecordFault::TooLarge { bytes, max: WHOLE_MAX }));
        }
        self.read(record, 0..bytes)
    }

    /// A record's size in bytes.
    pub(super) fn size(&self, record: &str) -> Result<u64, TorchFileError> {
        let range = self.records.get(record).ok_or_else(|| self.fault(record, RecordFault::Missing))?;
        Ok(range.end - range.start)
    }

    /// Bytes `within` a record.
    pub(super) fn read(&self, record: &str, within: Range<u64>) -> Result<Vec<u8>, TorchFileError> {
        let range = self.records.get(record).ok_or_else(|| self.fault(record, RecordFault::Missing))?;
        let size = range.end - range.start;
        if within.end > size || within.start > within.end {
            return Err(self.fault(record, RecordFault::Size { expected: within.end, found: size }));
        }
        let mut bytes = vec![0u8; (within.end - within.start) as usize];
        self.file
            .read_exact_at(&mut bytes, range.start + within.start)
            .map_err(|source| TorchFileError::Io { path: self.path.clone(), source })?;
        Ok(bytes)
    }

    pub(super) fn fault(&self, record: &str, fault: RecordFault) -> TorchFileError {
        TorchFileError::Record { path: self.path.clone(), record: record.into(), fault }
    }
}

/// What a file is by its first bytes, if it is no zip file.
fn not_zip(head: &[u8]) -> Option<Container> {
    if head.starts_with(b"PK\x03\x04") {
        return None;
    }
    Some(match head {
        [] => Container::Empty,
        // A pickle's PROTO: torch's older format begins with pickles of a magic number and a version.
        [0x80, 2..=5, ..] => Container::Legacy,
        _ if head.get(257..262) == Some(b"ustar") => Container::Tar,
        _ => Container::Unknown,
    })
}

/// All records by their full names.
fn list(file: &File, size: u64, path: &Path) -> Result<BTreeMap<String, Range<u64>>, TorchFileError> {
    let zip = |source| TorchFileError::Zip { path: path.into(), source };
    let fault = |record: &str, fault| TorchFileError::Record { path: path.into(), record: record.into(), fault };
    let file = file.try_clone().map_err(|source| TorchFileError::Io { path: path.into(), source })?;
    // The directory's own limit for one entry, so that no entry is too large for the buffer.
    let mut buffer = vec![0u8; rawzip::MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
    let archive = rawzip::ZipArchive::from_file(file, &mut buffer).map_err(zip)?;
    let mut records = BTreeMap::new();
    let mut entries = archive.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(zip)? {
        let name = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
        if records.len() == RECORDS_MAX {
            return Err(fault(&name, RecordFault::TooLarge { bytes: RECORDS_MAX as u64 + 1, max: RECORDS_MAX as u64 }));
        }
        if entry.compression_method() != rawzip::CompressionMethod::STORE || entry.flags().is_encrypted() {
            return Err(fault(&name, RecordFault::NotStored));
        }
        let (start, end) = archive.get_entry(entry.wayfinder()).map_err(zip)?.compressed_data_range();
        if end > size || start > end {
            return Err(fault(&name, RecordFault::BeyondFile { end, file: size }));
        }
        if records.insert(name.clone(), start..end).is_some() {
            return Err(fault(&name, RecordFault::Twice));
        }
    }
    Ok(records)
}

/// The records of the folder that holds `data.pkl`: torch puts all of them below one, named as the file was.
fn below_own_folder(
    listed: BTreeMap<String, Range<u64>>,
    path: &Path,
) -> Result<BTreeMap<String, Range<u64>>, TorchFileError> {
    const PICKLE: &str = "data.pkl";
    let fault = |fault| TorchFileError::Record { path: path.into(), record: PICKLE.into(), fault };
    let own = |name: &str| name.strip_suffix(PICKLE)?.strip_suffix('/').filter(|d| !d.contains('/')).map(str::to_owned);
    let mut folders = listed.keys().filter_map(|name| own(name));
    let folder = folders.next().ok_or_else(|| fault(RecordFault::Missing))?;
    if folders.next().is_some() {
        return Err(fault(RecordFault::Twice));
    }
    let below = |(name, range): (String, Range<u64>)| {
        let rest = name.strip_prefix(&folder)?.strip_prefix('/')?.to_owned();
        Some((rest, range))
    };
    Ok(listed.into_iter().filter_map(below).collect())
}
