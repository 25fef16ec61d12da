//! The median of many members' numbers, of which one changes at a time: the lower half and the upper half, each sorted.

use crate::ids::MemberId;
use std::collections::BTreeSet;

/// A number that is not negative, as bits that sort as it does, and whose it is.
type Entry = (u64, MemberId);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Middle {
    /// The least: those up to the middle of all but one, and one more.
    low: BTreeSet<Entry>,
    high: BTreeSet<Entry>,
}

impl Middle {
    pub(super) fn clear(&mut self) {
        self.low.clear();
        self.high.clear();
    }

    /// A member's number is now this one; `None`: it has none.
    pub(super) fn change(&mut self, member: MemberId, before: Option<f64>, now: Option<f64>) {
        if before == now {
            return;
        }
        if let Some(before) = before {
            let entry = (before.to_bits(), member);
            let _ = self.low.remove(&entry) || self.high.remove(&entry);
        }
        if let Some(now) = now {
            let entry = (now.to_bits(), member);
            let lower = self.high.first().is_none_or(|first| entry < *first);
            if lower {
                self.low.insert(entry)
            } else {
                self.high.insert(entry)
            };
        }
        self.balance();
    }

    /// Of the others' numbers, sorted, the one in the middle: of an even number the upper one.
    pub(super) fn of_others(&self, member: MemberId, own: f64) -> Option<f64> {
        let last = self.low.last()?;
        let other = if (own.to_bits(), member) <= *last { self.high.first()? } else { last };
        Some(f64::from_bits(other.0))
    }

    fn balance(&mut self) {
        let all = self.low.len() + self.high.len();
        // The others are one less: their middle is the last of these, or the next.
        let low = (all.saturating_sub(1) / 2 + 1).min(all);
        while self.low.len() > low {
            self.high.extend(self.low.pop_last());
        }
        while self.low.len() < low {
            self.low.extend(self.high.pop_first());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_what_sorting_says(changes in prop::collection::vec((0u64..9, prop::option::of(0u32..6)), 0..60)) {
            let (mut middle, mut all) = (Middle::default(), BTreeMap::new());
            for (member, now) in changes {
                let (member, now) = (MemberId(member), now.map(f64::from));
                let before = all.remove(&member);
                middle.change(member, before, now);
                all.extend(now.map(|now| (member, now)));
                for (&member, &own) in &all {
                    let mut others: Vec<f64> = all.iter().filter(|(of, _)| **of != member).map(|(_, n)| *n).collect();
                    others.sort_unstable_by(f64::total_cmp);
                    prop_assert_eq!(middle.of_others(member, own), others.get(others.len() / 2).copied());
                }
            }
        }
    }
}
