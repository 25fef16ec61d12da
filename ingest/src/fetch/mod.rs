//! Pictures by their addresses, politely: so many requests a second to a host, as `robots.txt` allows, later when a server
//! says so or fails, and no more bytes than a picture has.

pub(crate) mod robots;

use crate::cell::Wrong;
use crate::error::IngestError;
use crate::pictures::PICTURE_MAX;
use crate::reject::RejectKind;
use bytes::Bytes;
use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use robots::Robots;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Bytes of a `robots.txt` that are read (RFC 9309 asks for 500 KiB at least).
const ROBOTS_MAX: u64 = 512 << 10;
/// Addresses that an address may lead to, one after the other.
const MOVES_MAX: u32 = 5;
/// Times that a server which fails is asked.
const TRIES: u32 = 5;
/// The longest wait that a server may ask for.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// How servers are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Politeness {
    /// Requests a second to one host.
    pub per_second: f64,
    /// Who a server's owner may write to; part of the `User-Agent`.
    pub contact: Option<String>,
    /// Time for one answer.
    pub timeout: Duration,
    /// The first wait after a failure; it doubles.
    pub backoff: Duration,
}

impl Default for Politeness {
    fn default() -> Self {
        let (timeout, backoff) = (Duration::from_secs(30), Duration::from_secs(1));
        Self { per_second: 2.0, contact: None, timeout, backoff }
    }
}

/// Asks servers.
#[derive(Debug)]
pub(crate) struct Fetcher {
    client: Client,
    politeness: Politeness,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// What is known of a host.
#[derive(Debug)]
struct Host {
    /// When the next request may go out.
    next: Mutex<Instant>,
    /// `None`: they could not be read, so nothing is asked for.
    robots: OnceCell<Option<Robots>>,
}

/// What came of a request that need not be repeated.
enum Answer {
    Bytes(Bytes),
    Moved(String),
}

impl Fetcher {
    pub(crate) fn new(politeness: &Politeness) -> Result<Self, IngestError> {
        if !(politeness.per_second.is_finite() && politeness.per_second > 0.0) {
            return Err(IngestError::Options("--fetch-rate: expected requests a second above 0".into()));
        }
        let version = env!("CARGO_PKG_VERSION");
        let agent = match &politeness.contact {
            Some(contact) => format!("{}/{version} (+{contact})", robots::NAME),
            None => format!("{}/{version}", robots::NAME),
        };
        let client = Client::builder().user_agent(agent).redirect(Policy::none()).timeout(politeness.timeout);
        let client = client.build().map_err(|e| IngestError::Options(format!("--fetch: {e}")))?;
        Ok(Self { client, politeness: politeness.clone(), hosts: Mutex::default() })
    }

