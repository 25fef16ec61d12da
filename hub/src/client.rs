//! Requests: to the Hub itself with the token, to where it sends us without it.

use crate::error::HubError;
use crate::headers;
use crate::place::HubPlace;
use crate::settings::HubSettings;
use reqwest::header::{LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use url::Url;

/// Until somebody is there, and between two pieces of an answer.
const CONNECT: Duration = Duration::from_secs(15);
const READ: Duration = Duration::from_secs(60);
/// Pause after a fault of the server; it doubles with each.
const PAUSE: Duration = Duration::from_millis(500);
/// Faults in a row that are taken for one that will pass.
const FAULTS: u32 = 4;
/// What a 429 may make us wait in all: limits are of five minutes.
const WAIT_MAX: Duration = Duration::from_secs(300);
const REDIRECTS: usize = 6;

/// Where connections live: they outlast the runtime that first asked for them, and a runtime that nobody drives would let
/// them hang.
static IO: LazyLock<Runtime> = LazyLock::new(|| {
    let io = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("hub").enable_all().build();
    io.expect("a thread and a poller, which every process has")
});

/// An address without its signature.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

/// A file or folder of a repository.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TreeEntry {
    /// `file` or `directory`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Within the repository.
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) size: u64,
}

impl TreeEntry {
    pub(crate) fn is_file(&self) -> bool {
        self.kind == "file"
    }
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

/// One repository at one commit.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    place: HubPlace,
    endpoint: Url,
    token: Option<String>,
    commit: OnceCell<String>,
    /// Signed addresses of large files, each good for a while.
    elsewhere: Mutex<HashMap<String, Url>>,
}

impl Client {
    pub(crate) fn new(place: HubPlace, settings: HubSettings) -> Result<Self, HubError> {
        let bad = || HubError::Endpoint { endpoint: settings.endpoint.clone() };
        let endpoint = Url::parse(&settings.endpoint).map_err(|_| bad())?;
        if !["http", "https"].contains(&endpoint.scheme()) {
            return Err(bad());
        }
        let http = reqwest::Client::builder().redirect(Policy::none()).connect_timeout(CONNECT).read_timeout(READ);
        let http = http.user_agent(concat!("pixfleet/", env!("CARGO_PKG_VERSION"))).build();
        let http = http.map_err(|source| HubError::Unreachable { url: settings.endpoint.clone(), source })?;
        Ok(Self { http, place, endpoint, token: settings.token, commit: OnceCell::new(), elsewhere: Mutex::default() })
    }

    /// The repository's page, for people.
    pub(crate) fn page(&self) -> String {
        self.address(&self.place.page(), &[]).into()
    }

