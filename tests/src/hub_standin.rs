//! A stand-in for the Hugging Face Hub: repositories that are folders on disk, the three endpoints that are asked, large files at
//! signed addresses of another server, and the Hub's refusals. It counts what it was asked.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, Uri, header};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Opens what is closed.
pub const TOKEN: &str = "hf_of_the_owner";
/// What every revision is.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Entries of a page of a listing.
const PAGE: usize = 5;

/// Who may read a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoAccess {
    /// Everybody.
    Open,
    /// Nobody else is even told that it is there.
    Private,
    /// It may be looked at, but its files need a token.
    Gated,
}

/// What was asked so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubCounts {
    /// Requests to the API.
    pub api: u64,
    /// Requests for a file.
    pub resolve: u64,
    /// Requests at signed addresses that were answered.
    pub elsewhere: u64,
    /// Requests at signed addresses whose signature had run out.
    pub expired: u64,
    /// Requests elsewhere that brought the token along.
    pub leaked: u64,
    /// Answers of 429.
    pub busy: u64,
}

#[derive(Default)]
struct Shared {
    /// By `datasets/OWNER/NAME` or `OWNER/NAME`.
    repos: BTreeMap<String, (PathBuf, RepoAccess)>,
    counts: HubCounts,
    signature: u64,
    /// Requests yet to be answered with 429.
    busy: u32,
    /// Where the large files are.
    elsewhere: String,
}

type Held = Arc<Mutex<Shared>>;

/// A running stand-in.
pub struct HubStandIn {
    /// For `HF_ENDPOINT`.
    pub endpoint: String,
    shared: Held,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

fn lock(shared: &Held) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HubStandIn {
    /// Serves on two free ports, without a repository.
    pub async fn start() -> anyhow::Result<Self> {
        let shared = Held::default();
        let (mut addresses, mut tasks) = (Vec::new(), Vec::new());
        let routers = [Router::new().fallback(hub), Router::new().fallback(signed)];
        for router in routers {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            addresses.push(format!("http://{}", listener.local_addr()?));
            let router = router.with_state(Arc::clone(&shared));
            tasks.push(tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, router).await {
                    tracing::error!(%error, "the stand-in ended");
                }
            }));
        }
        lock(&shared).elsewhere = addresses.remove(1);
        Ok(Self { endpoint: addresses.remove(0), shared, tasks })
    }

    /// Adds the repository `page` (`datasets/OWNER/NAME` or `OWNER/NAME`) that `folder` holds.
    pub fn add(&self, page: &str, folder: &Path, access: RepoAccess) {
        lock(&self.shared).repos.insert(page.into(), (folder.into(), access));
    }

    /// What was asked so far.
    pub fn counts(&self) -> HubCounts {
        lock(&self.shared).counts
    }

    /// Makes all signatures run out.
    pub fn expire(&self) {
        lock(&self.shared).signature += 1;
    }

    /// Answers the next `requests` with 429.
    pub fn be_busy(&self, requests: u32) {
        lock(&self.shared).busy = requests;
    }
}

