//! What goes wrong with servers of models.

use super::StandInConfig;
use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode, header};
use pixfleet_cluster::rng;
use std::time::Duration;

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TroubleKind {
    /// The connection breaks in the middle of the answer.
    Dies,
    /// Nothing comes for longer than anybody waits.
    Stalls,
    /// 429 with `Retry-After`.
    TooMany,
    /// 500.
    Fails,
    /// 200, and bytes that are no JSON.
    Garbage,
    /// An answer that is not what was asked for.
    OutsideTheSchema,
}

/// All but the last are of the server, not of the model.
const OF_THE_SERVER: [TroubleKind; 5] =
    [TroubleKind::Dies, TroubleKind::Stalls, TroubleKind::TooMany, TroubleKind::Fails, TroubleKind::Garbage];

/// Who gets trouble, by the seed.
#[derive(Debug)]
pub(super) struct Trouble {
    config: StandInConfig,
}

impl Trouble {
    pub(super) fn new(config: StandInConfig) -> Self {
        Self { config }
    }

    fn unit(&self, parts: &[u64]) -> f64 {
        let key = parts.iter().fold(self.config.seed, |key, part| rng::key(&[key, *part]));
        (key >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Trouble for request `number`.
    pub(super) fn of(&self, number: u64) -> Option<TroubleKind> {
        if self.unit(&[1, number]) >= self.config.trouble {
            return None;
        }
        let at = self.unit(&[2, number]) * OF_THE_SERVER.len() as f64;
        OF_THE_SERVER.get(at as usize).copied()
    }

    /// Other words than those asked for: to the first try of some questions, and to both tries of few.
    pub(super) fn outside_the_schema(&self, key: u64, again: bool, wants_json: bool) -> Option<String> {
        let share = self.config.outside * if again { 0.1 } else { 1.0 };
        let words = if wants_json { "Of course! I would say that they agree." } else { "  " };
        (self.unit(&[3, key]) < share).then(|| words.to_owned())
    }
}

/// Makes the trouble.
pub(super) async fn make(kind: TroubleKind) -> Response<Body> {
    let mut response = match kind {
        TroubleKind::Dies => {
            let pieces: [Result<Bytes, std::io::Error>; 2] =
                [Ok(Bytes::from_static(b"{\"choices\": [")), Err(std::io::Error::other("gone"))];
            Response::new(Body::from_stream(tokio_stream::iter(pieces)))
        }
        TroubleKind::Stalls => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Response::new(Body::empty())
        }
        TroubleKind::TooMany => Response::new(Body::from("slow down")),
        TroubleKind::Fails => Response::new(Body::from("out of memory")),
        TroubleKind::Garbage => Response::new(Body::from(vec![0xff; 300])),
        TroubleKind::OutsideTheSchema => Response::new(Body::empty()),
    };
    match kind {
        TroubleKind::TooMany => {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("0.2"));
        }
        TroubleKind::Fails => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        TroubleKind::Dies | TroubleKind::Stalls | TroubleKind::Garbage | TroubleKind::OutsideTheSchema => {}
    }
    response
}