    /// The endpoint with `base`, a path, and `parts`, each of which is one part whatever it holds.
    fn address(&self, base: &str, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(base.split('/')).extend(parts);
        }
        url
    }

    /// The commit that the revision was when it was first asked for.
    ///
    /// # Errors
    /// [`HubError`]
    pub(crate) async fn commit(&self) -> Result<&str, HubError> {
        let ask = || async {
            let revision = &self.place.revision;
            if revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit()) {
                return Ok::<_, HubError>(revision.clone());
            }
            let url = self.address(&self.place.api(), &["revision", revision]);
            let (found, _) = self.json::<Revision>(&url).await?;
            tracing::info!(repo = self.place.page(), revision, commit = found.sha, "reading this commit");
            Ok(found.sha)
        };
        self.commit.get_or_try_init(ask).await.map(String::as_str)
    }

    /// What a folder holds, or all that lies below it.
    ///
    /// # Errors
    /// [`HubError`]
    pub(crate) async fn tree(&self, folder: &str, below: bool) -> Result<Vec<TreeEntry>, HubError> {
        let parts = ["tree", self.commit().await?].into_iter().chain(folder.split('/').filter(|p| !p.is_empty()));
        let mut url = self.address(&self.place.api(), &parts.collect::<Vec<_>>());
        url.query_pairs_mut().append_pair("recursive", if below { "true" } else { "false" });
        let mut all = Vec::new();
        loop {
            let (entries, next) = self.json::<Vec<TreeEntry>>(&url).await?;
            all.extend(entries);
            let Some(next) = next else { return Ok(all) };
            let next =
                url.join(&next).map_err(|e| HubError::Answer { url: url.to_string(), problem: e.to_string() })?;
            // The next page is of this listing, and not of another server.
            if next.origin() != self.endpoint.origin() || next == url {
                return Err(HubError::Answer { url: url.into(), problem: format!("its next page is {next}") });
            }
            url = next;
        }
    }

    async fn json<T: DeserializeOwned>(&self, url: &Url) -> Result<(T, Option<String>), HubError> {
        let answer = self.send(url, None).await?;
        let answer = self.checked(answer, url.path())?;
        let next = headers::next_page(answer.headers());
        let bytes = answer.bytes().await.map_err(|source| HubError::Broken { url: url.to_string(), source })?;
        let value = serde_json::from_slice(&bytes).map_err(|e| HubError::Answer {
            url: url.to_string(),
            problem: format!("not the JSON of the Hub's API: {e}"),
        })?;
        Ok((value, next))
    }

    /// The answer to a `GET` of a file, from wherever it lies.
    ///
    /// # Errors
    /// [`HubError`]; the answer may still be one of its own.
    pub(crate) async fn file(&self, path: &str, range: Option<&str>) -> Result<Response, HubError> {
        let known = self.elsewhere().get(path).cloned();
        if let Some(url) = known {
            let answer = self.send(&url, range).await?;
            if answer.status().is_success() || answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(answer);
            }
            // The signature has run out: the Hub makes another one.
            self.elsewhere().remove(path);
        }
        let parts = ["resolve", self.commit().await?].into_iter().chain(path.split('/'));
        let mut url = self.address(&self.place.page(), &parts.collect::<Vec<_>>());
        for _ in 0..REDIRECTS {
            let answer = self.send(&url, range).await?;
            if !answer.status().is_redirection() {
                if answer.status().is_success() && !self.is_own(&url) {
                    self.elsewhere().insert(path.to_owned(), url);
                }
                return Ok(answer);
            }
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let problem = || HubError::Answer { url: url.to_string(), problem: "a redirection to nowhere".into() };
            url = url.join(to.ok_or_else(problem)?).map_err(|_| problem())?;
        }
        Err(HubError::Answer { url: url.into(), problem: format!("more than {REDIRECTS} redirections") })
    }

    /// The answer if it is one; else what it says is wrong.
    ///
    /// # Errors
    /// [`HubError`]
    pub(crate) fn checked(&self, answer: Response, path: &str) -> Result<Response, HubError> {
        let (status, headers) = (answer.status(), answer.headers());
        if status.is_success() {
            return Ok(answer);
        }
        let (repo, revision) = (self.place.page(), self.place.revision.clone());
        let said = headers::error_message(headers);
        let who = if self.token.is_some() { "the owner of this token" } else { "somebody without a token" };
        let own = self.is_own(answer.url());
        Err(match (headers::error_code(headers), status.as_u16()) {
            ("GatedRepo", _) => HubError::Gated { repo, who, page: self.page(), said },
            ("RevisionNotFound", _) => HubError::NoRevision { repo, revision },
            ("EntryNotFound", _) => HubError::NoFile { repo, revision, path: path.to_owned() },
            ("RepoNotFound", _) | (_, 401 | 403) if own => HubError::NoAccess { repo, who, said },
            (_, 404) if own => HubError::NoFile { repo, revision, path: path.to_owned() },
            (_, 429) => HubError::Busy { waited: WAIT_MAX.as_secs() },
            (_, status) => HubError::Status { url: shown(answer.url()), status, said },
        })
    }

    /// Sends a `GET` until there is an answer that is no trouble of the moment.
    async fn send(&self, url: &Url, range: Option<&str>) -> Result<Response, HubError> {
        let (mut faults, mut waited) = (0, Duration::ZERO);
        loop {
            let mut request = self.http.get(url.clone());
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            if let Some(token) = self.token.as_ref().filter(|_| self.is_own(url)) {
                request = request.bearer_auth(token);
            }
            let sent = IO.spawn(request.send()).await;
            let sent =
                sent.map_err(|e| HubError::Answer { url: shown(url), problem: format!("its task ended: {e}") })?;
            let sent = sent.map_err(reqwest::Error::without_url);
            let usual = PAUSE * 2u32.pow(faults.min(8));
            let (pause, trouble) = match &sent {
                Ok(answer) if answer.status().as_u16() == 429 => {
                    (headers::wait(answer.headers()).unwrap_or(usual), answer.status().to_string())
                }
                Ok(answer) if answer.status().is_server_error() && faults < FAULTS => {
                    (usual, answer.status().to_string())
                }
                // A connection that was kept and is gone, or one that broke.
                Err(error) if !error.is_connect() && faults < FAULTS => (usual, error.to_string()),
                Ok(_) | Err(_) => (Duration::ZERO, String::new()),
            };
            faults += 1;
            waited += pause.max(PAUSE);
            if trouble.is_empty() || waited > WAIT_MAX {
                let url = url.origin().ascii_serialization();
                return sent.map_err(|source| HubError::Unreachable { url, source });
            }
            tracing::warn!(url = shown(url), trouble, pause_s = pause.as_secs_f64(), "no answer yet, trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether an address is the Hub's own.
    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    fn elsewhere(&self) -> std::sync::MutexGuard<'_, HashMap<String, Url>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
