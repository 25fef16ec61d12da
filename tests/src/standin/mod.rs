//! A stand-in for models that see: it speaks the chat-completions protocol and a segmenter's, knows mini-LongGRIT's regions by the
//! hash of the picture that it is shown, answers from what the composer wrote, wrong at a chosen rate, and makes trouble at
//! another. It counts what it did, so that nobody need believe the client.

mod finehard;
mod judge;
mod recipe;
mod scenes;
mod strip;
mod trouble;

pub use recipe::recipe;
pub use scenes::Planted;
pub use strip::{read, strip};
pub use trouble::TroubleKind;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode, Uri};
use axum::routing::post;
use judge::Judge;
use scenes::Scenes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use trouble::Trouble;

/// What to be.
#[derive(Debug, Clone, Copy)]
pub struct StandInConfig {
    /// Of all choices.
    pub seed: u64,
    /// Share of regions about which one of both answers is wrong.
    pub wrong: f64,
    /// Share of requests that get trouble instead of an answer.
    pub trouble: f64,
    /// Share of questions whose first answer is not what was asked for; of a tenth of these neither is the second.
    pub outside: f64,
}

/// What was done so far.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// Requests.
    pub requests: u64,
    /// How often each question was answered as it should be, by its hash.
    pub answers: BTreeMap<String, u64>,
    /// Trouble made, by kind.
    pub troubles: BTreeMap<TroubleKind, u64>,
    /// Regions about which a wrong answer was given, by `image_id` and place, and what was wrong.
    pub planted: BTreeMap<(String, usize), Planted>,
}

/// A request that got no trouble.
#[derive(Debug, Clone)]
pub struct ServedCall {
    /// Who asked, by the address that it asked at ([`StandIn::address_of`]).
    pub who: String,
    /// The question, by its hash.
    pub question: String,
    /// When it came.
    pub asked: Instant,
    /// When it was answered; `None` while it is under way, and where whoever asked was gone by then.
    pub answered: Option<Instant>,
}

/// A running stand-in.
pub struct StandIn {
    /// `http://127.0.0.1:PORT/v1`
    pub url: String,
    served: Arc<Mutex<Served>>,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    scenes: Scenes,
    judge: Judge,
    trouble: Trouble,
    served: Arc<Mutex<Served>>,
    calls: Mutex<Vec<ServedCall>>,
    latency_us: AtomicU64,
}

impl StandIn {
    /// Reads the scenes of `split` of the dataset at `data` and serves on a free port.
    pub async fn start(data: &str, split: &str, config: StandInConfig) -> anyhow::Result<Self> {
        let scenes = Scenes::load(data, split, config).await?;
        let served = Arc::new(Mutex::new(Served::default()));
        let judge = Judge::new(scenes.categories());
        let trouble = Trouble::new(config);
        let (calls, latency_us) = (Mutex::default(), AtomicU64::new(0));
        let shared = Arc::new(Shared { scenes, judge, trouble, served: Arc::clone(&served), calls, latency_us });
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/{who}/v1/chat/completions", post(chat))
            .route("/v1/segment", post(segment))
            .route("/{who}/v1/segment", post(segment))
            .route("/v1/detect", post(detect))
            .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the stand-in ended");
            }
        });
        Ok(Self { url, served, shared, task })
    }

    /// Counts so far.
    pub fn served(&self) -> Served {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As `url`, for `who` alone: its requests can be told from others'.
    pub fn address_of(&self, who: &str) -> String {
        self.url.replace("/v1", &format!("/{who}/v1"))
    }

    /// The requests so far, in the order in which they came.
    pub fn calls(&self) -> Vec<ServedCall> {
        self.shared.calls().clone()
    }

    /// From now on an answer takes so long.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.latency_us.store(latency.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn chat(State(shared): State<Arc<Shared>>, uri: Uri, body: Bytes) -> Response<Body> {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else { return refused("the request is no JSON") };
    let messages = request["messages"].as_array().cloned().unwrap_or_default();
    // What follows an assistant's words is a second try at the same question.
    let first: Vec<&Value> = messages.iter().take_while(|m| m["role"] != "assistant").collect();
    let again = first.len() < messages.len();
    let key = pixfleet_cluster::rng::key(&[fold(&json!(first).to_string())]);
    if let Some(trouble) = shared.made().await {
        return trouble;
    }
    let call = shared.begin(&uri, key).await;
    let Some(user) = first.last().map(|m| m["content"].clone()) else { return refused("no messages") };
    let said = match shared.answer(&user) {
        Some(said) => said,
        None => return refused("nobody taught the stand-in this question"),
    };
    let wants_json = !request["response_format"].is_null();
    if let Some(words) = shared.trouble.outside_the_schema(key, again, wants_json) {
        shared.serve(|served| *served.troubles.entry(TroubleKind::OutsideTheSchema).or_default() += 1);
        return completion(&words);
    }
    shared.answered(call, key);
    completion(&said)
}

