//! Against a metadata service on loopback that answers as a test's script says.

use super::*;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Far longer than any of these tests takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// One request, as it came.
#[derive(Debug, Clone)]
struct HttpRequest {
    line: String,
    headers: HashMap<String, String>,
}

impl HttpRequest {
    fn has(&self, name: &str, value: &str) -> bool {
        self.headers.get(name).is_some_and(|v| v == value)
    }
}

enum HttpReply {
    Say(u16, String),
    Hang,
}

fn say(status: u16, text: &str) -> HttpReply {
    HttpReply::Say(status, text.into())
}

type Script = Arc<dyn Fn(&HttpRequest, usize) -> HttpReply + Send + Sync>;

/// A service that answers by its script, given the request and how many of its path came before.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<HttpRequest>>>,
    accepting: JoinHandle<()>,
}

impl Server {
    async fn start(script: impl Fn(&HttpRequest, usize) -> HttpReply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), Arc::new(script)).await
    }

    async fn start_at(address: SocketAddr, script: Script) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { address, asked, accepting }
    }

    async fn stop(self) -> SocketAddr {
        self.accepting.abort();
        let ended = self.accepting.await.expect_err("it accepts for ever");
        assert!(ended.is_cancelled());
        self.address
    }

    /// How many requests began with `line`.
    fn count(&self, line: &str) -> usize {
        self.asked.lock().expect("no panic").iter().filter(|asked| asked.line.starts_with(line)).count()
    }

    fn spec(&self, provider: SpotProvider) -> SpotSpec {
        SpotSpec { provider, url: format!("http://{}/", self.address), poll_ms: 1 }
    }

    fn metadata(&self, provider: SpotProvider) -> Metadata {
        Metadata::of(&self.spec(provider), DEADLINE).expect("somebody to ask")
    }

    async fn watch(&self, provider: SpotProvider) -> SpotNotice {
        tokio::time::timeout(DEADLINE, watch(&self.spec(provider))).await.expect("a notice in time")
    }
}

/// One request, one answer, goodbye.
async fn serve(mut stream: TcpStream, script: Script, log: Arc<Mutex<Vec<HttpRequest>>>) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8(bytes).expect("requests are ASCII");
    let mut lines = text.lines();
    let line = lines.next().expect("a request line").trim_end_matches(" HTTP/1.1").to_string();
    let headers = lines.filter_map(|l| l.split_once(": ")).map(|(k, v)| (k.to_ascii_lowercase(), v.into())).collect();
    let asked = HttpRequest { line, headers };
    let reply = {
        let mut log = log.lock().expect("no panic");
        let before = log.iter().filter(|other| other.line == asked.line).count();
        log.push(asked.clone());
        script(&asked, before)
    };
    match reply {
        HttpReply::Hang => pending().await,
        HttpReply::Say(status, text) => {
            let head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", text.len());
            // Who stops reading half-way hears no more.
            let _ = stream.write_all(format!("{head}{text}").as_bytes()).await;
        }
    }
}

const AWS_TOKEN: &str = "PUT /latest/api/token";
const AWS_ACTION: &str = "GET /latest/meta-data/spot/instance-action";
const AWS_NOTICE: &str = r#"{"action": "terminate", "time": "2026-03-01T08:22:00Z"}"#;
const GCP: &str = "GET /computeMetadata/v1/instance/preempted";
const AZURE_NAME: &str = "GET /metadata/instance/compute/name?api-version=2021-02-01&format=text";
const AZURE_EVENTS: &str = "GET /metadata/scheduledevents?api-version=2020-07-01";

/// EC2: tokens `t0`, `t1`, ..., of which `good` says which are good; a notice after `quiet` questions.
fn ec2(
    quiet: usize,
    good: impl Fn(&str, usize) -> bool + Send + Sync,
) -> impl Fn(&HttpRequest, usize) -> HttpReply + Send + Sync {
    move |asked, before| match asked.line.as_str() {
        AWS_TOKEN if asked.has("x-aws-ec2-metadata-token-ttl-seconds", "21600") => say(200, &format!("t{before}")),
        AWS_TOKEN => say(400, ""),
        AWS_ACTION => match asked.headers.get("x-aws-ec2-metadata-token") {
            Some(token) if good(token, before) && before < quiet => say(404, "<html>Not Found</html>"),
            Some(token) if good(token, before) => say(200, AWS_NOTICE),
            _ => say(401, ""),
        },
        other => panic!("unexpected question: {other}"),
    }
}

