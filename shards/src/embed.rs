//! Drives an encoder over the captions of a split and writes their vectors beside the rows.
//!
//! A file whose vectors are there and current is skipped, so an interrupted run goes on where it was; a text that is
//! in any vectors file of the same key is not encoded again.

use crate::access::Access;
use crate::error::{FieldFault, Place, ShardError};
use crate::file::ShardFile;
use crate::reader::RowGroupReader;
use crate::row::ImageRow;
use crate::schema::Columns;
use crate::store::Location;
use crate::text_vectors::{self, RowVectors, TextHash, TextVector, VectorsWriter, text_hash};
use futures::TryStreamExt;
use object_store::ObjectStore;
use pixfleet_cluster::index::{DatasetIndex, FileIndex};
use std::collections::HashMap;

/// Texts that an encoder gets at once: enough to sort by length, little enough to show progress.
const TEXTS_AT_ONCE: usize = 2048;
/// Vectors that are kept in memory, in bytes; further ones are encoded again where their text comes again.
const CACHE_BYTES: usize = 1 << 30;

/// What to embed.
#[derive(Debug, Clone, Copy)]
pub struct EmbedJob<'a> {
    /// The dataset.
    pub location: &'a Location,
    /// Its index.
    pub index: &'a DatasetIndex,
    /// Which split.
    pub split: &'a str,
    /// Key of the vectors ([`text_vectors::vector_key`]).
    pub key: &'a str,
}

/// How far it is, and at the end what was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbedProgress {
    /// Rows whose vectors are on the store.
    pub rows: u64,
    /// Rows of the split.
    pub rows_total: u64,
    /// Texts that were encoded.
    pub encoded: u64,
    /// Texts whose vector was known.
    pub cached: u64,
    /// Files whose vectors were already there.
    pub files_skipped: u32,
}

/// Why embedding stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError<E: std::error::Error + 'static> {
    /// The dataset or its store.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The encoder.
    #[error("the encoder failed")]
    Encode(#[source] E),
}

/// Encodes every text of the split that has no vector yet. `encode` gets texts and returns one vector for each, all
/// of one length; `progress` is called after every call of it.
///
/// # Errors
/// Those of the store, of bad rows, of `encode`; [`ShardError::Encoder`] where it returns something else.
pub async fn embed_split<E: std::error::Error + 'static>(
    job: EmbedJob<'_>,
    encode: &mut (dyn FnMut(&[String]) -> Result<Vec<Vec<f32>>, E> + Send),
    progress: &mut (dyn FnMut(EmbedProgress) + Send),
) -> Result<EmbedProgress, EmbedError<E>> {
    let access = Access::new(job.location.clone());
    let reader = RowGroupReader::new(job.location.clone(), job.index, job.split, None)?.with_cache_bytes(0);
    let mut cache = Cache::load(&access, job.key).await?;
    let mut done = EmbedProgress { rows_total: reader.split().rows(), ..EmbedProgress::default() };
    let mut first_group = 0;
    for file in &reader.split().files {
        let groups = first_group..first_group + file.row_groups.len() as u32;
        first_group = groups.end;
        let rows: u64 = file.row_groups.iter().map(|g| u64::from(g.rows)).sum();
        let there = text_vectors::find(&access, job.key, file).await.ok().flatten();
        if there.is_some_and(|there| text_vectors::is_current(&there, file)) {
            done.files_skipped += 1;
        } else {
            let mut captions = Vec::new();
            for group in groups {
                let all: Vec<u32> =
                    (0..reader.split().row_groups().nth(group as usize).map_or(0, |g| g.rows)).collect();
                captions.push(reader.read(group, &all, Columns::CAPTIONS).await?);
            }
            encode_texts(&captions, &mut cache, encode, &mut |encoded, cached| {
                done.encoded += encoded;
                done.cached += cached;
                progress(done);
            })?;
            write(job, file, &captions, &cache).await?;
            cache.shrink();
        }
        done.rows += rows;
        progress(done);
    }
    Ok(done)
}

