//! What a run needs, derived from its terms in this one place: features, gradients, crops, patch map, boxes, texts,
//! teacher, temperatures. Towers, feed, file columns, probe and evaluation ask here and nowhere else.

use super::terms::{Set, Temperature, Term, terms};
use super::{DataSpec, LossSpec, Pool, PoolOrder};

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Needs {
    terms: Vec<Term>,
    /// Sets beyond those of the terms (a probe looks at more than it learns from).
    extra: Vec<Set>,
    /// Slots a row of the region sets: 1 where a row stands for one drawn region.
    pub regions: u32,
    /// How a region is pooled from the patch map.
    pub pool: Pool,
    /// Pool first or project first.
    pub pool_order: PoolOrder,
}

impl Needs {
    /// The needs of a run.
    #[must_use]
    pub fn of(loss: &LossSpec, data: &DataSpec) -> Self {
        let mut needs =
            Self { terms: terms(loss), extra: Vec::new(), regions: 1, pool: loss.pool, pool_order: loss.pool_order };
        if !needs.draws_region() {
            needs.regions = data.regions;
        }
        needs
    }

    /// The same with the features of `set`, whether a term reads them or not.
    #[must_use]
    pub fn with(mut self, set: Set) -> Self {
        self.extra.push(set);
        self
    }

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether the features of `set` are made.
    #[must_use]
    pub fn has(&self, set: Set) -> bool {
        self.extra.contains(&set) || self.terms.iter().any(|t| t.kind.sets().contains(&set))
    }

    /// Whether any term sends a gradient into `set`.
    #[must_use]
    pub fn learns(&self, set: Set) -> bool {
        self.terms.iter().any(|t| t.teaches(set))
    }

    /// Slots a row of `set`.
    #[must_use]
    pub fn slots(&self, set: Set) -> u32 {
        set.slots(self.regions)
    }

    /// Whether a row stands for one of its regions, drawn by chance and shown by its mask (PixCLIP), instead of for its
    /// image with all regions: so it is where an item of the row meets a region's text.
    #[must_use]
    pub fn draws_region(&self) -> bool {
        let meets = |t: &Term, a, b| t.kind.sets() == [a, b];
        self.terms.iter().any(|t| meets(t, Set::Image, Set::RegionText))
    }

    /// Whether crops are cut.
    #[must_use]
    pub fn crop(&self) -> bool {
        self.has(Set::Crop) || self.has(Set::Teacher)
    }

    /// Whether the patch map is made.
    #[must_use]
    pub fn patch_map(&self) -> bool {
        self.has(Set::Region)
    }

    /// Whether regions are pooled by their boxes.
    #[must_use]
    pub fn boxes(&self) -> bool {
        self.patch_map() && self.pool == Pool::RoiAlign
    }

    /// Whether a second parameter set (EMA or frozen) teaches.
    #[must_use]
    pub fn teacher(&self) -> bool {
        self.has(Set::Teacher)
    }

    /// The text sets, in the order of [`Set::ALL`].
    pub fn texts(&self) -> impl Iterator<Item = Set> {
        Set::ALL.into_iter().filter(|set| set.is_text() && self.has(*set))
    }

    /// The temperatures, in the order of [`Temperature::ALL`].
    pub fn temperatures(&self) -> impl Iterator<Item = Temperature> {
        let used = |t: &Temperature| self.terms.iter().any(|term| term.kind.temperature() == Some(*t));
        Temperature::ALL.into_iter().filter(used)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CropLoss, LocalLoss, LossPreset, Teacher};
    use super::*;

    fn of(loss: &LossSpec) -> Needs {
        Needs::of(loss, &DataSpec::default())
    }

    fn names(preset: LossPreset) -> String {
        of(&LossSpec::preset(preset)).terms().iter().map(|t| t.name).collect::<Vec<_>>().join("+")
    }

    #[test]
    fn presets_are_their_terms() {
        assert_eq!(names(LossPreset::Default), "global+crop+local");
        assert_eq!(names(LossPreset::TwoCl), "global+crop");
        assert_eq!(names(LossPreset::Fineclip), "global+local+local_text");
        assert_eq!(names(LossPreset::Direct), "global+crop+local");
        assert_eq!(names(LossPreset::Alphaclip), "global");
        assert_eq!(names(LossPreset::Fgclip1Stage1), "long+short");
        assert_eq!(names(LossPreset::Fgclip1Stage2), "long+short+region+hard");
    }

    #[test]
    fn needs_follow_from_the_terms() {
        let default = of(&LossSpec::preset(LossPreset::Default));
        assert!(default.draws_region() && default.crop() && default.boxes() && !default.teacher());
        assert_eq!((default.regions, default.temperatures().collect::<Vec<_>>()), (1, vec![Temperature::Global]));
        let direct = of(&LossSpec::preset(LossPreset::Direct));
        assert!(direct.has(Set::Crop) && !direct.learns(Set::Crop), "a crop that only teaches");
        let alpha = of(&LossSpec::preset(LossPreset::Alphaclip));
        assert!(!alpha.crop() && !alpha.patch_map());
        assert!(alpha.with(Set::Crop).crop());
        let ema = LossSpec { teacher: Teacher::Ema, crop: CropLoss::Off, ..LossSpec::preset(LossPreset::Default) };
        let ema = of(&ema);
        assert!(ema.teacher() && ema.crop() && !ema.has(Set::Crop), "only the second set's crop is read");
        let masked = LossSpec { pool: Pool::Mask, local: LocalLoss::G2, ..LossSpec::preset(LossPreset::Default) };
        assert!(of(&masked).patch_map() && !of(&masked).boxes());
    }

    #[test]
    fn captions_take_all_regions_and_three_temperatures() {
        let one = of(&LossSpec::preset(LossPreset::Fgclip1Stage1));
        assert!(!one.draws_region() && !one.patch_map() && !one.crop());
        assert_eq!(one.texts().collect::<Vec<_>>(), [Set::LongText, Set::ShortText]);
        let two = of(&LossSpec::preset(LossPreset::Fgclip1Stage2));
        assert_eq!((two.regions, two.slots(Set::HardText), two.slots(Set::Image)), (4, 4, 1));
        assert_eq!(two.temperatures().count(), 3);
        assert_eq!(two.texts().count(), 4);
    }
}