fn aws_notice() -> SpotNotice {
    SpotNotice { provider: SpotProvider::Aws, what: "terminate".into(), when: Some("2026-03-01T08:22:00Z".into()) }
}

#[tokio::test]
async fn ec2_gives_notice_to_who_holds_a_token() {
    let server = Server::start(ec2(3, |token, _| token == "t0")).await;
    assert_eq!(server.watch(SpotProvider::Aws).await, aws_notice());
    assert_eq!((server.count(AWS_TOKEN), server.count(AWS_ACTION)), (1, 4), "one token serves all questions");
}

#[tokio::test]
async fn an_expired_token_of_ec2_is_replaced_in_the_same_question() {
    let server = Server::start(ec2(9, |token, before| if before < 2 { token == "t0" } else { token == "t1" })).await;
    let mut metadata = server.metadata(SpotProvider::Aws);
    for _ in 0..4 {
        assert_eq!(metadata.ask().await.expect("an answer"), None);
    }
    assert_eq!((server.count(AWS_TOKEN), server.count(AWS_ACTION)), (2, 5), "one question was asked twice");
}

#[tokio::test]
async fn a_refused_token_is_trouble() {
    let server = Server::start(ec2(0, |_, _| false)).await;
    let trouble = server.metadata(SpotProvider::Aws).ask().await.expect_err("refused");
    assert_eq!(
        trouble.to_string(),
        format!(
            "http://{}/latest/meta-data/spot/instance-action answered 401 Unauthorized, expected 200 OK or 404 Not Found",
            server.address
        )
    );
}

#[tokio::test]
async fn compute_engine_gives_notice_to_who_names_the_flavor() {
    let server = Server::start(|asked, before| match asked.line.as_str() {
        GCP if asked.has("metadata-flavor", "Google") => say(200, if before < 3 { "FALSE\n" } else { "TRUE\n" }),
        _ => say(403, "Forbidden"),
    })
    .await;
    let notice = SpotNotice { provider: SpotProvider::Gcp, what: "preempted".into(), when: None };
    assert_eq!(server.watch(SpotProvider::Gcp).await, notice);
    assert_eq!(server.count(GCP), 4);
}

fn event(kind: &str, machine: &str, not_before: &str) -> String {
    format!(
        r#"{{"EventId": "e", "EventStatus": "Scheduled", "EventType": "{kind}", "ResourceType": "VirtualMachine",
            "Resources": ["fleet_0", "{machine}"], "NotBefore": "{not_before}", "DurationInSeconds": -1}}"#
    )
}

