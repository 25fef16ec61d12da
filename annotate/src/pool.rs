//! The servers of one model: who is asked next, how much each may have under way, and who rests.
//!
//! Invariant: a question leaves [`Pool::ask`] answered, or rejected for a reason of its own, or with the job's end; trouble of a
//! server is never a question's.

use crate::error::AnnotateError;
use crate::http::{self, Trouble};
use crate::limit::Limit;
use crate::recipe::Server;
use reqwest::Client;
use serde_json::Value;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// First rest after trouble; it doubles with each.
const REST: Duration = Duration::from_millis(250);
const REST_MAX: Duration = Duration::from_secs(15);
/// Failures of one question, while others are answered, after which it is the question's own fault.
const TRIES: u32 = 8;

/// What became of a question.
#[derive(Debug)]
pub(crate) enum Asked {
    Answered(Value),
    /// In words why nobody will answer it.
    Rejected(String),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    name: String,
    server: Server,
    key: Option<String>,
    client: Client,
    addresses: Vec<Mutex<Address>>,
    freed: Notify,
    /// When anybody last answered anything, and what trouble was heard last.
    heard: Mutex<Heard>,
}

#[derive(Debug)]
struct Heard {
    last: Instant,
    answers: u64,
    trouble: String,
}

#[derive(Debug)]
struct Address {
    url: String,
    limit: Limit,
    under_way: u32,
    rests_until: Option<Instant>,
    /// Troubles since the last answer, and when the last one was.
    troubles: u32,
    troubled: Option<Instant>,
}

impl Pool {
    pub(crate) fn new(name: &str, server: &Server) -> Result<Self, AnnotateError> {
        let addresses = server.urls.iter().map(|url| {
            Mutex::new(Address {
                url: url.trim_end_matches('/').to_owned(),
                limit: Limit::new(server.most_in_flight),
                under_way: 0,
                rests_until: None,
                troubles: 0,
                troubled: None,
            })
        });
        Ok(Self {
            name: name.to_owned(),
            server: server.clone(),
            key: server.key_env.as_ref().and_then(|variable| std::env::var(variable).ok()),
            client: Client::builder().build().map_err(AnnotateError::Client)?,
            addresses: addresses.collect(),
            freed: Notify::new(),
            heard: Mutex::new(Heard { last: Instant::now(), answers: 0, trouble: "nothing".into() }),
        })
    }

    /// The model that answers.
    pub(crate) fn model(&self) -> &str {
        &self.server.model
    }

    /// What tokens cost.
    pub(crate) fn cost(&self, tokens_in: u64, tokens_out: u64) -> f64 {
        1e-6 * (tokens_in as f64 * self.server.price_in + tokens_out as f64 * self.server.price_out)
    }

    /// Requests that all addresses together may have under way at most.
    pub(crate) fn most(&self) -> usize {
        self.addresses.len() * self.server.most_in_flight as usize
    }

    /// Posts `body` to `path` at one address after another until it is answered. `read` says whether the answer is one.
    pub(crate) async fn ask(
        &self,
        path: &str,
        body: &Value,
        read: impl Fn(&Value) -> Result<(), String>,
    ) -> Result<Asked, AnnotateError> {
        let mut tries = 0;
        loop {
            let at = self.free().await?;
            let guard = UnderWay { pool: self, at };
            let url = format!("{}/{path}", self.lock(at).url);
            let started = Instant::now();
            let answered = http::post(&self.client, &url, self.key.as_deref(), body, self.server.timeout()).await;
            let answered = answered.and_then(|value| match read(&value) {
                Ok(()) => Ok(value),
                Err(problem) => Err(Trouble::Down(problem)),
            });
            drop(guard);
            let trouble = match answered {
                Ok(value) => {
                    self.answered(at, started.elapsed());
                    return Ok(Asked::Answered(value));
                }
                Err(Trouble::Rejected(said)) => {
                    self.answered(at, started.elapsed());
                    return Ok(Asked::Rejected(said));
                }
                Err(trouble) => trouble,
            };
            tracing::debug!(server = self.name, url, ?trouble, "no answer");
            tries += u32::from(!matches!(trouble, Trouble::Busy(_)));
            self.troubled(at, started, &url, &trouble)?;
            if tries >= TRIES && self.heard().last > started {
                return Ok(Asked::Rejected(format!("no answer in {TRIES} tries, the last: {}", words(&trouble))));
            }
        }
    }

