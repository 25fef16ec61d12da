//! The store: create-only objects. What is asked of it may take effect and be answered at once or late, may fail, and
//! may fail in the answer alone.

use super::clock::Dice;
use super::world::{CoordinatorId, ToCoordinator, What, World};
use crate::Manifest;
use crate::create::{Answer, Ask};
use crate::ids::{Generation, Step};
use crate::lead::Request;
use crate::run::Now;
use std::collections::BTreeMap;
use std::time::Duration;

/// Written by the leader that ends the run.
pub(super) const CLOSED: &str = "closed";

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) objects: BTreeMap<String, Vec<u8>>,
    pub(super) dice: Dice,
    pub(super) down_until: Now,
    pub(super) slow_until: Now,
    pub(super) flaky_until: Now,
}

/// A put on its way.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) by: CoordinatorId,
    pub(super) key: String,
    pub(super) body: Vec<u8>,
    /// Whom to answer, and after how long.
    pub(super) answer: Option<(Request, Duration)>,
}

/// What becomes of an ask.
enum AskFate {
    Well,
    Refused,
    /// It takes effect, but the answer is a failure.
    AnswerLost,
    /// The answer is a failure, and later it takes effect.
    Late,
}

impl Store {
    pub(super) fn new(seed: u64) -> Self {
        let (down_until, slow_until, flaky_until) = (Now::ZERO, Now::ZERO, Now::ZERO);
        Self { objects: BTreeMap::new(), dice: Dice::new(seed, &[2]), down_until, slow_until, flaky_until }
    }

    pub(super) fn is_down(&self, now: Now) -> bool {
        now < self.down_until
    }

    pub(super) fn latency(&mut self, now: Now) -> Duration {
        if now < self.slow_until { self.dice.ms(500..=15_000) } else { self.dice.ms(5..=80) }
    }

    fn fate(&mut self, now: Now) -> AskFate {
        let draw = self.dice.below(100);
        match draw {
            0..60 if self.is_down(now) => AskFate::Refused,
            60..80 if self.is_down(now) => AskFate::AnswerLost,
            _ if self.is_down(now) => AskFate::Late,
            0..15 if now < self.flaky_until => AskFate::Refused,
            15..30 if now < self.flaky_until => AskFate::AnswerLost,
            30..40 if now < self.flaky_until => AskFate::Late,
            _ => AskFate::Well,
        }
    }

    /// The bodies of the ledger's segments, in order.
    pub(super) fn segments(&self) -> Vec<&[u8]> {
        self.objects.range("ledger/".to_owned().."ledger0".to_owned()).map(|(_, body)| &body[..]).collect()
    }

    /// What manifests there are.
    pub(super) fn manifests(&self) -> Vec<(Step, Generation)> {
        let keys = self.objects.range("manifests/".to_owned().."manifests0".to_owned());
        keys.filter_map(|(key, _)| Manifest::parse_key(key)).collect()
    }

    /// The coordinator that announced itself last.
    pub(super) fn newest_leader(&self) -> Option<CoordinatorId> {
        let (_, body) = self.objects.range("leaders/".to_owned().."leaders0".to_owned()).next_back()?;
        std::str::from_utf8(body).ok()?.parse().ok().map(CoordinatorId)
    }

    pub(super) fn leader_key(leader: u64) -> String {
        format!("leaders/{leader:020}")
    }
}

impl World {
    /// A coordinator asks.
    pub(super) fn ask(&mut self, by: CoordinatorId, request: Request, ask: Ask) {
        let now = self.now;
        let there = now + self.store.latency(now);
        let back = self.store.latency(there);
        let failed = Answer::Failed { retry: true, message: "503 or a time-out".into() };
        let answered = |answer| What::Coordinator(by, ToCoordinator::Answered(request, answer));
        let fate = self.store.fate(now);
        let (key, body) = match ask {
            Ask::Create { key, body } => (key, body),
            Ask::Read { .. } if !matches!(fate, AskFate::Well) => {
                return self.queue.push(there + back, answered(failed));
            }
            Ask::Read { key } => {
                let body = self.store.objects.get(&key).cloned();
                let answer = body.map_or(failed, Answer::Body);
                return self.queue.push(there + back, answered(answer));
            }
        };
        let put = |answer| What::Put(Put { by, key, body, answer });
        match fate {
            AskFate::Well => self.queue.push(there, put(Some((request, back)))),
            AskFate::Refused => self.queue.push(there + back, answered(failed)),
            AskFate::AnswerLost => {
                self.queue.push(there, put(None));
                self.queue.push(there + back, answered(failed));
            }
            AskFate::Late => {
                let late = there + back + self.store.dice.ms(10..=20_000);
                self.queue.push(there + back, answered(failed));
                self.queue.push(late, put(None));
            }
        }
    }

    /// A put takes effect, whether or not its writer still lives.
    pub(super) fn put(&mut self, put: Put) {
        let Put { by, key, body, answer } = put;
        let taken = self.store.objects.contains_key(&key);
        if !taken {
            self.log(|| format!("store: {key} by {by}"));
            self.judge_object(by, &key, &body);
            self.store.objects.insert(key, body);
        } else {
            self.log(|| format!("store: {key} by {by} is taken"));
        }
        if let Some((request, after)) = answer {
            let answer = if taken { Answer::Exists } else { Answer::Created };
            let answer = self.habits.answer(request, answer);
            self.queue.push(self.now + after, What::Coordinator(by, ToCoordinator::Answered(request, answer)));
        }
    }
}
