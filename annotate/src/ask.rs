//! A question, once: from the store if it was answered before, else from a server; an answer outside the schema is asked for
//! once more.

use crate::answers::{Answers, Kept, KeptOutcome, Key, now};
use crate::chat::{self, Reply};
use crate::error::AnnotateError;
use crate::pool::{Asked, Pool};
use crate::tally::Tallying;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::OnceCell;

/// A question that is ready to be sent.
pub(crate) struct Question<'q> {
    pub(crate) stage: &'q str,
    pub(crate) pool: &'q Pool,
    pub(crate) path: &'q str,
    pub(crate) key: Key,
    /// The digest of its template, or what kind of plug is asked.
    pub(crate) template: &'q str,
    pub(crate) body: Value,
    /// Whether the answer is a completion, which costs tokens and can be repaired.
    pub(crate) is_chat: bool,
    /// Whether an answer can be used; else what is wrong with it.
    pub(crate) usable: &'q (dyn Fn(&str) -> Result<(), String> + Send + Sync),
}

/// Asks, and remembers what is being asked in this process, so that two rows with one question ask it once.
#[derive(Debug)]
pub(crate) struct Asker {
    answers: Answers,
    asking: Mutex<HashMap<Key, Arc<OnceCell<Kept>>>>,
    tallying: Arc<Tallying>,
}

impl Asker {
    pub(crate) fn new(answers: Answers, tallying: Arc<Tallying>) -> Self {
        Self { answers, asking: Mutex::default(), tallying }
    }

    pub(crate) async fn ask(&self, question: Question<'_>) -> Result<Kept, AnnotateError> {
        let key = question.key;
        let cell = Arc::clone(self.asking().entry(key).or_default());
        let mut fresh = false;
        let kept = cell
            .get_or_try_init(|| async {
                if let Some(kept) = self.answers.get(key).await? {
                    return Ok::<_, AnnotateError>(kept);
                }
                fresh = true;
                let outcome = self.serve(&question).await?;
                let (model, template) = (question.pool.model().to_owned(), question.template.to_owned());
                Ok(self.answers.keep(key, Kept { model, template, at: now(), outcome }).await?)
            })
            .await
            .cloned();
        self.asking().remove(&key);
        let kept = kept?;
        self.tallying.stage(question.stage, |stage| {
            stage.questions += 1;
            stage.kept += u64::from(!fresh);
            stage.rejected += u64::from(matches!(kept.outcome, KeptOutcome::Rejected(_)));
        });
        Ok(kept)
    }

    /// Asks a server, twice if the first answer cannot be used.
    async fn serve(&self, question: &Question<'_>) -> Result<KeptOutcome, AnnotateError> {
        let first = match self.send(question, &question.body).await? {
            Ok(reply) => reply,
            Err(rejected) => return Ok(KeptOutcome::Rejected(rejected)),
        };
        let Err(problem) = usable(question, &first) else { return Ok(KeptOutcome::Answer(first.text)) };
        if !question.is_chat {
            return Ok(KeptOutcome::Rejected(problem));
        }
        let body = chat::again(question.body.clone(), &first.text, &problem);
        let second = match self.send(question, &body).await? {
            Ok(reply) => reply,
            Err(rejected) => return Ok(KeptOutcome::Rejected(rejected)),
        };
        if let Err(problem) = usable(question, &second) {
            return Ok(KeptOutcome::Rejected(format!("outside the schema twice: {problem}")));
        }
        self.tallying.stage(question.stage, |stage| stage.repaired += 1);
        Ok(KeptOutcome::Answer(second.text))
    }

    async fn send(&self, question: &Question<'_>, body: &Value) -> Result<Result<Reply, String>, AnnotateError> {
        let read = |value: &Value| if question.is_chat { chat::read(value).map(drop) } else { Ok(()) };
        let value = match question.pool.ask(question.path, body, read).await? {
            Asked::Answered(value) => value,
            Asked::Rejected(said) => return Ok(Err(said)),
        };
        let reply = match chat::read(&value) {
            Ok(reply) if question.is_chat => reply,
            _ => Reply { text: value.to_string(), cut: false, tokens_in: 0, tokens_out: 0 },
        };
        self.tallying.stage(question.stage, |stage| {
            stage.answered += 1;
            stage.tokens_in += reply.tokens_in;
            stage.tokens_out += reply.tokens_out;
            stage.cost += question.pool.cost(reply.tokens_in, reply.tokens_out);
        });
        Ok(Ok(reply))
    }

    fn asking(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<OnceCell<Kept>>>> {
        self.asking.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn usable(question: &Question<'_>, reply: &Reply) -> Result<(), String> {
    if reply.cut {
        return Err("it was cut at max_tokens; be shorter".into());
    }
    (question.usable)(&reply.text)
}