/// Encodes the texts of `groups` that the cache lacks; `tell` gets (encoded, cached) counts.
fn encode_texts<E: std::error::Error + 'static>(
    groups: &[Vec<ImageRow>],
    cache: &mut Cache,
    encode: &mut (dyn FnMut(&[String]) -> Result<Vec<Vec<f32>>, E> + Send),
    tell: &mut dyn FnMut(u64, u64),
) -> Result<(), EmbedError<E>> {
    let mut wanted: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut texts = 0;
    for row in groups.iter().flatten() {
        let regions = row.regions.iter().flat_map(|r| [r.short_text(), r.long_text()]);
        for text in regions.chain([row.image_text()]).flatten() {
            texts += 1;
            let hash = text_hash(text);
            if !cache.vectors.contains_key(&hash) && seen.insert(hash) {
                wanted.push(text.to_owned());
            }
        }
    }
    tell(0, texts - wanted.len() as u64);
    for chunk in wanted.chunks(TEXTS_AT_ONCE) {
        let vectors = encode(chunk).map_err(EmbedError::Encode)?;
        if vectors.len() != chunk.len() {
            let (found, expected) = (format!("{} vectors", vectors.len()), chunk.len().to_string());
            return Err(ShardError::Encoder { found, expected }.into());
        }
        for (text, vector) in chunk.iter().zip(vectors) {
            if let Some(index) = vector.iter().position(|x| !half::f16::from_f32(*x).is_finite()) {
                let place = Place::file(format!("text `{}`", text.chars().take(60).collect::<String>()));
                return Err(ShardError::field(place, FieldFault::NotFinite { index }).into());
            }
            cache.put(text_hash(text), vector);
        }
        tell(chunk.len() as u64, 0);
    }
    Ok(())
}

async fn write(job: EmbedJob<'_>, data: &FileIndex, groups: &[Vec<ImageRow>], cache: &Cache) -> Result<(), ShardError> {
    let vector = |text: Option<&str>| match text {
        None => TextVector::default(),
        Some(text) => {
            let hash = text_hash(text);
            TextVector { hash: Some(hash), values: cache.vectors.get(&hash).map(|v| v.to_vec()) }
        }
    };
    let rows = |rows: &[ImageRow]| -> Vec<RowVectors> {
        let one = |row: &ImageRow| RowVectors {
            short: row.regions.iter().map(|r| vector(r.short_text())).collect(),
            long: row.regions.iter().map(|r| vector(r.long_text())).collect(),
            image: vector(row.image_text()),
        };
        rows.iter().map(one).collect()
    };
    // A split without any text has vectors of one number, all null.
    let dim = cache.vectors.values().next().map_or(1, |v| v.len());
    let mut writer = VectorsWriter::new(job.key, data, dim)?;
    for group in groups {
        writer.push_row_group(&rows(group))?;
    }
    let (path, bytes) = writer.finish()?;
    job.location.put(&path, bytes).await
}

/// Vectors by the hash of their text.
#[derive(Default)]
struct Cache {
    vectors: HashMap<TextHash, Box<[f32]>>,
    bytes: usize,
}

impl Cache {
    /// The vectors of all files of `key` that can be read, up to the bound.
    async fn load(access: &Access, key: &str) -> Result<Self, ShardError> {
        let (location, mut cache) = (&access.location, Self::default());
        let folder = location.path(&text_vectors::vectors_path(key, ""));
        let failed = |source| ShardError::store(location.url_of("vectors"), "list", source);
        let found: Vec<_> = location.store().list(Some(&folder)).try_collect().await.map_err(failed)?;
        for meta in found {
            let Some(path) = location.relative(&meta.location).filter(|p| p.ends_with(".parquet")) else { continue };
            let file = FileIndex {
                path: path.clone(),
                size: meta.size,
                etag: meta.e_tag,
                content: None,
                row_groups: Vec::new(),
            };
            // A damaged vectors file is no cache; it is written again.
            let Ok(opened) = ShardFile::open(access, &file).await else { continue };
            cache.load_file(&opened, &path).await;
        }
        Ok(cache)
    }

    async fn load_file(&mut self, file: &ShardFile, path: &str) {
        for group in 0..file.footer().num_row_groups() as u32 {
            let Ok(rows) = text_vectors::read(file, path, group, None, true).await else { return };
            for vector in rows.into_iter().flat_map(|r| r.short.into_iter().chain(r.long).chain([r.image])) {
                if let (Some(hash), Some(values)) = (vector.hash, vector.values)
                    && values.iter().all(|x| x.is_finite())
                    && self.bytes < CACHE_BYTES
                {
                    self.put(hash, values);
                }
            }
        }
    }

    fn put(&mut self, hash: TextHash, values: Vec<f32>) {
        let bytes = 4 * values.len() + size_of::<TextHash>();
        if self.vectors.insert(hash, values.into()).is_none() {
            self.bytes += bytes;
        }
    }

    /// Forgets everything where the bound is passed.
    fn shrink(&mut self) {
        if self.bytes > CACHE_BYTES {
            *self = Self::default();
        }
    }
}
