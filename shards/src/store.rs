//! Where a dataset lies: a URL, the object store behind it, and the folder within it.
//!
//! This is the one place of the crate that opens stores from URLs. Credentials come from the environment: `AWS_*`
//! (with `AWS_ENDPOINT` and `AWS_ALLOW_HTTP` for stores that only speak S3), `GOOGLE_*`, `AZURE_*`.

use crate::error::ShardError;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// A folder on an object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Location {
    url: Arc<str>,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Location {
    /// Opens `file:///folder`, `s3://bucket/folder`, `gs://...`, `az://...`, or to read alone `hf://datasets/OWNER/NAME` or
    /// `hf://OWNER/NAME` (`HF_TOKEN`, `HF_ENDPOINT`); a plain path is a local folder. Nothing is fetched and the folder need
    /// not exist.
    ///
    /// # Errors
    /// [`ShardError::Url`], [`ShardError::Scheme`], [`ShardError::Hub`]; [`ShardError::Store`] where credentials are malformed.
    pub fn parse(url: &str) -> Result<Self, ShardError> {
        let full = if url.contains("://") { url.to_owned() } else { local_url(url)? };
        let parsed = Url::parse(&full).map_err(|source| ShardError::Url { url: url.into(), source })?;
        let opened = |source| ShardError::store(full.clone(), "open", source);
        let (store, prefix): (Arc<dyn ObjectStore>, Path) = match parsed.scheme() {
            "file" => {
                let path = parsed.to_file_path().map_err(|()| ShardError::Url {
                    url: url.into(),
                    source: url::ParseError::InvalidDomainCharacter,
                })?;
                let prefix = Path::from_absolute_path(path)
                    .map_err(|source| opened(object_store::Error::InvalidPath { source }))?;
                (Arc::new(LocalFileSystem::new()), prefix)
            }
            "s3" | "s3a" => {
                let builder = AmazonS3Builder::from_env().with_url(&full).with_retry(retry());
                (Arc::new(builder.build().map_err(opened)?), folder(&parsed).map_err(opened)?)
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(&full).with_retry(retry());
                (Arc::new(builder.build().map_err(opened)?), folder(&parsed).map_err(opened)?)
            }
            "az" | "azure" | "abfs" | "abfss" => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(&full).with_retry(retry());
                (Arc::new(builder.build().map_err(opened)?), folder(&parsed).map_err(opened)?)
            }
            "hf" => hub(&full)?,
            scheme => return Err(ShardError::Scheme { url: url.into(), scheme: scheme.into() }),
        };
        Ok(Self { url: full.trim_end_matches('/').into(), store, prefix })
    }

    /// A folder of a store that is already open; `url` is what messages call it.
    #[must_use]
    pub fn with_store(url: &str, store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { url: url.trim_end_matches('/').into(), store, prefix }
    }

    /// The URL, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// The store's path of `relative`, a path within this folder with `/` between its parts.
    #[must_use]
    pub fn path(&self, relative: &str) -> Path {
        relative.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// The path within this folder of a store's path.
    #[must_use]
    pub fn relative(&self, path: &Path) -> Option<String> {
        let parts: Vec<String> = path.prefix_match(&self.prefix)?.map(|p| p.as_ref().to_owned()).collect();
        Some(parts.join("/"))
    }

    /// The URL of `relative`, for messages.
    #[must_use]
    pub fn url_of(&self, relative: &str) -> String {
        format!("{}/{relative}", self.url)
    }

    /// The folder `relative` within this one.
    #[must_use]
    pub fn folder(&self, relative: &str) -> Self {
        Self { url: self.url_of(relative).into(), store: self.store(), prefix: self.path(relative) }
    }

    /// Whether there is such an object.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn exists(&self, relative: &str) -> Result<bool, ShardError> {
        match self.store.head(&self.path(relative)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(ShardError::store(self.url_of(relative), "read", source)),
        }
    }

    /// All of a small object.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get(&self, relative: &str) -> Result<bytes::Bytes, ShardError> {
        let failed = |source| ShardError::store(self.url_of(relative), "read", source);
        self.store.get(&self.path(relative)).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    /// Writes an object, replacing one that is there.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn put(&self, relative: &str, bytes: impl Into<PutPayload>) -> Result<(), ShardError> {
        let failed = |source| ShardError::store(self.url_of(relative), "write", source);
        self.store.put(&self.path(relative), bytes.into()).await.map_err(failed)?;
        Ok(())
    }

    /// Removes an object; that it is not there is no error.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn delete(&self, relative: &str) -> Result<(), ShardError> {
        match self.store.delete(&self.path(relative)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(ShardError::store(self.url_of(relative), "delete", source)),
        }
    }

    /// Writes an object unless it is there; `false` if it was.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn create(&self, relative: &str, bytes: impl Into<PutPayload>) -> Result<bool, ShardError> {
        match self.store.put_opts(&self.path(relative), bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(source) => Err(ShardError::store(self.url_of(relative), "write", source)),
        }
    }
}

#[cfg(feature = "hub")]
fn hub(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), ShardError> {
    let problem = |error: pixfleet_hub::HubError| ShardError::Hub { problem: error.to_string() };
    pixfleet_hub::open(url, pixfleet_hub::HubSettings::from_env()).map_err(problem)
}

#[cfg(not(feature = "hub"))]
fn hub(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), ShardError> {
    Err(ShardError::Hub { problem: format!("{url}: this program was built without the feature `hub`") })
}

fn local_url(path: &str) -> Result<String, ShardError> {
    let bad = || ShardError::Url { url: path.into(), source: url::ParseError::RelativeUrlWithoutBase };
    let absolute = std::path::absolute(path).map_err(|_| bad())?;
    Url::from_file_path(absolute).map(String::from).map_err(|()| bad())
}

fn folder(url: &Url) -> Result<Path, object_store::Error> {
    Path::from_url_path(url.path()).map_err(|source| object_store::Error::InvalidPath { source })
}

/// Patient with a busy store, not with an absent one.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() }
}
