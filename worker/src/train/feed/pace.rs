//! How many requests may be under way: as many as decoding needs at the store's latency, and no more. Pure: the time is an
//! argument.
//!
//! By Little's law a rate of requests takes (rate x latency) of them under way, and neither is known beforehand. So the
//! limit follows what is ready ahead of decoding, at most once in a round trip, for only then can the last change show:
//! twice as many while decoding waits, an eighth more while little is ready, an eighth fewer when reading has nothing left
//! to do. Where reading keeps up it therefore takes about as long as decoding does. A store in trouble halves it.

use std::time::Duration;

/// Bounds of requests under way. Each may hold a connection of its own to the store.
const LIMIT_MIN: usize = 4;
const LIMIT_MAX: usize = 128;
/// Before anything is known.
const LIMIT_FIRST: usize = 32;
/// A change is given at least so long to show.
const ROUND_MIN: Duration = Duration::from_millis(1);

/// How reading stands to decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Decoding waits for a step that is still being read.
    Starved,
    /// Decoding will have to wait soon.
    Low,
    /// Neither waits.
    Even,
    /// All that may be read ahead is there.
    Idle,
}

/// The limit, and when it was changed.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    limit: usize,
    changed: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { limit: LIMIT_FIRST, changed: Duration::ZERO }
    }

    /// Requests that may be under way.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// It is `now`, counted from some start, and a request lately took `latency`.
    pub(super) fn see(&mut self, now: Duration, standing: Standing, latency: Duration) {
        if now.saturating_sub(self.changed) < latency.max(ROUND_MIN) {
            return;
        }
        let eighth = (self.limit / 8).max(1);
        let limit = match standing {
            Standing::Starved => self.limit * 2,
            Standing::Low => self.limit + eighth,
            Standing::Even => return,
            Standing::Idle => self.limit - eighth,
        };
        self.set(now, limit);
    }

    /// The store failed and was asked again.
    pub(super) fn trouble(&mut self, now: Duration) {
        self.set(now, self.limit / 2);
    }

    fn set(&mut self, now: Duration, limit: usize) {
        (self.limit, self.changed) = (limit.clamp(LIMIT_MIN, LIMIT_MAX), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A store that answers each request after `latency`, and decoding that uses `rate` answers a second out of a stock that
    /// may hold `room`: the limit after each millisecond of `lasts`, and for how many of them decoding waited.
    fn simulate(pace: &mut Pace, latency: u64, rate: f64, room: f64, lasts: std::ops::Range<u64>) -> (Vec<usize>, u64) {
        let mut under_way: std::collections::VecDeque<u64> = std::collections::VecDeque::new();
        let (mut stock, mut waited, mut limits) = (0.0f64, 0, Vec::new());
        let mut filling = true;
        for now in lasts {
            while under_way.front().is_some_and(|&at| at <= now) {
                under_way.pop_front();
                stock += 1.0;
            }
            let uses = rate / 1000.0;
            let starved = stock < uses;
            waited += u64::from(starved);
            stock -= if starved { 0.0 } else { uses };
            let ahead = stock + under_way.len() as f64;
            filling |= ahead <= room / 2.0;
            while filling && under_way.len() < pace.limit() {
                under_way.push_back(now + latency);
                filling = stock + (under_way.len() as f64) < room;
            }
            let standing = match (starved, filling) {
                (true, _) => Standing::Starved,
                (false, true) if stock < room / 4.0 => Standing::Low,
                (false, true) => Standing::Even,
                (false, false) if under_way.is_empty() => Standing::Idle,
                (false, false) => Standing::Even,
            };
            pace.see(ms(now), standing, ms(latency));
            limits.push(pace.limit());
        }
        (limits, waited)
    }

    #[test]
    fn it_finds_what_the_latency_asks_for() {
        for (latency, rate) in [(2, 400.0), (40, 400.0), (40, 1200.0), (100, 500.0)] {
            let mut pace = Pace::new();
            let room = rate;
            let (_, waited) = simulate(&mut pace, latency, rate, room, 0..1000);
            assert!(waited <= 2 * latency, "{waited} ms of the first second, at {latency} ms and {rate} a second");
            let (limits, waited) = simulate(&mut pace, latency, rate, room, 1000..20_000);
            let needed = rate * latency as f64 / 1000.0;
            assert!(waited < 19_000 / 100, "{waited} of 19,000 ms, at {latency} ms and {rate} a second");
            let mean = limits.iter().sum::<usize>() as f64 / limits.len() as f64;
            assert!(mean < (4.0 * needed).max(2.0 * LIMIT_MIN as f64), "{mean} under way where {needed} are needed");
        }
    }

    #[test]
    fn it_follows_a_latency_that_changes() {
        let mut pace = Pace::new();
        simulate(&mut pace, 2, 500.0, 500.0, 0..3000);
        assert!(pace.limit() <= 8, "{} for a near store", pace.limit());
        simulate(&mut pace, 60, 500.0, 500.0, 3000..6000);
        assert!(pace.limit() >= 30, "{} for a far one", pace.limit());
        simulate(&mut pace, 2, 500.0, 500.0, 6000..12_000);
        assert!(pace.limit() <= 8, "{} for a near one again", pace.limit());
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut pace = Pace::new();
        for now in 0..100 {
            pace.see(ms(10 * now), Standing::Starved, ms(10));
        }
        assert_eq!(pace.limit(), LIMIT_MAX);
        for now in 100..300 {
            pace.see(ms(10 * now), Standing::Idle, ms(10));
        }
        assert_eq!(pace.limit(), LIMIT_MIN);
    }

    #[test]
    fn it_changes_once_in_a_round_trip_and_backs_off_from_trouble() {
        let mut pace = Pace::new();
        for now in 40..80 {
            pace.see(ms(now), Standing::Starved, ms(40));
        }
        assert_eq!(pace.limit(), 2 * LIMIT_FIRST);
        pace.see(ms(80), Standing::Starved, ms(40));
        assert_eq!(pace.limit(), 4 * LIMIT_FIRST);
        pace.trouble(ms(81));
        assert_eq!(pace.limit(), 2 * LIMIT_FIRST);
        pace.see(ms(200), Standing::Even, ms(40));
        assert_eq!(pace.limit(), 2 * LIMIT_FIRST);
    }
}
