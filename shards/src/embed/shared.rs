//! Texts that stand in more than one file: they are encoded before all files, in pieces that are units of their own, so
//! that no two processes encode one text however many there are.
//!
//! A piece is a vectors file `vectors/<key>/shared-texts/<digest of its texts>.parquet`, a row for each text, its vector
//! where that of an image's text would be.

use super::texts::Scan;
use super::vectors::Vectors;
use crate::access::Access;
use crate::error::ShardError;
use crate::text_vectors::{RowVectors, TextHash, VectorsWriter, vectors_path};
use bytes::Bytes;
use object_store::ObjectStoreExt;
use pixfleet_cluster::index::FileIndex;
use std::collections::BTreeSet;

/// Texts of a piece.
const TEXTS: usize = 1024;
/// Bytes of pieces that are kept in memory; others are read again.
const BYTES_MAX: usize = 1 << 30;

/// Some of the shared texts.
pub(super) struct Piece {
    /// Name of the unit.
    pub(super) name: String,
    pub(super) texts: Vec<String>,
    first: TextHash,
}

impl Piece {
    /// What stands for the data file that these vectors belong to.
    fn data(&self) -> FileIndex {
        let path = format!("{}.parquet", self.name);
        FileIndex { path, size: 0, etag: None, content: Some(self.name.clone()), row_groups: Vec::new() }
    }

    pub(super) fn path(&self, key: &str) -> String {
        vectors_path(key, &self.data().path)
    }

    /// The vectors file.
    pub(super) fn file(&self, key: &str, vectors: &Vectors) -> Result<(String, Bytes), ShardError> {
        let row = |text: &String| RowVectors { image: vectors.entry(Some(text)), ..RowVectors::default() };
        let mut writer = VectorsWriter::new(key, &self.data(), vectors.dim().unwrap_or(1))?;
        writer.push_row_group(&self.texts.iter().map(row).collect::<Vec<_>>())?;
        writer.finish()
    }
}

/// All of them, in the order of their texts' hashes: the same for every process that sees the same data.
pub(super) fn pieces(scan: &Scan) -> Vec<Piece> {
    let all: Vec<(&TextHash, &String)> = scan.shared.iter().collect();
    let piece = |texts: &[(&TextHash, &String)]| {
        let mut digest = blake3::Hasher::new();
        for (hash, _) in texts {
            digest.update(*hash);
        }
        Piece {
            name: format!("shared-texts/{}", &digest.finalize().to_hex()[..16]),
            texts: texts.iter().map(|(_, text)| (*text).clone()).collect(),
            first: *texts[0].0,
        }
    };
    all.chunks(TEXTS).map(piece).collect()
}

/// Vectors of shared texts, once all pieces are there.
pub(super) struct Shared<'a> {
    access: &'a Access,
    key: &'a str,
    pieces: &'a [Piece],
    held: Vectors,
    /// Whether a piece is among what is held.
    loaded: Vec<bool>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(access: &'a Access, key: &'a str, pieces: &'a [Piece]) -> Self {
        Self { access, key, pieces, held: Vectors::default(), loaded: vec![false; pieces.len()] }
    }

    /// Copies the vectors of `hashes`, all of shared texts, to `into`.
    pub(super) async fn copy(&mut self, hashes: &BTreeSet<TextHash>, into: &mut Vectors) -> Result<(), ShardError> {
        for hash in hashes {
            let Some(at) = self.pieces.partition_point(|p| p.first <= *hash).checked_sub(1) else { continue };
            if !self.loaded[at] {
                if self.held.bytes() > BYTES_MAX {
                    self.held = Vectors::default();
                    self.loaded.fill(false);
                }
                self.load(at).await?;
            }
            into.copy(hash, &self.held);
        }
        Ok(())
    }

    async fn load(&mut self, at: usize) -> Result<(), ShardError> {
        let path = self.pieces[at].path(self.key);
        let location = &self.access.location;
        let failed = |source| ShardError::store(location.url_of(&path), "read", source);
        let meta = location.store().head(&location.path(&path)).await.map_err(failed)?;
        let file = FileIndex { path, size: meta.size, etag: meta.e_tag, content: None, row_groups: Vec::new() };
        self.held.load(self.access, &file, usize::MAX, |_| true).await;
        self.loaded[at] = true;
        Ok(())
    }
}
