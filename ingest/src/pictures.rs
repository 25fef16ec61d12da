//! Pictures that do not come with their records: files of a folder or a store, and what is missing there by its address.

use crate::cell::Wrong;
use crate::error::IngestError;
use crate::fetch::{Fetcher, Politeness};
use crate::reject::RejectKind;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use pixfleet_shards::{ImageRow, Location, ShardError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a picture at most.
pub(crate) const PICTURE_MAX: u64 = 32 << 20;

/// Where pictures are that do not come with their records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PicturesFrom {
    /// The folder that the source is in.
    #[default]
    Beside,
    /// A folder, local or on a store.
    Folder(String),
    /// Nowhere: rows keep paths and addresses alone.
    Without,
}

/// The opened place.
#[derive(Debug)]
pub(crate) struct Pictures {
    folder: Option<Location>,
    fetcher: Option<Fetcher>,
    /// Bytes that were read, beside those of the records.
    read: Arc<AtomicU64>,
}

impl Pictures {
    pub(crate) fn open(
        from: &PicturesFrom,
        fetch: Option<&Politeness>,
        beside: &str,
        read: Arc<AtomicU64>,
    ) -> Result<Self, IngestError> {
        let folder = match from {
            PicturesFrom::Without => None,
            PicturesFrom::Folder(url) => Some(Location::parse(url)?),
            PicturesFrom::Beside => Some(Location::parse(beside)?),
        };
        Ok(Self { folder, fetcher: fetch.map(Fetcher::new).transpose()?, read })
    }

    /// The picture of a row; `None` where rows go without. A store that does not answer ends the ingest.
    pub(crate) async fn get(&self, row: &ImageRow) -> Result<Result<Option<Bytes>, Wrong>, IngestError> {
        let mut found = match &self.folder {
            Some(folder) => self.stored(folder, row).await?,
            None => Ok(None),
        };
        let is_missing = match &found {
            Ok(bytes) => bytes.is_none(),
            Err(wrong) => wrong.kind == RejectKind::PictureMissing,
        };
        if let (true, Some(fetcher)) = (is_missing, &self.fetcher) {
            found = match &row.image.url {
                Some(url) => fetcher.get(url).await.map(Some),
                None => {
                    Err(Wrong::new(RejectKind::PictureMissing, "image.url", "nothing", "an address to fetch it from"))
                }
            };
        }
        if let Ok(Some(bytes)) = &found {
            self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(found)
    }

    async fn stored(&self, folder: &Location, row: &ImageRow) -> Result<Result<Option<Bytes>, Wrong>, IngestError> {
        let missing = |found: String, expected: &str| Wrong::new(RejectKind::PictureMissing, "image", found, expected);
        let Some(path) = &row.image.path else {
            return Ok(Err(missing("neither bytes nor a path".into(), "a picture")));
        };
        let got = match folder.store().get(&folder.path(path)).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => {
                return Ok(Err(missing(format!("no file {}", folder.url_of(path)), "the picture")));
            }
            Err(error) => return Err(ShardError::of_store(&folder.url_of(path), "read", error).into()),
        };
        if got.meta.size > PICTURE_MAX {
            let found = format!("{} of {} bytes", path, got.meta.size);
            return Ok(Err(Wrong::new(
                RejectKind::PictureLarge,
                "image",
                found,
                format!("{PICTURE_MAX} bytes at most"),
            )));
        }
        let bytes = got.bytes().await.map_err(|e| ShardError::of_store(&folder.url_of(path), "read", e))?;
        Ok(Ok(Some(bytes)))
    }
}
