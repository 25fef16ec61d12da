//! What a run trains, as closed lists: *sets* of items, and *terms* over them. `[loss]` is a table of choices; this file
//! turns it into terms, and nothing else asks what a loss is made of.
//!
//! A set has a fixed number of slots a row ([`Set::slots`]), so what ranks exchange has one width whatever the data; a slot
//! without an item is not valid. A term is over those slots that are valid in both of its sets.

use super::{CropLoss, GlobalLoss, LocalLoss, LossSpec, RegionLoss, Teacher};

/// Texts of a hard-negative choice: the positive and ten negatives (FineHARD, method.md 3.4).
pub const HARD_TEXTS: u32 = 11;

/// The items of one kind in a row of the batch. A region set has as many slots a row as [`super::Needs::regions`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// `v`: the image, with its mask where the tower takes one. Owned by the row.
    Image,
    /// `v_c`: the crop of the drawn region. Owned by the row; not valid where the region is most of the image.
    Crop,
    /// `v_r`: a region pooled from the patch map. Owned by the row.
    Region,
    /// `l`: the image's long caption. Owned by the row.
    LongText,
    /// `c`: the image's short caption. Owned by the row.
    ShortText,
    /// `t`: a region's text. Owned by the region.
    RegionText,
    /// `t^0..t^10`: a region's true expression and its hard negatives, [`HARD_TEXTS`] in one slot. Owned by the region.
    HardText,
    /// `v_t`: the crop as an EMA or frozen teacher sees it. Never learns. Owned by the row.
    Teacher,
}

impl Set {
    /// Every set, in the order in which a packed row holds them.
    pub const ALL: [Self; 8] = [
        Self::Image,
        Self::RegionText,
        Self::Crop,
        Self::Region,
        Self::LongText,
        Self::ShortText,
        Self::HardText,
        Self::Teacher,
    ];

    /// The name that errors use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Crop => "crop",
            Self::Region => "region",
            Self::LongText => "long_text",
            Self::ShortText => "short_text",
            Self::RegionText => "region_text",
            Self::HardText => "hard_text",
            Self::Teacher => "teacher",
        }
    }

    /// Slots a row, where a row has at most `regions` regions.
    #[must_use]
    pub fn slots(self, regions: u32) -> u32 {
        match self {
            Self::Image | Self::Crop | Self::LongText | Self::ShortText | Self::Teacher => 1,
            Self::Region | Self::RegionText | Self::HardText => regions,
        }
    }

    /// Features in one slot.
    #[must_use]
    pub fn width(self) -> u32 {
        if self == Self::HardText { HARD_TEXTS } else { 1 }
    }

    /// Whether its items are texts.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Self::LongText | Self::ShortText | Self::RegionText | Self::HardText)
    }
}

/// What a term contrasts with: the items of all ranks, or those of one lane. There is no scope "rank": a loss over what
/// happens to sit on one rank would depend on the world size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Items of the global batch; features are gathered.
    Global,
    /// Items of one lane; nothing is gathered but its sums.
    Lane,
}

/// A learned inverse temperature; the parameter is its logarithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Temperature {
    /// Of the terms over whole images, and of all of PixCLIP's.
    Global,
    /// Of FG-CLIP's regional contrast.
    Region,
    /// Of FG-CLIP's hard negatives.
    Hard,
}

impl Temperature {
    /// Every temperature, in the order of their parameters.
    pub const ALL: [Self; 3] = [Self::Global, Self::Region, Self::Hard];

    /// The parameter's name (method.md 1.6, 4.1; the second as FG-CLIP's checkpoints spell it).
    #[must_use]
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Global => "logit_scale",
            Self::Region => "logit_scale_finegraind",
            Self::Hard => "logit_scale_hardneg",
        }
    }
}

/// What a term computes of its two sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TermKind {
    /// Symmetric InfoNCE between the items of two sets, each the other's positive in its own slot; both learn.
    InfoNce(Set, Set, Temperature),
    /// 1 - cosine of two items in one slot. The first learns.
    Cosine {
        /// The learner.
        x: Set,
        /// The other side.
        y: Set,
        /// Whether the other side learns too.
        y_learns: bool,
    },
    /// The choice of the first among the [`HARD_TEXTS`] texts of an item's slot; both learn.
    HardNegatives(Set, Set, Temperature),
}

impl TermKind {
    /// The two sets.
    #[must_use]
    pub fn sets(self) -> [Set; 2] {
        match self {
            Self::InfoNce(x, y, _) | Self::HardNegatives(x, y, _) | Self::Cosine { x, y, .. } => [x, y],
        }
    }

    /// The sets that learn from it.
    fn learners(self) -> impl Iterator<Item = Set> {
        let second = match self {
            Self::Cosine { y_learns, .. } => y_learns,
            Self::InfoNce(..) | Self::HardNegatives(..) => true,
        };
        let [x, y] = self.sets();
        std::iter::once(x).chain(second.then_some(y))
    }