#[tokio::test]
async fn azure_gives_notice_of_the_events_that_take_this_machine() {
    let documents = [
        String::new(),
        event("Preempt", "fleet_2", "Mon, 11 Apr 2022 22:26:58 GMT"),
        event("Freeze", "fleet_1", "Mon, 11 Apr 2022 22:26:58 GMT"),
        [event("Reboot", "fleet_1", ""), event("Preempt", "FLEET_1", "Mon, 11 Apr 2022 22:27:28 GMT")].join(","),
        event("Terminate", "fleet_1", ""),
    ];
    let rounds = documents.len();
    let server = Server::start(move |asked, before| match asked.line.as_str() {
        _ if !asked.has("metadata", "true") => say(400, ""),
        AZURE_NAME => say(200, "fleet_1"),
        AZURE_EVENTS => say(200, &format!(r#"{{"DocumentIncarnation": 7, "Events": [{}]}}"#, documents[before])),
        other => panic!("unexpected question: {other}"),
    })
    .await;
    let mut metadata = server.metadata(SpotProvider::Azure);
    let mut heard = Vec::new();
    for _ in 0..rounds {
        heard.push(metadata.ask().await.expect("an answer"));
    }
    let notice = |what: &str, when: Option<&str>| {
        Some(SpotNotice { provider: SpotProvider::Azure, what: what.into(), when: when.map(String::from) })
    };
    let preempt = notice("Preempt", Some("Mon, 11 Apr 2022 22:27:28 GMT"));
    assert_eq!(heard, [None, None, None, preempt, notice("Terminate", None)]);
    assert_eq!(server.count(AZURE_NAME), 1, "a machine learns its name once");
}

#[tokio::test]
async fn answers_that_make_no_sense_are_trouble_and_are_asked_past() {
    let long = "a".repeat(1 << 20);
    let nonsense =
        ["", "{", "<html>proxy</html>", r#"{"action": 3}"#, r#"{"Events": [{"EventType": "Preempt"}]}"#, &long];
    for (provider, path, notice) in [
        (SpotProvider::Aws, AWS_ACTION, AWS_NOTICE.to_string()),
        (SpotProvider::Gcp, GCP, "TRUE".into()),
        (SpotProvider::Azure, AZURE_EVENTS, format!(r#"{{"Events": [{}]}}"#, event("Preempt", "t0", ""))),
    ] {
        let words: Vec<String> = nonsense.iter().map(|s| (*s).to_string()).collect();
        let script = move |asked: &HttpRequest, before: usize| match asked.line.as_str() {
            line if line == path && before < words.len() => say(200, &words[before]),
            line if line == path && before == words.len() => say(503, "busy"),
            line if line == path => say(200, &notice),
            _ => say(200, "t0"),
        };
        let server = Server::start(script).await;
        let mut metadata = server.metadata(provider);
        for word in nonsense {
            let trouble = metadata.ask().await.expect_err("nonsense");
            assert_eq!(trouble.kind(), metadata::TroubleKind::Garbage, "{provider:?} {word:.80}");
            assert!(trouble.to_string().len() < 400, "{trouble}");
        }
        assert_eq!(server.watch(provider).await.provider, provider);
        assert_eq!(server.count(path), nonsense.len() + 2, "the busy answer was asked past too");
    }
}

#[tokio::test]
async fn a_token_or_a_name_that_is_none_is_trouble() {
    let server = Server::start(|_, _| say(200, " \r\n ")).await;
    for provider in [SpotProvider::Aws, SpotProvider::Azure] {
        let trouble = server.metadata(provider).ask().await.expect_err("blank");
        assert_eq!(trouble.kind(), metadata::TroubleKind::Garbage, "{provider:?}");
    }
}

#[tokio::test]
async fn a_service_that_hangs_is_asked_again() {
    let server = Server::start(|_, before| if before < 2 { HttpReply::Hang } else { say(200, "TRUE") }).await;
    let spec = server.spec(SpotProvider::Gcp);
    let watched = watch_within(&spec, Duration::from_millis(100));
    let notice = tokio::time::timeout(DEADLINE, watched).await.expect("a notice in time");
    assert_eq!(notice.what, "preempted");
    assert!(server.count(GCP) >= 3, "two questions hung");
}

#[tokio::test]
async fn a_service_may_go_and_come_back() {
    let script: Script = Arc::new(|_, _| say(200, "FALSE"));
    let server = Server::start_at("127.0.0.1:0".parse().expect("an address"), script).await;
    let mut metadata = server.metadata(SpotProvider::Gcp);
    assert_eq!(metadata.ask().await.expect("an answer"), None);
    let address = server.stop().await;
    let trouble = metadata.ask().await.expect_err("gone");
    assert_eq!(trouble.kind(), metadata::TroubleKind::Silent, "{trouble}");
    let _back = Server::start_at(address, Arc::new(|_, _| say(200, "TRUE"))).await;
    assert_eq!(metadata.ask().await.expect("an answer").expect("a notice").what, "preempted");
}

#[tokio::test]
async fn without_a_provider_nobody_is_asked() {
    let server = Server::start(|_, _| say(200, "TRUE")).await;
    let spec = server.spec(SpotProvider::None);
    assert!(futures::poll!(std::pin::pin!(watch(&spec))).is_pending());
    assert!(Metadata::of(&spec, DEADLINE).is_none());
    assert_eq!(server.count(""), 0);
}

#[test]
fn the_log_hears_of_changes_alone() {
    let garbage = |found: &str| Err(Trouble::Garbage { url: "u".into(), found: found.into(), expected: "e" });
    let status = |found: u16| {
        let found = reqwest::StatusCode::from_u16(found).expect("a status");
        Err(Trouble::Status { url: "u".into(), found, expected: "e" })
    };
    let notice = Ok(Some(SpotNotice { provider: SpotProvider::Gcp, what: "w".into(), when: None }));
    let script = [
        (Ok(None), News::Nothing),
        (garbage("a"), News::Trouble),
        (garbage("b"), News::Nothing),
        (status(503), News::Trouble),
        (status(503), News::Nothing),
        (status(500), News::Trouble),
        (Ok(None), News::Recovered),
        (Ok(None), News::Nothing),
        (garbage("a"), News::Trouble),
        (notice, News::Notice),
    ];
    let mut hearing = Hearing::default();
    for (round, (answer, news)) in script.into_iter().enumerate() {
        assert_eq!(hearing.hear(&answer), news, "round {round}: {answer:?}");
    }
}
