//! The metadata services of EC2, Compute Engine and Azure: one question each, and what their answers mean.

use std::time::Duration;

use bytes::BytesMut;
use pixfleet_cluster::spec::{SpotProvider, SpotSpec};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Deserialize;

use super::SpotNotice;

/// The link-local address at which all three providers answer.
const ADDRESS: &str = "http://169.254.169.254";
/// Seconds that a token of EC2 is good for: the longest there is.
const AWS_TOKEN_TTL_S: &str = "21600";
/// No answer is nearly as long.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Of an answer that makes no sense, this much is shown.
const SHOWN_CHARS_MAX: usize = 80;

/// A question that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("no answer from {url}")]
    Silent {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url} answered {found}, expected {expected}")]
    Status { url: String, found: StatusCode, expected: &'static str },
    #[error("{url} answered `{found}`, expected {expected}")]
    Garbage { url: String, found: String, expected: &'static str },
}

/// Troubles of one kind are one trouble, whatever their words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TroubleKind {
    Silent,
    Status(StatusCode),
    Garbage,
}

impl Trouble {
    pub(super) fn kind(&self) -> TroubleKind {
        match self {
            Self::Silent { .. } => TroubleKind::Silent,
            Self::Status { found, .. } => TroubleKind::Status(*found),
            Self::Garbage { .. } => TroubleKind::Garbage,
        }
    }
}

/// An answer as it came.
struct HttpAnswer {
    url: String,
    status: StatusCode,
    text: String,
}

impl HttpAnswer {
    fn garbage(&self, expected: &'static str) -> Trouble {
        let found = self.text.chars().take(SHOWN_CHARS_MAX).collect();
        Trouble::Garbage { url: self.url.clone(), found, expected }
    }

    fn refused(self, expected: &'static str) -> Trouble {
        Trouble::Status { url: self.url, found: self.status, expected }
    }

    fn ok(self) -> Result<Self, Trouble> {
        if self.status == StatusCode::OK { Ok(self) } else { Err(self.refused("200 OK")) }
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, expected: &'static str) -> Result<T, Trouble> {
        serde_json::from_str(&self.text).map_err(|_| self.garbage(expected))
    }
}

/// A metadata service, and what it needs to be asked.
pub(super) struct Metadata {
    http: Http,
    service: Provider,
}

/// What was learned of a service so far.
enum Provider {
    Aws { token: Option<String> },
    Gcp,
    Azure { machine: Option<String> },
}

impl Metadata {
    /// The service of `spot.provider`; `None` if nobody is to be asked.
    pub(super) fn of(spot: &SpotSpec, answer_within: Duration) -> Option<Self> {
        let service = match spot.provider {
            SpotProvider::None => return None,
            SpotProvider::Aws => Provider::Aws { token: None },
            SpotProvider::Gcp => Provider::Gcp,
            SpotProvider::Azure => Provider::Azure { machine: None },
        };
        let base = if spot.url.is_empty() { ADDRESS } else { spot.url.trim_end_matches('/') };
        Some(Self { http: Http::new(base, answer_within), service })
    }

    /// Whether the machine is about to be taken back.
    pub(super) async fn ask(&mut self) -> Result<Option<SpotNotice>, Trouble> {
        match &mut self.service {
            Provider::Aws { token } => self.http.ask_aws(token).await,
            Provider::Gcp => self.http.ask_gcp().await,
            Provider::Azure { machine } => self.http.ask_azure(machine).await,
        }
    }
}

/// A client of plain HTTP on this machine: no proxy, redirect or certificate has a say.
struct Http {
    client: Client,
    base: String,
}

impl Http {
    fn new(base: &str, answer_within: Duration) -> Self {
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_only([])
            .timeout(answer_within)
            .build()
            .expect("without certificates, proxies and resolvers there is nothing to fail");
        Self { client, base: base.into() }
    }

    fn request(&self, method: Method, path: &str) -> (String, RequestBuilder) {
        let url = format!("{}{path}", self.base);
        let request = self.client.request(method, &url);
        (url, request)
    }