    /// The bytes at an address.
    pub(crate) async fn get(&self, address: &str) -> Result<Bytes, Wrong> {
        let told = |kind, found: String, expected: &str| Wrong::new(kind, "image.url", found, expected);
        let mut url =
            Url::parse(address).map_err(|e| told(RejectKind::Field, format!("`{address}`: {e}"), "an address"))?;
        for _ in 0..=MOVES_MAX {
            let Some(name) = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")) else {
                return Err(told(RejectKind::Field, format!("`{url}`"), "an address with http or https"));
            };
            let host = self.host(&format!("{}://{name}:{}", url.scheme(), url.port_or_known_default().unwrap_or(0)));
            let robots = host.robots.get_or_init(|| self.robots(&host, &url)).await;
            let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
            match robots {
                None => return Err(told(RejectKind::Network, format!("no robots.txt of {name}"), "an answer")),
                Some(robots) if !robots.allows(&path) => {
                    return Err(told(RejectKind::Robots, url.to_string(), "an address that robots.txt allows"));
                }
                Some(_) => {}
            }
            match self.ask(&host, &url, PICTURE_MAX).await? {
                Answer::Bytes(bytes) => return Ok(bytes),
                Answer::Moved(to) => {
                    let moved = url.join(&to);
                    url = moved.map_err(|e| told(RejectKind::Status, format!("moved to `{to}`: {e}"), "an address"))?;
                }
            }
        }
        Err(told(RejectKind::Status, format!("{address} moved more than {MOVES_MAX} times"), "a picture"))
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Host { next: Mutex::new(Instant::now()), robots: OnceCell::new() });
        Arc::clone(hosts.entry(name.to_owned()).or_insert_with(new))
    }

    /// A host without the file allows all; one that fails to answer allows nothing.
    async fn robots(&self, host: &Host, of: &Url) -> Option<Robots> {
        let mut url = of.join("/robots.txt").ok()?;
        for _ in 0..=MOVES_MAX {
            match self.ask(host, &url, ROBOTS_MAX).await {
                Ok(Answer::Bytes(bytes)) => return Some(Robots::parse(&String::from_utf8_lossy(&bytes))),
                Ok(Answer::Moved(to)) => url = url.join(&to).ok()?,
                Err(wrong) if wrong.kind == RejectKind::Status => return Some(Robots::default()),
                Err(_) => return None,
            }
        }
        Some(Robots::default())
    }

    /// One request, repeated where another try may do.
    async fn ask(&self, host: &Host, url: &Url, most: u64) -> Result<Answer, Wrong> {
        let mut backoff = self.politeness.backoff;
        let mut last = Wrong::new(RejectKind::Network, "image.url", format!("{url}: not asked"), "an answer");
        for _ in 0..TRIES {
            self.turn(host).await;
            let wait = match self.client.get(url.clone()).send().await {
                Err(error) => {
                    last = network(url, &error);
                    None
                }
                Ok(response) => match answer(url, response, most).await {
                    Ok(answer) => return Ok(answer),
                    Err((wrong, None)) => return Err(wrong),
                    Err((wrong, Some(wait))) => {
                        last = wrong;
                        wait
                    }
                },
            };
            let wait = wait.unwrap_or(backoff);
            if wait > WAIT_MAX {
                return Err(last);
            }
            // Whoever else asks this host waits as well.
            let mut next = host.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next = (*next).max(Instant::now() + wait);
            backoff *= 2;
        }
        Err(last)
    }

    /// Waits for the turn of a request to `host`.
    async fn turn(&self, host: &Host) {
        let at = {
            let mut next = host.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            *next = at + Duration::from_secs_f64(1.0 / self.politeness.per_second);
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

/// What a response is; where another try may do, with the wait that the server asks for, if it does.
async fn answer(url: &Url, response: Response, most: u64) -> Result<Answer, (Wrong, Option<Option<Duration>>)> {
    let status = response.status();
    let told = |kind, expected: &str| Wrong::new(kind, "image.url", format!("{url}: {status}"), expected);
    if status.is_success() {
        return match body(response, most).await {
            Ok(Some(bytes)) => Ok(Answer::Bytes(bytes)),
            Ok(None) => {
                let found = format!("{url}: more than {most} bytes");
                Err((Wrong::new(RejectKind::PictureLarge, "image.url", found, "a picture within that"), None))
            }
            Err(error) => Err((network(url, &error), Some(None))),
        };
    }
    let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    if status.is_redirection()
        && let Some(to) = header(LOCATION)
    {
        return Ok(Answer::Moved(to));
    }
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let wait = header(RETRY_AFTER).and_then(|text| retry_after(&text));
            Err((told(RejectKind::Network, "an answer before the last try"), Some(wait)))
        }
        status if status.is_server_error() => Err((told(RejectKind::Network, "an answer"), Some(None))),
        _ => Err((told(RejectKind::Status, "a picture"), None)),
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(text: &str) -> Option<Duration> {
    let date = || httpdate::parse_http_date(text).ok()?.duration_since(std::time::SystemTime::now()).ok();
    text.trim().parse().ok().map(Duration::from_secs).or_else(date)
}

/// The body; `None` if it is longer than `most`.
async fn body(mut response: Response, most: u64) -> Result<Option<Bytes>, reqwest::Error> {
    if response.content_length().is_some_and(|length| length > most) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if (bytes.len() + chunk.len()) as u64 > most {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes.into()))
}

fn network(url: &Url, error: &reqwest::Error) -> Wrong {
    // reqwest says only what it did; the reason is further down.
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    Wrong::new(RejectKind::Network, "image.url", format!("{url}: {words}"), "an answer")
}

#[cfg(test)]
mod tests;
