//! A place in an object store: the folder of one run. The one spot of this crate that opens stores from URLs.

use crate::error::CheckpointError;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use std::sync::Arc;
use url::Url;

/// A store and a folder within it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Folder {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: Url,
}

impl Folder {
    /// Opens `file://`, `s3://`, `gs://`, `az://`, or to read alone `hf://` (`HF_TOKEN`, `HF_ENDPOINT`); credentials come from the environment (`AWS_*`, `GOOGLE_*`,
    /// `AZURE_*`). A folder of `file://` is made when the first object is put.
    ///
    /// # Errors
    /// [`CheckpointError::Url`] if the URL names no known store.
    pub fn parse(url: &str) -> Result<Self, CheckpointError> {
        Self::parse_with(url, std::env::vars())
    }

    /// As [`Folder::parse`], with these variables instead of the environment's.
    ///
    /// # Errors
    /// As [`Folder::parse`].
    pub fn parse_with(url: &str, variables: impl Iterator<Item = (String, String)>) -> Result<Self, CheckpointError> {
        let refuse =
            |source: Box<dyn std::error::Error + Send + Sync>| CheckpointError::Url { url: url.into(), source };
        let parsed = Url::parse(url).map_err(|e| refuse(e.into()))?;
        if parsed.scheme() == "hf" {
            let (store, prefix) = hub(url).map_err(refuse)?;
            return Ok(Self { store, prefix, url: parsed });
        }
        let options = variables
            .filter(|(key, _)| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|p| key.starts_with(p)))
            .map(|(key, value)| (key.to_ascii_lowercase(), value));
        let (store, prefix) = object_store::parse_url_opts(&parsed, options).map_err(|e| refuse(e.into()))?;
        let local = ObjectStoreScheme::parse(&parsed).is_ok_and(|(scheme, _)| scheme == ObjectStoreScheme::Local);
        let store: Arc<dyn ObjectStore> = if local {
            // Folders of checkpoints that retention removed go with their last part.
            Arc::new(LocalFileSystem::new().with_automatic_cleanup(true))
        } else {
            store.into()
        };
        Ok(Self { store, prefix, url: parsed })
    }

    /// An empty store in memory: every clone sees the same objects.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::of(Arc::new(InMemory::new()))
    }

    /// The root of a store in this process, for instance a decorator of another one.
    #[must_use]
    pub fn of(store: Arc<dyn ObjectStore>) -> Self {
        let url = Url::parse("memory:///").expect("a constant");
        Self { store, prefix: Path::default(), url }
    }

    /// The folder `relative` within this one.
    #[must_use]
    pub fn join(&self, relative: &str) -> Self {
        let mut url = self.url.clone();
        let path = format!("{}/{}", url.path().trim_end_matches('/'), relative.trim_matches('/'));
        url.set_path(&path);
        Self { store: Arc::clone(&self.store), prefix: self.path(relative), url }
    }

    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The full key of the object `relative` within this folder.
    #[must_use]
    pub fn path(&self, relative: &str) -> Path {
        let parts = relative.split('/').filter(|part| !part.is_empty()).map(Into::into);
        self.prefix.parts().chain(parts).collect()
    }

    /// The URL of this folder, for messages.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The folder on this machine's disk, if it lies on one.
    #[must_use]
    pub fn local_folder(&self) -> Option<std::path::PathBuf> {
        let (scheme, _) = ObjectStoreScheme::parse(&self.url).ok()?;
        (scheme == ObjectStoreScheme::Local).then(|| self.url.to_file_path().ok())?
    }
}

#[cfg(feature = "hub")]
fn hub(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), Box<dyn std::error::Error + Send + Sync>> {
    Ok(pixfleet_hub::open(url, pixfleet_hub::HubSettings::from_env())?)
}

#[cfg(not(feature = "hub"))]
fn hub(_: &str) -> Result<(Arc<dyn ObjectStore>, Path), Box<dyn std::error::Error + Send + Sync>> {
    Err("this program was built without the feature `hub`".into())
}