impl Drop for HubStandIn {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn hub(State(shared): State<Held>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let mut shared = lock(&shared);
    if shared.busy > 0 {
        shared.busy -= 1;
        shared.counts.busy += 1;
        return with(StatusCode::TOO_MANY_REQUESTS, &[("ratelimit", "\"resolvers\";r=0;t=0")], "");
    }
    let path = uri.path().trim_start_matches('/');
    let may =
        headers.get(header::AUTHORIZATION).is_some_and(|sent| sent.as_bytes() == format!("Bearer {TOKEN}").as_bytes());
    let api = path.strip_prefix("api/");
    let (page, rest) = match api.unwrap_or(path).splitn(4, '/').collect::<Vec<_>>()[..] {
        ["datasets", owner, name, rest] => (format!("datasets/{owner}/{name}"), rest),
        ["models", owner, name, rest] if api.is_some() => (format!("{owner}/{name}"), rest),
        [owner, name, verb, rest] if api.is_none() => {
            (format!("{owner}/{name}"), &path[path.len() - verb.len() - rest.len() - 1..])
        }
        _ => return with(StatusCode::BAD_REQUEST, &[], "no such endpoint"),
    };
    let Some((folder, access)) =
        shared.repos.get(&page).filter(|(_, access)| may || *access != RepoAccess::Private).cloned()
    else {
        let said = [("x-error-code", "RepoNotFound"), ("x-error-message", "Invalid username or password.")];
        return with(StatusCode::UNAUTHORIZED, &said, "");
    };
    let (verb, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let (revision, within) = rest.split_once('/').unwrap_or((rest, ""));
    if ![COMMIT, "main", "refs%2Fpr%2F1"].contains(&revision) {
        return with(StatusCode::NOT_FOUND, &[("x-error-code", "RevisionNotFound")], "");
    }
    let file = plain(within);
    match (api.is_some(), verb) {
        (true, "revision") => {
            shared.counts.api += 1;
            with(StatusCode::OK, &[], &json!({"sha": COMMIT}).to_string())
        }
        (true, "tree") => {
            shared.counts.api += 1;
            tree(&folder, &file, &uri)
        }
        (false, "resolve") => {
            shared.counts.resolve += 1;
            if access == RepoAccess::Gated && !may {
                return with(StatusCode::FORBIDDEN, &[("x-error-code", "GatedRepo")], "");
            }
            if !folder.join(&file).is_file() {
                return with(StatusCode::NOT_FOUND, &[("x-error-code", "EntryNotFound")], "");
            }
            if within.ends_with(".json") || within.ends_with(".toml") {
                return send(&folder.join(&file), &headers);
            }
            let at = format!("{}/{page}!{within}?signature={}", shared.elsewhere, shared.signature);
            with(StatusCode::FOUND, &[("location", &at)], "")
        }
        _ => with(StatusCode::BAD_REQUEST, &[], "no such endpoint"),
    }
}

/// A path as it stands on disk; of what is encoded in a URL, tests have spaces.
fn plain(path: &str) -> String {
    path.replace("%20", " ")
}

/// A page of what lies in a folder, or below it.
fn tree(folder: &Path, within: &str, uri: &Uri) -> Response<Body> {
    let query: BTreeMap<&str, &str> =
        uri.query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('=')).collect();
    let mut entries = Vec::new();
    if !folder.join(within).is_dir()
        || walk(folder, within, query.get("recursive") == Some(&"true"), &mut entries).is_err()
    {
        return with(StatusCode::NOT_FOUND, &[("x-error-code", "EntryNotFound")], "");
    }
    entries.sort_by_key(|entry| entry["path"].to_string());
    let from: usize = query.get("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let page: Vec<_> = entries.iter().skip(from).take(PAGE).collect();
    let recursive = query.get("recursive").copied().unwrap_or("false");
    let next = format!("<{}?recursive={recursive}&cursor={}>; rel=\"next\"", uri.path(), from + PAGE);
    let links: &[(&str, &str)] = if from + PAGE < entries.len() { &[("link", &next)] } else { &[] };
    with(StatusCode::OK, links, &json!(page).to_string())
}

fn walk(folder: &Path, within: &str, below: bool, entries: &mut Vec<serde_json::Value>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder.join(within))? {
        let entry = entry?;
        let path = format!("{within}/{}", entry.file_name().to_string_lossy()).trim_start_matches('/').to_owned();
        if entry.file_type()?.is_dir() {
            entries.push(json!({"type": "directory", "path": path, "size": 0, "oid": "d"}));
            if below {
                walk(folder, &path, below, entries)?;
            }
        } else {
            entries.push(json!({"type": "file", "path": path, "size": entry.metadata()?.len(), "oid": "f"}));
        }
    }
    Ok(())
}

/// The server of large files, which knows signatures and no tokens.
async fn signed(State(shared): State<Held>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let mut shared = lock(&shared);
    if headers.contains_key(header::AUTHORIZATION) {
        shared.counts.leaked += 1;
        return with(StatusCode::BAD_REQUEST, &[], "two ways of authorization");
    }
    if uri.query() != Some(&format!("signature={}", shared.signature)) {
        shared.counts.expired += 1;
        return with(StatusCode::FORBIDDEN, &[], "the signature has run out");
    }
    shared.counts.elsewhere += 1;
    let found = uri.path().trim_start_matches('/').split_once('!');
    match found.and_then(|(page, within)| Some(shared.repos.get(page)?.0.join(plain(within)))) {
        Some(path) => send(&path, &headers),
        None => with(StatusCode::NOT_FOUND, &[], ""),
    }
}

/// A file, or the part of it that `Range` asks for.
fn send(path: &Path, headers: &HeaderMap) -> Response<Body> {
    let Ok(all) = std::fs::read(path) else { return with(StatusCode::NOT_FOUND, &[], "") };
    let size = all.len();
    let asked =
        headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = asked else { return bytes(StatusCode::OK, None, all) };
    let (first, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, size.min(last + 1)),
        (Ok(first), Err(_)) => (first, size),
        (Err(_), Ok(n)) => (size.saturating_sub(n), size),
        (Err(_), Err(_)) => (size, size),
    };
    if first >= end {
        return with(StatusCode::RANGE_NOT_SATISFIABLE, &[("content-range", &format!("bytes */{size}"))], "");
    }
    let range = format!("bytes {first}-{}/{size}", end - 1);
    bytes(StatusCode::PARTIAL_CONTENT, Some(&range), all[first..end].to_vec())
}

fn bytes(status: StatusCode, range: Option<&str>, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    if let Some(range) = range {
        response = response.header(header::CONTENT_RANGE, range);
    }
    response.body(Body::from(body)).expect("headers of our own")
}

fn with(status: StatusCode, headers: &[(&str, &str)], body: &str) -> Response<Body> {
    let response = headers.iter().fold(Response::builder().status(status), |r, (name, value)| r.header(*name, *value));
    response.body(Body::from(body.to_owned())).expect("headers of our own")
}
