//! The terms that a `[loss]` section stands for (method.md 2.3 to 2.6). A pure table: no tensor here.

use pixfleet_cluster::spec::{CropLoss, LocalLoss, LossSpec, Teacher};

/// A feature that a row has, by what made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `v_m`: the image with its mask.
    Image,
    /// `u`: the text.
    Text,
    /// `v_c`: the crop.
    Crop,
    /// `v_r`: the region pooled from the patch map.
    Roi,
    /// `v_t`: the crop through the EMA or frozen teacher. Never learns.
    Teacher,
}

impl Part {
    /// Every part, in the order in which a packed row holds them.
    pub const ALL: [Self; 5] = [Self::Image, Self::Text, Self::Crop, Self::Roi, Self::Teacher];

    /// The name that errors use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image features",
            Self::Text => "text features",
            Self::Crop => "crop features",
            Self::Roi => "region features",
            Self::Teacher => "teacher features",
        }
    }
}

/// The line under which a term is reported and weighted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// Global mask-text contrastive alignment.
    Global,
    /// Fine-grained cropping alignment.
    Crop,
    /// Local-global representation enhancement.
    Local,
}

/// Rows that a term is over. The others are dropped from it: no target, no negative, not in the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Every row.
    All,
    /// Rows whose crop is worth comparing.
    CropValid,
}

/// What a term computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// InfoNCE of two features over the global batch; both learn.
    InfoNce(Part, Part),
    /// 1 - cosine of two features of one row. The first learns.
    Cosine {
        /// The learner.
        x: Part,
        /// The other side.
        y: Part,
        /// Whether the other side learns too.
        y_learns: bool,
    },
}

impl Kind {
    /// The two features.
    #[must_use]
    pub fn parts(self) -> [Part; 2] {
        match self {
            Self::InfoNce(x, y) | Self::Cosine { x, y, .. } => [x, y],
        }
    }
}

/// One summand: `weight of the branch` x `coefficient` x mean over the mask's rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// A short name (`C1`).
    pub name: &'static str,
    /// Where it is reported.
    pub branch: Branch,
    /// What it computes.
    pub kind: Kind,
    /// Over which rows.
    pub mask: Mask,
    /// Its factor within the branch.
    pub coefficient: f64,
}

/// The terms of a run, in a fixed order.
#[must_use]
pub fn terms(spec: &LossSpec) -> Vec<Term> {
    let mut terms = vec![Term {
        name: "B1",
        branch: Branch::Global,
        kind: Kind::InfoNce(Part::Image, Part::Text),
        mask: Mask::All,
        coefficient: 1.0,
    }];
    let crop = |name, kind, coefficient| Term { name, branch: Branch::Crop, kind, mask: Mask::CropValid, coefficient };
    match spec.crop {
        CropLoss::Off => {}
        CropLoss::C1 => terms.push(crop("C1", Kind::InfoNce(Part::Crop, Part::Text), 1.0)),
        CropLoss::C2 => terms.push(crop("C2", taught(Part::Image, spec.teacher), 1.0)),
        CropLoss::C2Nce => terms.push(crop("C2", Kind::InfoNce(Part::Image, Part::Crop), 1.0)),
        CropLoss::C3 => {
            terms.push(crop("C1", Kind::InfoNce(Part::Crop, Part::Text), 1.0));
            terms.push(crop("C2", taught(Part::Image, spec.teacher), spec.c3_lambda));
        }
    }
    let local = |name, kind, mask| Term { name, branch: Branch::Local, kind, mask, coefficient: 1.0 };
    let g1 = local("G1", taught(Part::Roi, spec.teacher), Mask::CropValid);
    let g2 = local("G2", Kind::InfoNce(Part::Roi, Part::Text), Mask::All);
    match spec.local {
        LocalLoss::Off => {}
        LocalLoss::G1 => terms.push(g1),
        LocalLoss::G2 => terms.push(g2),
        LocalLoss::G1G2 => terms.extend([g1, g2]),
        LocalLoss::G3 => {
            let kind = Kind::Cosine { x: Part::Image, y: Part::Roi, y_learns: true };
            terms.push(local("G3", kind, Mask::All));
        }
        LocalLoss::G3Nce => terms.push(local("G3", Kind::InfoNce(Part::Image, Part::Roi), Mask::All)),
    }
    terms
}

/// `1 - cos(x, crop)` with the crop as the teacher.
fn taught(x: Part, teacher: Teacher) -> Kind {
    match teacher {
        Teacher::Online => Kind::Cosine { x, y: Part::Crop, y_learns: false },
        Teacher::NoStop => Kind::Cosine { x, y: Part::Crop, y_learns: true },
        Teacher::Ema | Teacher::Frozen => Kind::Cosine { x, y: Part::Teacher, y_learns: false },
    }
}
