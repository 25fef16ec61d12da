//! The machine of one create-only object: put it, try again while the store fails, and read back what lies there when
//! the answer says that the key is taken. A put whose answer got lost must not lose against itself: the body carries a
//! nonce, so one's own bytes are told from anybody else's.

use crate::run::Now;
use std::time::Duration;

const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What the store is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Put this if nothing is there.
    Create {
        /// Below `<store>/<run>/`.
        key: String,
        /// The object.
        body: Vec<u8>,
    },
    /// Say what is there.
    Read {
        /// Below `<store>/<run>/`.
        key: String,
    },
}

/// What the store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was put.
    Created,
    /// Something is there already.
    Exists,
    /// This is there.
    Body(Vec<u8>),
    /// Neither.
    Failed {
        /// Whether another attempt may go better.
        retry: bool,
        /// The store's words.
        message: String,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The object is there, and it is ours.
    Created,
    /// Somebody else's is.
    Rival(Vec<u8>),
    /// Nobody knows.
    Failed(String),
}

/// What follows an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This, now.
    Ask(Ask),
    /// [`Creation::tick`], at its deadline.
    Wait,
    /// Nothing.
    Over(Settled),
}

/// See the module.
#[derive(Debug)]
pub struct Creation {
    key: String,
    body: Vec<u8>,
    give_up: Now,
    pause: Duration,
    again: Option<Now>,
}

impl Creation {
    /// Begins with the first put. A store that fails for as long as `patience` is given up.
    #[must_use]
    pub fn begin(now: Now, patience: Duration, key: String, body: Vec<u8>) -> (Self, Ask) {
        let creation = Self { key, body, give_up: now + patience, pause: PAUSE_FIRST, again: None };
        let ask = creation.create();
        (creation, ask)
    }

    fn create(&self) -> Ask {
        Ask::Create { key: self.key.clone(), body: self.body.clone() }
    }

    /// Takes in the answer to the last ask.
    pub fn answered(&mut self, now: Now, answer: Answer) -> Next {
        match answer {
            Answer::Created => Next::Over(Settled::Created),
            Answer::Exists => Next::Ask(Ask::Read { key: self.key.clone() }),
            Answer::Body(body) if body == self.body => Next::Over(Settled::Created),
            Answer::Body(body) => Next::Over(Settled::Rival(body)),
            Answer::Failed { retry, message } if !retry || now + self.pause >= self.give_up => {
                Next::Over(Settled::Failed(format!("{}: {message}", self.key)))
            }
            Answer::Failed { .. } => {
                self.again = Some(now + self.pause);
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                Next::Wait
            }
        }
    }

    /// When [`Creation::tick`] must come.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        self.again
    }

    /// The next attempt, if its time has come.
    pub fn tick(&mut self, now: Now) -> Option<Ask> {
        self.again.filter(|&at| now >= at)?;
        self.again = None;
        Some(self.create())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(120);

    fn failed() -> Answer {
        Answer::Failed { retry: true, message: "503".into() }
    }

    #[test]
    fn a_put_whose_answer_got_lost_is_still_ours() {
        let (mut creation, ask) = Creation::begin(Now::ZERO, PATIENCE, "k".into(), b"mine".to_vec());
        assert_eq!(creation.answered(Now::ZERO, failed()), Next::Wait);
        assert_eq!(creation.tick(Now::ZERO), None);
        assert_eq!(creation.tick(PAUSE_FIRST), Some(ask));
        assert_eq!(creation.answered(PAUSE_FIRST, Answer::Exists), Next::Ask(Ask::Read { key: "k".into() }));
        let next = creation.answered(PAUSE_FIRST, Answer::Body(b"mine".to_vec()));
        assert_eq!(next, Next::Over(Settled::Created));
    }

    #[test]
    fn a_rival_is_known_by_its_bytes() {
        let (mut creation, _) = Creation::begin(Now::ZERO, PATIENCE, "k".into(), b"mine".to_vec());
        creation.answered(Now::ZERO, Answer::Exists);
        let next = creation.answered(Now::ZERO, Answer::Body(b"theirs".to_vec()));
        assert_eq!(next, Next::Over(Settled::Rival(b"theirs".to_vec())));
    }

    #[test]
    fn patience_ends() {
        let (mut creation, _) = Creation::begin(Now::ZERO, PATIENCE, "k".into(), Vec::new());
        let mut now = Now::ZERO;
        while creation.answered(now, failed()) == Next::Wait {
            now = creation.deadline().expect("it waits");
            assert!(creation.tick(now).is_some());
        }
        assert!(now > PATIENCE - PAUSE_MAX && now <= PATIENCE, "{now:?}");
        let refused = Answer::Failed { retry: false, message: "403".into() };
        let (mut creation, _) = Creation::begin(Now::ZERO, PATIENCE, "k".into(), Vec::new());
        assert_eq!(creation.answered(Now::ZERO, refused), Next::Over(Settled::Failed("k: 403".into())));
    }
}
