//! How many requests one server is asked to answer at the same time: additive increase while its answers come as fast as they
//! did, multiplicative decrease where they do not (as TCP's congestion window; Chiu and Jain 1989).

use std::time::Duration;

/// A smoothed time this many times the usual one tells that the server is full.
const SLOW: f64 = 2.0;
/// What is left of the limit after a sign of overload.
const CUT: f64 = 0.4;
/// Growth per round of answers, in parts of the limit; one request at least.
const GROW: f64 = 0.05;
/// How much the usual time may rise per round of answers, in parts of it: a server that became slower for good is used again,
/// and one that is slow because it is full is not mistaken for it within a few rounds.
const FORGET: f64 = 0.005;
/// Answers over which times are smoothed, at the least.
const SMOOTH: f64 = 10.0;

/// The limit of one server. Pure: it is told what happened and says how much may be under way.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    now: f64,
    most: f64,
    /// Seconds that an answer takes while the server is not full.
    usual: f64,
    /// Smoothed seconds of the latest answers.
    recent: Option<f64>,
    /// Answers that were under way at the last cut, or are still in the smoothed time: they tell of the limit before it.
    settle: u32,
}

impl Limit {
    /// Begins with two requests and goes up to `most`.
    pub(crate) fn new(most: u32) -> Self {
        let most = f64::from(most.max(1));
        Self { now: most.min(2.0), most, usual: f64::INFINITY, recent: None, settle: 0 }
    }

    /// Requests that may be under way.
    pub(crate) fn get(&self) -> u32 {
        self.now.floor().max(1.0) as u32
    }

    /// An answer came after `took`.
    pub(crate) fn answered(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        let settled = self.settled();
        let recent = self.recent.get_or_insert(took);
        *recent += (took - *recent) / self.now.max(SMOOTH);
        let recent = *recent;
        if settled && recent > SLOW * self.usual {
            self.cut();
        } else if settled {
            self.now = (self.now + (GROW * self.now).max(1.0) / self.now).min(self.most);
        }
        self.usual = recent.min(self.usual * (1.0 + FORGET / self.now));
    }

    /// The server refused for having too much to do, or did not answer in time.
    pub(crate) fn overloaded(&mut self) {
        if self.settled() {
            self.cut();
        }
    }

    /// Counts one request that ended; false while it tells of the limit before the last cut: one overload shows in all requests
    /// that were under way, and is one sign.
    fn settled(&mut self) -> bool {
        self.settle = self.settle.saturating_sub(1);
        self.settle == 0
    }

    fn cut(&mut self) {
        self.settle = (2.0 * self.now + SMOOTH) as u32;
        self.now = (self.now * CUT).max(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of a server that does `capacity` requests at once and lets the others wait.
    fn serve(limit: &mut Limit, capacity: u32, rounds: u32) {
        for _ in 0..rounds {
            let under_way = limit.get();
            let took = Duration::from_millis(u64::from(100 * under_way.max(capacity) / capacity));
            for _ in 0..under_way {
                limit.answered(took);
            }
        }
    }

    #[test]
    fn it_grows_while_answers_come_as_fast_and_stays_near_what_the_server_can_do() {
        let mut limit = Limit::new(500);
        for _ in 0..20 {
            serve(&mut limit, 16, 100);
            assert!((8..=48).contains(&limit.get()), "{}", limit.get());
        }
        let mut free = Limit::new(64);
        serve(&mut free, 1000, 200);
        assert_eq!(free.get(), 64);
    }

    #[test]
    fn one_overload_is_one_cut_and_never_stops_the_server() {
        let mut limit = Limit::new(100);
        serve(&mut limit, 1000, 300);
        for _ in 0..50 {
            limit.overloaded();
        }
        assert_eq!(limit.get(), 40);
        for _ in 0..1000 {
            limit.answered(Duration::from_millis(100));
            limit.overloaded();
        }
        assert!((1..=4).contains(&limit.get()), "{}", limit.get());
    }

    #[test]
    fn a_server_that_became_slower_for_good_is_used_again() {
        let mut limit = Limit::new(64);
        serve(&mut limit, 1000, 100);
        for _ in 0..5000 {
            limit.answered(Duration::from_millis(700));
        }
        assert!(limit.get() > 32, "{}", limit.get());
    }
}
