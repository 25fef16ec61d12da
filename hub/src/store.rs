//! The object store: reading and listing; whoever writes is told that nobody can.

use crate::client::{Client, TreeEntry, shown};
use crate::error::HubError;
use crate::headers::content_range;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use reqwest::{Response, StatusCode};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// See the crate.
#[derive(Debug)]
pub(crate) struct HubStore {
    client: Arc<Client>,
}

impl HubStore {
    pub(crate) fn new(client: Client) -> Self {
        Self { client: Arc::new(client) }
    }

    async fn get(&self, location: &Path, options: &GetOptions) -> Result<GetResult, HubError> {
        let path = location.as_ref();
        // The size of a large file is known where it lies: one byte of it tells.
        let wanted = if options.head { Some(GetRange::Bounded(0..1)) } else { options.range.clone() };
        let asked = wanted.as_ref().map(ToString::to_string);
        let answer = self.client.file(path, asked.as_deref()).await?;
        let (commit, url) = (self.client.commit().await?.to_owned(), shown(answer.url()));
        let problem = |problem: String| HubError::Answer { url: url.clone(), problem };
        let meta = |size| ObjectMeta { version: Some(commit.clone()), ..meta(location.clone(), size) };
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return match content_range(answer.headers()) {
                Some((_, size)) if options.head => Ok(result(meta(size), 0..size, stream::empty().boxed())),
                found => Err(problem(format!("asked for {}, it has {found:?}", asked.unwrap_or_default()))),
            };
        }
        let answer = self.client.checked(answer, path)?;
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let found = content_range(answer.headers());
            let Some((Some(range), size)) = found else {
                return Err(problem(format!("a part without a range: {found:?}")));
            };
            return Ok(match options.head {
                true => result(meta(size), 0..size, stream::empty().boxed()),
                false => result(meta(size), range, body(answer)),
            });
        }
        let size = answer.content_length().ok_or_else(|| problem("an answer of unknown length".into()))?;
        match options.range.as_ref().filter(|_| !options.head) {
            None => Ok(result(meta(size), 0..size, body(answer))),
            // A server that knows no ranges sends everything.
            Some(range) => {
                let range = range.as_range(size).map_err(|e| problem(e.to_string()))?;
                let all = answer.bytes().await;
                let all = all.map_err(|source| HubError::Broken { url: url.clone(), source: source.without_url() })?;
                let part = all.slice(range.start as usize..range.end.min(all.len() as u64) as usize);
                Ok(result(meta(size), range, stream::iter([Ok(part)]).boxed()))
            }
        }
    }

    async fn tree(client: &Client, folder: &Path, below: bool) -> Result<Vec<TreeEntry>> {
        match client.tree(folder.as_ref(), below).await {
            Ok(entries) => Ok(entries),
            // A store has no folders of which one could be missing.
            Err(HubError::NoFile { .. }) => Ok(Vec::new()),
            Err(error) => Err(error.at(folder.as_ref())),
        }
    }
}

fn meta(location: Path, size: u64) -> ObjectMeta {
    // A commit does not change, so nobody asks when its files did.
    ObjectMeta { location, last_modified: Default::default(), size, e_tag: None, version: None }
}

fn result(meta: ObjectMeta, range: Range<u64>, bytes: BoxStream<'static, Result<Bytes>>) -> GetResult {
    let payload = GetResultPayload::Stream(bytes);
    GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() }
}

fn body(answer: Response) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold(answer, |mut answer| async move {
        let url = shown(answer.url());
        let broken =
            |source: reqwest::Error| HubError::Broken { url: url.clone(), source: source.without_url() }.at(&url);
        let chunk = answer.chunk().await.map_err(broken)?;
        Ok::<_, Error>(chunk.map(|bytes| (bytes, answer)))
    })
    .boxed()
}

/// The entry as the store tells it.
fn listed(entry: &TreeEntry) -> Result<ObjectMeta> {
    let location = Path::parse(&entry.path).map_err(|source| Error::InvalidPath { source })?;
    Ok(meta(location, entry.size))
}

fn refused<T>(path: &Path) -> Result<T> {
    Err(HubError::ReadOnly.at(path.as_ref()))
}

impl fmt::Display for HubStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.client.page())
    }
}

#[async_trait]
impl ObjectStore for HubStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.get(location, &options).await.map_err(|error| error.at(location.as_ref()))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (client, folder) = (Arc::clone(&self.client), prefix.cloned().unwrap_or_default());
        let all = async move {
            let entries = Self::tree(&client, &folder, true).await?;
            Ok::<_, Error>(stream::iter(entries.into_iter().filter(TreeEntry::is_file).map(|entry| listed(&entry))))
        };
        stream::once(all).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let folder = prefix.cloned().unwrap_or_default();
        let entries = Self::tree(&self.client, &folder, false).await?;
        let (files, folders): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.is_file());
        let common_prefixes = folders.iter().map(|entry| Path::from(entry.path.as_str())).collect();
        let objects = files.into_iter().map(listed).collect::<Result<_>>()?;
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    async fn put_opts(&self, location: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        refused(location)
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        refused(location)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        locations.map(|location| refused(&location?)).boxed()
    }

    async fn copy_opts(&self, _: &Path, to: &Path, _: CopyOptions) -> Result<()> {
        refused(to)
    }
}
