//! One POST of JSON, with what the answer means for the server, for the question, and for when to ask again.

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// Bytes of an answer that are read; masks of a picture with many regions are the longest.
const BYTES_MAX: usize = 32 << 20;
/// Characters of a server's words that are told.
const SHOWN: usize = 300;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The server has too much to do; it may say for how long.
    Busy(Option<Duration>),
    /// It did not answer in time.
    Slow,
    /// Nobody there, a broken connection, a fault of the server, bytes that are no JSON: another try may do.
    Down(String),
    /// It does not serve us: no key, no such model.
    Refused(String),
    /// It does not serve this question: asking again would be the same.
    Rejected(String),
}

/// Posts `body` and reads the JSON that comes back.
pub(crate) async fn post(
    client: &Client,
    url: &str,
    key: Option<&str>,
    body: &Value,
    timeout: Duration,
) -> Result<Value, Trouble> {
    let request = client.post(url).timeout(timeout).header("content-type", "application/json").body(body.to_string());
    let request = match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    let response = request.send().await.map_err(trouble)?;
    let (status, wait) = (response.status(), retry_after(&response));
    let bytes = read(response).await?;
    if status.is_success() {
        return serde_json::from_slice(&bytes)
            .map_err(|e| Trouble::Down(format!("an answer that is no JSON ({e}): {}", start(&bytes))));
    }
    let said = format!("{status}: {}", start(&bytes));
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Trouble::Busy(wait),
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Trouble::Slow,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Trouble::Refused(said),
        status if status.is_client_error() => Trouble::Rejected(said),
        _ => Trouble::Down(said),
    })
}

async fn read(mut response: Response) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(trouble)? {
        if bytes.len() + chunk.len() > BYTES_MAX {
            return Err(Trouble::Down(format!("an answer of more than {} MiB", BYTES_MAX >> 20)));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn trouble(error: reqwest::Error) -> Trouble {
    if error.is_timeout() {
        return Trouble::Slow;
    }
    // reqwest says only what it did; the reason is further down.
    let mut words = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    Trouble::Down(words)
}

/// Seconds of `Retry-After`; servers of models do not send the form with a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: f64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    (seconds.is_finite() && seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(3600.0)))
}

fn start(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str(" ...");
    }
    shown
}
