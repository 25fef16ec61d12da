//! Vectors by the hash of their text, in memory and from files.

use crate::access::Access;
use crate::error::{FieldFault, Place, ShardError};
use crate::file::ShardFile;
use crate::text_vectors::{self, TextHash, TextVector, text_hash};
use futures::TryStreamExt;
use half::f16;
use object_store::{ObjectMeta, ObjectStore};
use pixfleet_cluster::index::FileIndex;
use std::collections::HashMap;

/// Vectors as they lie on the store: f16.
#[derive(Default)]
pub(super) struct Vectors {
    by_text: HashMap<TextHash, Box<[f16]>>,
    bytes: usize,
}

impl Vectors {
    pub(super) fn contains(&self, hash: &TextHash) -> bool {
        self.by_text.contains_key(hash)
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Numbers of a vector; `None` if there is none.
    pub(super) fn dim(&self) -> Option<usize> {
        self.by_text.values().next().map(|v| v.len())
    }

    /// What the encoder gave for a text.
    pub(super) fn put(&mut self, text: &str, vector: &[f32]) -> Result<(), ShardError> {
        let vector: Box<[f16]> = vector.iter().map(|&x| f16::from_f32(x)).collect();
        if let Some(index) = vector.iter().position(|x| !x.is_finite()) {
            let place = Place::file(format!("text `{}`", text.chars().take(60).collect::<String>()));
            return Err(ShardError::field(place, FieldFault::NotFinite { index }));
        }
        self.insert(text_hash(text), vector);
        Ok(())
    }

    fn insert(&mut self, hash: TextHash, vector: Box<[f16]>) {
        let bytes = 2 * vector.len() + size_of::<TextHash>();
        if self.by_text.insert(hash, vector).is_none() {
            self.bytes += bytes;
        }
    }

    /// Takes over what `other` has of `hash`; whether it has.
    pub(super) fn copy(&mut self, hash: &TextHash, other: &Self) -> bool {
        let found = other.by_text.get(hash);
        if let Some(vector) = found {
            self.insert(*hash, vector.clone());
        }
        found.is_some()
    }

    /// Takes over all of `other`.
    pub(super) fn extend(&mut self, other: Self) {
        other.by_text.into_iter().for_each(|(hash, vector)| self.insert(hash, vector));
    }

    /// The entry of a vectors file for a text that may not be there.
    pub(super) fn entry(&self, text: Option<&str>) -> TextVector {
        let Some(hash) = text.map(text_hash) else { return TextVector::default() };
        let values = self.by_text.get(&hash).map(|v| v.iter().map(|x| x.to_f32()).collect());
        TextVector { hash: Some(hash), values }
    }

    /// Adds those vectors of a vectors file that are `wanted`, until `limit` bytes are held. A file or row group that
    /// cannot be read is no source; whoever needs its texts encodes them again.
    pub(super) async fn load(
        &mut self,
        access: &Access,
        file: &FileIndex,
        limit: usize,
        wanted: impl Fn(&TextHash) -> bool,
    ) {
        let Ok(opened) = ShardFile::open(access, file).await else { return };
        for group in 0..opened.footer().num_row_groups() as u32 {
            let Ok(rows) = text_vectors::read(&opened, &file.path, group, None, true).await else { return };
            for vector in rows.into_iter().flat_map(|r| r.short.into_iter().chain(r.long).chain([r.image])) {
                let (Some(hash), Some(values)) = (vector.hash, vector.values) else { continue };
                if self.bytes < limit && wanted(&hash) && values.iter().all(|x| x.is_finite()) {
                    self.insert(hash, values.into_iter().map(f16::from_f32).collect());
                }
            }
        }
    }
}

/// Every vectors file of `key`.
pub(super) async fn files(access: &Access, key: &str) -> Result<Vec<FileIndex>, ShardError> {
    let location = &access.location;
    let folder = location.path(&text_vectors::vectors_path(key, ""));
    let failed = |source| ShardError::store(location.url_of("vectors"), "list", source);
    let found: Vec<ObjectMeta> = location.store().list(Some(&folder)).try_collect().await.map_err(failed)?;
    let of = |meta: ObjectMeta| {
        let path = location.relative(&meta.location).filter(|p| p.ends_with(".parquet"))?;
        Some(FileIndex { path, size: meta.size, etag: meta.e_tag, content: None, row_groups: Vec::new() })
    };
    Ok(found.into_iter().filter_map(of).collect())
}
