//! Decodes every row of a dataset and names each fault by file, row group, row and field.
//!
//! It trusts no index: it lists the files that are there, and holds the index against them as one more check.

use crate::access::Access;
use crate::decode::{self, Decoded};
use crate::error::{FieldFault, Place, ShardError};
use crate::file::ShardFile;
use crate::index::{self, DatasetIndex, FileIndex};
use crate::pixels::decode as picture;
use crate::reader;
use crate::schema::{Columns, IMAGE_BYTES};
use crate::store::Location;
use crate::text_vectors;
use crate::token_report::TokenReport;
use crate::tokens::Tokenizer;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use std::sync::Arc;

/// Faults that are kept; further ones are only counted.
pub const FAULTS_KEPT: usize = 1000;

/// What was found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Files.
    pub files: u64,
    /// Rows that could be decoded.
    pub rows: u64,
    /// Their regions.
    pub regions: u64,
    /// Vectors files.
    pub vectors_files: u64,
    /// Bytes fetched.
    pub bytes: u64,
    /// Lengths of the texts in tokens, if a tokenizer was given.
    pub tokens: TokenReport,
    /// The first [`FAULTS_KEPT`] faults, in the order of files, row groups, rows.
    pub faults: Vec<ShardError>,
    /// Faults in all.
    pub faults_total: u64,
}

