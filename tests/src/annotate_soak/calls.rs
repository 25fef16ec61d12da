//! What the server counted: whether a question was asked again although its answer was kept.

use crate::sharing::Killed;
use crate::standin::ServedCall;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Within which an answer that reached a living process is in the store.
const KEPT_WITHIN: Duration = Duration::from_secs(2);

/// The requests of the soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallCount {
    /// Different questions.
    pub(super) questions: usize,
    /// Requests that were made again since the first of its kind was under way when its process was killed.
    pub(super) again: usize,
    /// Requests that another process made while the same question was under way.
    pub(super) met: usize,
}

/// Counts `calls`; what a process is called is its number.
///
/// # Errors
/// If a question has no answer, or was asked although an answer of it was kept.
pub(super) fn count(calls: &[ServedCall], killed: &[Killed], number: impl Fn(&str) -> usize) -> Result<CallCount> {
    let died: BTreeMap<usize, Instant> = killed.iter().map(|k| (k.number, k.at)).collect();
    let mut by_question: BTreeMap<&str, Vec<&ServedCall>> = BTreeMap::new();
    for call in calls {
        by_question.entry(&call.question).or_default().push(call);
    }
    let mut counted = CallCount { questions: by_question.len(), again: 0, met: 0 };
    for (question, mut asked) in by_question {
        asked.sort_by_key(|call| call.asked);
        ensure!(asked.iter().any(|call| call.answered.is_some()), "question {question} was never answered");
        for (i, call) in asked.iter().enumerate().skip(1) {
            let mut lost = false;
            for before in &asked[..i] {
                let death = died.get(&number(&before.who));
                let kept = before.answered.map(|at| at + KEPT_WITHIN);
                let lived = kept.is_some_and(|kept| death.is_none_or(|&death| death > kept));
                ensure!(
                    !(lived && kept.is_some_and(|kept| kept < call.asked)),
                    "{} asked question {question} again though {} had kept its answer",
                    call.who,
                    before.who
                );
                lost |= !lived && death.is_some_and(|&death| death < call.asked);
            }
            counted.again += usize::from(lost);
            counted.met += usize::from(!lost);
        }
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(who: &str, asked: Instant, answered: Option<Instant>) -> ServedCall {
        ServedCall { who: who.into(), question: "q".into(), asked, answered }
    }

    #[test]
    fn an_answer_that_was_kept_may_not_be_asked_for_again() {
        let number = |who: &str| who.parse().unwrap_or(0);
        let (start, s) = (Instant::now(), Duration::from_secs);
        let first = call("1", start, Some(start + s(1)));
        let later = call("2", start + s(20), Some(start + s(21)));
        let death = |after| [Killed { pid: 7, number: 1, at: start + s(after) }];
        let both = [first.clone(), later.clone()];
        assert!(count(&both, &[], number).is_err(), "nobody died");
        assert!(count(&both, &death(10), number).is_err(), "it died long after");
        let again = CallCount { questions: 1, again: 1, met: 0 };
        assert_eq!(count(&both, &death(1), number).expect("in flight"), again);
        assert_eq!(count(&[call("1", start, None), later], &death(1), number).expect("in flight"), again);
        let beside = call("2", start + s(2), Some(start + s(3)));
        assert_eq!(count(&[first, beside], &[], number).expect("met"), CallCount { questions: 1, again: 0, met: 1 });
        assert!(count(&[call("1", start, None)], &[], number).is_err(), "no answer");
    }
}
