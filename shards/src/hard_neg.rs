//! What was changed in a hard negative: one attribute of the region's short expression (FineHARD, method.md 3.4).

use crate::row::Region;
use std::fmt;

/// The attribute that a hard negative changes. Files hold its lower-case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HardNegKind {
    /// Another colour.
    Colour,
    /// Another size.
    Size,
    /// Another place in the picture.
    Position,
    /// Another number of things.
    Count,
    /// Another thing.
    Identity,
    /// Another relation to the thing beside it.
    Relation,
}

impl HardNegKind {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 6] = [Self::Colour, Self::Size, Self::Position, Self::Count, Self::Identity, Self::Relation];

    /// Its name in files and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Colour => "colour",
            Self::Size => "size",
            Self::Position => "position",
            Self::Count => "count",
            Self::Identity => "identity",
            Self::Relation => "relation",
        }
    }

    /// The kind of a name; `None` for a name that is not known.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }

    /// All names, for messages.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for HardNegKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How many regions have hard negatives, and what these change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HardNegCounts {
    /// Regions.
    pub regions: u64,
    /// Regions with hard negatives.
    pub with_negatives: u64,
    /// Hard negatives.
    pub negatives: u64,
    /// Hard negatives by kind, in the order of [`HardNegKind::ALL`].
    pub kinds: [u64; 6],
}

impl HardNegCounts {
    /// Counts one more region.
    pub fn add(&mut self, region: &Region) {
        self.regions += 1;
        self.with_negatives += u64::from(!region.hard_negs.is_empty());
        self.negatives += region.hard_negs.len() as u64;
        for (count, kind) in self.kinds.iter_mut().zip(HardNegKind::ALL) {
            *count += region.hard_neg_kinds.iter().filter(|k| **k == kind).count() as u64;
        }
    }
}

impl fmt::Display for HardNegCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
        write!(f, "{:.1} % of {} regions", percent(self.with_negatives, self.regions), self.regions)?;
        let known = self.kinds.iter().sum::<u64>() > 0;
        for (i, (&count, kind)) in self.kinds.iter().zip(HardNegKind::ALL).enumerate().filter(|_| known) {
            write!(f, "{} {kind} {:.1} %", if i == 0 { ";" } else { "," }, percent(count, self.negatives))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_nothing_else_is() {
        for kind in HardNegKind::ALL {
            assert_eq!(HardNegKind::parse(&kind.to_string()), Some(kind));
        }
        assert_eq!(HardNegKind::parse("Colour"), None);
        assert_eq!(HardNegKind::names(), "colour, size, position, count, identity, relation");
    }

    #[test]
    fn counts_tell_shares() {
        let mut counts = HardNegCounts::default();
        counts.add(&Region::default());
        assert_eq!(counts.to_string(), "0.0 % of 1 regions");
        let negatives = ["a", "b", "c", "d"].map(str::to_string).to_vec();
        let kinds = vec![HardNegKind::Size, HardNegKind::Count, HardNegKind::Count, HardNegKind::Relation];
        counts.add(&Region { hard_negs: negatives, hard_neg_kinds: kinds, ..Region::default() });
        assert_eq!(
            counts.to_string(),
            "50.0 % of 2 regions; colour 0.0 %, size 25.0 %, position 0.0 %, count 50.0 %, identity 0.0 %, relation 25.0 %"
        );
    }
}