impl VerifyReport {
    fn fault(&mut self, fault: ShardError) {
        self.faults_total += 1;
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(fault);
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Row groups that were decoded.
    pub row_groups: u64,
    /// Row groups that are known of so far.
    pub row_groups_total: u64,
    /// Faults so far.
    pub faults: u64,
}

/// Verifies all files of all splits and their text vectors, on all cores.
///
/// # Errors
/// A store that cannot be read; what is wrong with the data is in the report.
pub async fn verify(
    location: &Location,
    progress: &mut (dyn FnMut(VerifyProgress) + Send),
) -> Result<VerifyReport, ShardError> {
    verify_with(location, None, progress).await
}

/// [`verify`], which also counts the tokens of all texts if there is a tokenizer.
///
/// # Errors
/// As [`verify`].
pub async fn verify_with(
    location: &Location,
    tokenizer: Option<&Tokenizer>,
    progress: &mut (dyn FnMut(VerifyProgress) + Send),
) -> Result<VerifyReport, ShardError> {
    let mut report = VerifyReport::default();
    let access = Access::new(location.clone());
    let files = index::data_files(location).await?;
    if files.is_empty() {
        return Err(ShardError::NoFiles { url: location.url().into() });
    }
    let keys = vector_keys(location).await?;
    let known = index::open(location).await;
    let mut at = VerifyProgress::default();
    for mut file in files {
        report.files += 1;
        let opened = match reader::open(&access, &file).await {
            Ok(opened) => opened,
            Err(error) => {
                report.fault(data_fault(error)?);
                continue;
            }
        };
        index::describe(&opened, &mut file);
        file.content = file.content.or_else(|| indexed_content(known.as_ref().ok()?, &file.path));
        at.row_groups_total += file.row_groups.len() as u64;
        let vectors = vectors_of(&file, (&access, &keys), &mut report).await?;
        let before = report.faults_total;
        let job = Arc::new(Job { file, opened, vectors, tokenizer: tokenizer.cloned() });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut groups = futures::stream::iter(0..job.file.row_groups.len() as u32)
            .map(|group| row_group(Arc::clone(&job), group))
            .buffered(cores + 1);
        while let Some(found) = groups.try_next().await? {
            report.rows += found.rows;
            report.regions += found.regions;
            report.tokens.merge(found.tokens);
            for fault in found.faults {
                report.fault(fault);
            }
            at.row_groups += 1;
            at.faults = report.faults_total;
            progress(at);
        }
        drop(groups);
        // Decoders do not notice every flipped bit; a fault that has a row says more than this one.
        if report.faults_total == before {
            let vectors = job.vectors.iter().map(|file| (file, None));
            for (file, indexed) in vectors.chain([(&job.opened, job.file.content.as_deref())]) {
                if !file.is_intact(indexed).await? {
                    report.fault(ShardError::Content { file: file.path().into() });
                }
            }
        }
    }
    match known {
        Ok(known) => match index::check_fresh(location, &known).await {
            Err(stale @ ShardError::Stale { .. }) => report.fault(stale),
            other => other?,
        },
        Err(ShardError::NoIndex { .. }) => {}
        Err(error) => report.fault(data_fault(error)?),
    }
    report.bytes = access.fetched.bytes();
    Ok(report)
}

/// The hash that the index has of a file whose footer has none.
fn indexed_content(index: &DatasetIndex, path: &str) -> Option<String> {
    index.splits.values().flat_map(|split| &split.files).find(|file| file.path == path)?.content.clone()
}

/// The data's fault; a store's trouble ends the verification.
fn data_fault(error: ShardError) -> Result<ShardError, ShardError> {
    match error {
        ShardError::Store { .. } | ShardError::Denied { .. } | ShardError::NoBucket { .. } => Err(error),
        fault => Ok(fault),
    }
}

/// The vectors files beside `file`; those that cannot be opened are faults.
async fn vectors_of(
    file: &FileIndex,
    (access, keys): (&Access, &[String]),
    report: &mut VerifyReport,
) -> Result<Vec<ShardFile>, ShardError> {
    let mut vectors = Vec::new();
    for key in keys {
        match text_vectors::open(access, key, file).await {
            Ok(found) => vectors.push(found),
            // Vectors of another split need not be there for this one.
            Err(ShardError::NoVectors { .. }) => {}
            Err(error) => report.fault(data_fault(error)?),
        }
    }
    report.vectors_files += vectors.len() as u64;
    Ok(vectors)
}

/// Keys of text vectors: the folders of `vectors/`.
async fn vector_keys(location: &Location) -> Result<Vec<String>, ShardError> {
    let failed = |source| ShardError::store(location.url_of("vectors"), "list", source);
    let folder = location.path("vectors");
    let found = location.store().list_with_delimiter(Some(&folder)).await.map_err(failed)?;
    Ok(found.common_prefixes.iter().filter_map(|p| p.filename().map(Into::into)).collect())
}

/// One file and the vectors beside it.
struct Job {
    file: FileIndex,
    opened: ShardFile,
    vectors: Vec<ShardFile>,
    tokenizer: Option<Tokenizer>,
}

/// What was found in one row group.
#[derive(Default)]
struct GroupFindings {
    rows: u64,
    regions: u64,
    tokens: TokenReport,
    faults: Vec<ShardError>,
}

async fn row_group(job: Arc<Job>, group: u32) -> Result<GroupFindings, ShardError> {
    let mut found = GroupFindings::default();
    let place = Place::file(&job.file.path).row_group(group);
    let total = job.file.row_groups[group as usize].rows;
    let rows = match read(&job, group, None).await {
        Ok(rows) => rows.into_iter().map(Some).collect(),
        Err(error) => {
            let fault = data_fault(error)?;
            match row_by_row(&job, group, total, &mut found.faults).await? {
                Some(rows) => rows,
                None => {
                    // Not one row can be read: one fault says it.
                    found.faults = vec![fault];
                    return Ok(found);
                }
            }
        }
    };
    let mut vectors = Vec::new();
    for file in &job.vectors {
        match text_vectors::read(file, "vectors", group, None, true).await {
            Ok(rows) => vectors.push(rows),
            Err(error) => found.faults.push(data_fault(error)?),
        }
    }
    let checked = tokio::task::spawn_blocking(move || {
        for (i, decoded) in rows.into_iter().enumerate() {
            let Some(decoded) = decoded else { continue };
            found.rows += 1;
            found.regions += decoded.row.regions.len() as u64;
            let vectors: Vec<_> = vectors.iter().filter_map(|v| v.get(i)).collect();
            let place = place.clone().row(i as u32);
            if let Some(tokenizer) = &job.tokenizer {
                found.tokens.note(tokenizer, &decoded.row, &place, &mut found.faults);
            }
            check(decoded, &vectors, &place, &mut found.faults);
        }
        found
    });
    Ok(checked.await?)
}

async fn read(job: &Job, group: u32, rows: Option<&[u32]>) -> Result<Vec<Decoded>, ShardError> {
    let decode = decode::all_rows(&job.file.path, Columns::ROWS);
    job.opened.read(group, rows, |leaf| Columns::ROWS.holds(leaf), decode).await
}

/// The rows of a damaged row group that can be read; `None` if none can.
async fn row_by_row(
    job: &Job,
    group: u32,
    total: u32,
    faults: &mut Vec<ShardError>,
) -> Result<Option<Vec<Option<Decoded>>>, ShardError> {
    let mut rows = Vec::new();
    for row in 0..total {
        match read(job, group, Some(&[row])).await {
            Ok(mut found) => rows.push(found.pop()),
            Err(error) => {
                faults.push(match data_fault(error)? {
                    ShardError::Parquet { place, source } => {
                        ShardError::Parquet { place: Box::new(place.row(row)), source }
                    }
                    ShardError::TooLarge { place, what, found, limit } => {
                        ShardError::TooLarge { place: Box::new(place.row(row)), what, found, limit }
                    }
                    other => other,
                });
                rows.push(None);
            }
        }
    }
    Ok(rows.iter().any(Option::is_some).then_some(rows))
}

/// All faults of one row.
fn check(decoded: Decoded, vectors: &[&text_vectors::RowVectors], place: &Place, faults: &mut Vec<ShardError>) {
    let Decoded { mut row, faults: own } = decoded;
    let mut add =
        |field: String, fault: Arc<FieldFault>| faults.push(ShardError::field(place.clone().field(field), fault));
    for (field, fault) in own {
        add(field, fault);
    }
    match &row.image.bytes {
        Some(bytes) => match picture::rgb(bytes) {
            Err(fault) => add(IMAGE_BYTES.into(), Arc::new(FieldFault::Pixels(fault))),
            Ok(found) if (found.width, found.height) != (row.width, row.height) => {
                let fault =
                    FieldFault::ImageSize { found: [found.width, found.height], expected: [row.width, row.height] };
                add(IMAGE_BYTES.into(), Arc::new(fault));
            }
            Ok(_) => {}
        },
        None if row.image.path.is_none() && row.image.url.is_none() => {
            add(IMAGE_BYTES.into(), Arc::new(FieldFault::Missing));
        }
        None => {}
    }
    for vectors in vectors {
        if let Err((field, fault)) = reader::attach(&mut row, vectors, Columns::ALL) {
            add(field, Arc::new(fault));
        }
    }
}