    /// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>
    async fn ask_aws(&self, token: &mut Option<String>) -> Result<Option<SpotNotice>, Trouble> {
        let known = match token {
            Some(known) => known,
            None => token.insert(self.aws_token().await?),
        };
        let mut answer = self.aws_action(known).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            // Tokens expire.
            *known = self.aws_token().await?;
            answer = self.aws_action(known).await?;
        }
        aws_notice(answer)
    }

    async fn aws_action(&self, token: &str) -> Result<HttpAnswer, Trouble> {
        let (url, request) = self.request(Method::GET, "/latest/meta-data/spot/instance-action");
        send(url, request.header("X-aws-ec2-metadata-token", token)).await
    }

    async fn aws_token(&self) -> Result<String, Trouble> {
        let (url, request) = self.request(Method::PUT, "/latest/api/token");
        let request = request.header("X-aws-ec2-metadata-token-ttl-seconds", AWS_TOKEN_TTL_S);
        let answer = send(url, request).await?.ok()?;
        let sound = !answer.text.is_empty() && answer.text.bytes().all(|b| b.is_ascii_graphic());
        if sound { Ok(answer.text) } else { Err(answer.garbage("a token")) }
    }

    /// <https://cloud.google.com/compute/docs/instances/create-use-spot>
    async fn ask_gcp(&self) -> Result<Option<SpotNotice>, Trouble> {
        let (url, request) = self.request(Method::GET, "/computeMetadata/v1/instance/preempted");
        gcp_notice(&send(url, request.header("Metadata-Flavor", "Google")).await?.ok()?)
    }

    /// <https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events>
    ///
    /// The first question of all enables the events of a machine, and its answer may take minutes: silence until then.
    async fn ask_azure(&self, machine: &mut Option<String>) -> Result<Option<SpotNotice>, Trouble> {
        let name = match machine {
            Some(name) => name,
            None => machine.insert(self.azure_name().await?),
        };
        let (url, request) = self.request(Method::GET, "/metadata/scheduledevents?api-version=2020-07-01");
        azure_notice(&send(url, request.header("Metadata", "true")).await?.ok()?, name)
    }

    /// Events of a scale set reach all its machines, so a machine must know its name.
    async fn azure_name(&self) -> Result<String, Trouble> {
        let path = "/metadata/instance/compute/name?api-version=2021-02-01&format=text";
        let (url, request) = self.request(Method::GET, path);
        let answer = send(url, request.header("Metadata", "true")).await?.ok()?;
        if answer.text.trim().is_empty() { Err(answer.garbage("the machine's name")) } else { Ok(answer.text) }
    }
}

async fn send(url: String, request: RequestBuilder) -> Result<HttpAnswer, Trouble> {
    let received = async {
        let mut response = request.send().await?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                break;
            }
        }
        Ok((response.status(), body))
    };
    match received.await {
        Ok((status, body)) => Ok(HttpAnswer { url, status, text: String::from_utf8_lossy(&body).into_owned() }),
        Err(source) => Err(Trouble::Silent { url, source }),
    }
}

fn aws_notice(answer: HttpAnswer) -> Result<Option<SpotNotice>, Trouble> {
    #[derive(Deserialize)]
    struct Action {
        action: String,
        time: String,
    }
    match answer.status {
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::OK => {
            let Action { action, time } = answer.json("{\"action\": ..., \"time\": ...}")?;
            Ok(Some(SpotNotice { provider: SpotProvider::Aws, what: action, when: Some(time) }))
        }
        _ => Err(answer.refused("200 OK or 404 Not Found")),
    }
}

fn gcp_notice(answer: &HttpAnswer) -> Result<Option<SpotNotice>, Trouble> {
    match answer.text.trim() {
        "FALSE" => Ok(None),
        "TRUE" => Ok(Some(SpotNotice { provider: SpotProvider::Gcp, what: "preempted".into(), when: None })),
        _ => Err(answer.garbage("TRUE or FALSE")),
    }
}

fn azure_notice(answer: &HttpAnswer, machine: &str) -> Result<Option<SpotNotice>, Trouble> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document {
        events: Vec<ScheduledEvent>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ScheduledEvent {
        event_type: String,
        resources: Vec<String>,
        /// Empty once the event has begun.
        #[serde(default)]
        not_before: String,
    }
    let document: Document = answer.json("{\"Events\": [{\"EventType\", \"Resources\", \"NotBefore\"}, ...]}")?;
    let takes_us = |event: &ScheduledEvent| {
        matches!(event.event_type.as_str(), "Preempt" | "Terminate")
            && event.resources.iter().any(|name| name.eq_ignore_ascii_case(machine.trim()))
    };
    Ok(document.events.into_iter().find(takes_us).map(|event| SpotNotice {
        provider: SpotProvider::Azure,
        what: event.event_type,
        when: Some(event.not_before).filter(|when| !when.is_empty()),
    }))
}