    /// An address that may be asked; waits for one.
    async fn free(&self) -> Result<usize, AnnotateError> {
        loop {
            // Registered before looking, so that nothing that is freed in between goes unheard.
            let freed = self.freed.notified();
            let now = Instant::now();
            let mut best: Option<(f64, usize)> = None;
            let mut wakes: Option<Instant> = None;
            for at in 0..self.addresses.len() {
                let address = self.lock(at);
                match address.rests_until.filter(|&until| until > now) {
                    Some(until) => wakes = Some(wakes.map_or(until, |w| w.min(until))),
                    None if address.under_way < address.limit.get() => {
                        let load = f64::from(address.under_way) / f64::from(address.limit.get());
                        best = best.filter(|(least, _)| *least <= load).or(Some((load, at)));
                    }
                    None => {}
                }
            }
            if let Some((_, at)) = best {
                self.lock(at).under_way += 1;
                return Ok(at);
            }
            self.patience()?;
            let wait = wakes.map_or(REST_MAX, |until| until.saturating_duration_since(now));
            // Elapsed or freed: look again.
            let _ = tokio::time::timeout(wait.min(self.server.patience()), freed).await;
        }
    }

    fn answered(&self, at: usize, took: Duration) {
        let mut address = self.lock(at);
        address.limit.answered(took);
        (address.troubles, address.rests_until, address.troubled) = (0, None, None);
        drop(address);
        let mut heard = self.heard();
        (heard.last, heard.answers) = (Instant::now(), heard.answers + 1);
    }

    fn troubled(&self, at: usize, started: Instant, url: &str, trouble: &Trouble) -> Result<(), AnnotateError> {
        let mut address = self.lock(at);
        // One fall of a server shows in all requests that were under way, and is one trouble.
        if address.troubled.is_none_or(|last| last <= started) {
            address.troubles += 1;
            address.troubled = Some(Instant::now());
        }
        let rest = (REST * 2u32.saturating_pow(address.troubles.min(16) - 1)).min(REST_MAX);
        let rest = match trouble {
            Trouble::Busy(asked) => {
                address.limit.overloaded();
                asked.unwrap_or(rest)
            }
            Trouble::Slow => {
                address.limit.overloaded();
                rest
            }
            Trouble::Down(_) | Trouble::Refused(_) | Trouble::Rejected(_) => rest,
        };
        let until = Instant::now() + rest;
        address.rests_until = Some(address.rests_until.map_or(until, |before| before.max(until)));
        drop(address);
        let mut heard = self.heard();
        heard.trouble = words(trouble);
        let never_served = heard.answers == 0;
        drop(heard);
        if let Trouble::Refused(said) = trouble
            && never_served
            && self.addresses.len() == 1
        {
            return Err(AnnotateError::Refused { server: self.name.clone(), url: url.into(), said: said.clone() });
        }
        self.patience()
    }

    /// An error once nobody has answered for too long.
    fn patience(&self) -> Result<(), AnnotateError> {
        let heard = self.heard();
        let under_way = || (0..self.addresses.len()).any(|at| self.lock(at).under_way > 0);
        if heard.last.elapsed() < self.server.patience() || under_way() {
            return Ok(());
        }
        Err(AnnotateError::NoServer {
            server: self.name.clone(),
            urls: self.server.urls.join(", "),
            seconds: self.server.patience_s,
            last: heard.trouble.clone(),
        })
    }

    /// Begins to wait for the servers now.
    pub(crate) fn start(&self) {
        self.heard().last = Instant::now();
    }

    fn lock(&self, at: usize) -> std::sync::MutexGuard<'_, Address> {
        self.addresses[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn words(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Busy(_) => "too many requests".into(),
        Trouble::Slow => "no answer in time".into(),
        Trouble::Down(said) | Trouble::Refused(said) | Trouble::Rejected(said) => said.clone(),
    }
}

/// A request under way, also where whoever waits for it is gone.
struct UnderWay<'p> {
    pool: &'p Pool,
    at: usize,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.pool.lock(self.at).under_way -= 1;
        self.pool.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