    /// Its temperature, if it has one.
    #[must_use]
    pub fn temperature(self) -> Option<Temperature> {
        match self {
            Self::InfoNce(_, _, t) | Self::HardNegatives(_, _, t) => Some(t),
            Self::Cosine { .. } => None,
        }
    }
}

/// One summand of the loss: `coefficient` x mean over the global batch's valid slots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// Its name in ledger, metrics and reports.
    pub name: &'static str,
    /// What it computes.
    pub kind: TermKind,
    /// Which items meet.
    pub scope: Scope,
    /// Its factor in the total.
    pub coefficient: f64,
}

impl Term {
    /// Whether `set` must be known on every rank for it.
    #[must_use]
    pub fn gathers(&self, set: Set) -> bool {
        self.scope == Scope::Global && matches!(self.kind, TermKind::InfoNce(x, y, _) if x == set || y == set)
    }

    /// Whether it sends a gradient into `set`.
    #[must_use]
    pub fn teaches(&self, set: Set) -> bool {
        self.kind.learners().any(|s| s == set)
    }
}

/// The terms of a run, in a fixed order (method.md 2.3 to 2.6, 4.2).
#[must_use]
pub fn terms(loss: &LossSpec) -> Vec<Term> {
    match loss.global {
        GlobalLoss::MaskText => three_branches(loss),
        GlobalLoss::Captions => captions_and_regions(loss),
    }
}

fn three_branches(loss: &LossSpec) -> Vec<Term> {
    let term = |name, kind, coefficient| Term { name, kind, scope: Scope::Global, coefficient };
    let nce = |x, y| TermKind::InfoNce(x, y, Temperature::Global);
    let mut terms = vec![term("global", nce(Set::Image, Set::RegionText), loss.global_weight)];
    let (crop, taught) = (loss.crop_weight, |x| taught(x, loss.teacher));
    match loss.crop {
        CropLoss::Off => {}
        CropLoss::C1 => terms.push(term("crop", nce(Set::Crop, Set::RegionText), crop)),
        CropLoss::C2 => terms.push(term("crop", taught(Set::Image), crop)),
        CropLoss::C2Nce => terms.push(term("crop", nce(Set::Image, Set::Crop), crop)),
        CropLoss::C3 => terms.extend([
            term("crop", nce(Set::Crop, Set::RegionText), crop),
            term("crop_cosine", taught(Set::Image), crop * loss.c3_lambda),
        ]),
    }
    let local = loss.local_weight;
    let both = TermKind::Cosine { x: Set::Image, y: Set::Region, y_learns: true };
    match loss.local {
        LocalLoss::Off => {}
        LocalLoss::G1 => terms.push(term("local", taught(Set::Region), local)),
        LocalLoss::G2 => terms.push(term("local_text", nce(Set::Region, Set::RegionText), local)),
        LocalLoss::G1G2 => terms.extend([
            term("local", taught(Set::Region), local),
            term("local_text", nce(Set::Region, Set::RegionText), local),
        ]),
        LocalLoss::G3 => terms.push(term("local", both, local)),
        LocalLoss::G3Nce => terms.push(term("local", nce(Set::Image, Set::Region), local)),
    }
    terms
}

/// `1 - cos(x, crop)` with the crop as the teacher.
fn taught(x: Set, teacher: Teacher) -> TermKind {
    match teacher {
        Teacher::Online => TermKind::Cosine { x, y: Set::Crop, y_learns: false },
        Teacher::NoStop => TermKind::Cosine { x, y: Set::Crop, y_learns: true },
        Teacher::Ema | Teacher::Frozen => TermKind::Cosine { x, y: Set::Teacher, y_learns: false },
    }
}

fn captions_and_regions(loss: &LossSpec) -> Vec<Term> {
    let captions = |name, text, coefficient| Term {
        name,
        kind: TermKind::InfoNce(Set::Image, text, Temperature::Global),
        scope: Scope::Global,
        coefficient,
    };
    let mut terms =
        vec![captions("long", Set::LongText, loss.long_weight), captions("short", Set::ShortText, loss.short_weight)];
    let scope = match loss.region {
        RegionLoss::Off => None,
        RegionLoss::Global => Some(Scope::Global),
        RegionLoss::Lane => Some(Scope::Lane),
    };
    let region = |name, kind, scope, coefficient| Term { name, kind, scope, coefficient };
    terms.extend(scope.map(|scope| {
        let kind = TermKind::InfoNce(Set::Region, Set::RegionText, Temperature::Region);
        region("region", kind, scope, loss.region_weight)
    }));
    if loss.hard {
        let kind = TermKind::HardNegatives(Set::Region, Set::HardText, Temperature::Hard);
        terms.push(region("hard", kind, Scope::Lane, loss.hard_weight));
    }
    terms
}