async fn segment(State(shared): State<Arc<Shared>>, uri: Uri, body: Bytes) -> Response<Body> {
    let masks = |request: &Value| {
        Some(json!({"masks": shared.scenes.masks(request["image"].as_str()?, request["boxes"].as_array()?)?}))
    };
    plug(&shared, &uri, &body, masks).await
}

async fn detect(State(shared): State<Arc<Shared>>, uri: Uri, body: Bytes) -> Response<Body> {
    let boxes = |request: &Value| {
        let phrases: Vec<&str> = request["phrases"].as_array()?.iter().filter_map(Value::as_str).collect();
        shared.scenes.detect(request["image"].as_str()?, &phrases)
    };
    plug(&shared, &uri, &body, boxes).await
}

async fn plug(
    shared: &Shared,
    uri: &Uri,
    body: &Bytes,
    answer: impl FnOnce(&Value) -> Option<Value>,
) -> Response<Body> {
    let Ok(request) = serde_json::from_slice::<Value>(body) else { return refused("the request is no JSON") };
    let key = pixfleet_cluster::rng::key(&[fold(&request.to_string())]);
    if let Some(trouble) = shared.made().await {
        return trouble;
    }
    let call = shared.begin(uri, key).await;
    let Some(said) = answer(&request) else { return refused("nobody showed the stand-in this picture") };
    shared.answered(call, key);
    reply(StatusCode::OK, &said)
}

impl Shared {
    fn serve(&self, change: impl FnOnce(&mut Served)) {
        change(&mut self.served.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Vec<ServedCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request, and thinks about it; its place among the calls.
    async fn begin(&self, uri: &Uri, key: u64) -> usize {
        let who = uri.path().split_once("/v1/").map_or("", |(before, _)| before.trim_start_matches('/')).to_owned();
        let call = {
            let mut calls = self.calls();
            calls.push(ServedCall { who, question: format!("{key:016x}"), asked: Instant::now(), answered: None });
            calls.len() - 1
        };
        let latency = Duration::from_micros(self.latency_us.load(Ordering::Relaxed));
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        call
    }

    fn answered(&self, call: usize, key: u64) {
        self.calls()[call].answered = Some(Instant::now());
        self.serve(|served| *served.answers.entry(format!("{key:016x}")).or_default() += 1);
    }

    /// Trouble instead of an answer, if it is this request's turn.
    async fn made(&self) -> Option<Response<Body>> {
        let mut number = 0;
        self.serve(|served| {
            served.requests += 1;
            number = served.requests;
        });
        let kind = self.trouble.of(number)?;
        self.serve(|served| *served.troubles.entry(kind).or_default() += 1);
        Some(trouble::make(kind).await)
    }

    fn answer(&self, user: &Value) -> Option<String> {
        match user {
            Value::Array(parts) => {
                let image = parts.iter().find_map(|part| part["image_url"]["url"].as_str())?;
                let (said, planted) = self.scenes.see(image)?;
                if let Some((place, planted)) = planted {
                    self.serve(|served| {
                        served.planted.insert(place, planted);
                    });
                }
                Some(said)
            }
            Value::String(words) => self.judge.answer(words).or_else(|| self.scenes.finehard.answer(words)),
            _ => None,
        }
    }
}

/// A number that stands for a text.
fn fold(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn completion(words: &str) -> Response<Body> {
    let tokens = words.split_whitespace().count();
    reply(
        StatusCode::OK,
        &json!({
            "object": "chat.completion",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": words}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens},
        }),
    )
}

fn refused(why: &str) -> Response<Body> {
    reply(StatusCode::BAD_REQUEST, &json!({"error": {"message": why}}))
}

fn reply(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response
}
