//! `[loss]`: PixCLIP's three branches and FG-CLIP's four terms, their variants and weights (method.md 2.3 to 2.6, 4.2).

use super::check::{Bad, check_share, check_weight};
use serde::{Deserialize, Serialize};

/// A named combination (method.md 2.6). A run file may name one and override single keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossPreset {
    /// B1 + C1 + G1.
    Default,
    /// B1 + C1.
    #[serde(rename = "2cl")]
    TwoCl,
    /// B1 + G1 without stop-gradient + G2.
    Fineclip,
    /// B1 + C2 + G3.
    Direct,
    /// B1 alone.
    Alphaclip,
    /// FG-CLIP v1, stage 1: long and short captions (method.md 4.2).
    #[serde(rename = "fgclip1-stage1")]
    Fgclip1Stage1,
    /// FG-CLIP v1, stage 2: captions, regions and hard negatives, 1 / 1 / 0.1 / 0.5 (method.md 4.2).
    #[serde(rename = "fgclip1-stage2")]
    Fgclip1Stage2,
}

/// What images are contrasted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GlobalLoss {
    /// The masked image with the text of its drawn region: PixCLIP's branch 1, InfoNCE(v_m, u).
    MaskText,
    /// The image with its long and with its short caption: FG-CLIP's L_long + L_short.
    Captions,
}

/// FG-CLIP's regional contrast, InfoNCE(r, t) over the batch's regions (method.md 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegionLoss {
    /// None.
    Off,
    /// Among the regions of the global batch: more negatives, and the same loss whatever the number of workers.
    Global,
    /// Among the regions of one lane: nearest to the published loss, which is over the regions of one GPU. A lane is
    /// the same whatever the number of workers, so `train.lanes` is what sets the number of negatives.
    Lane,
}

/// Branch 2, fine-grained cropping alignment (method.md 2.4). `v_m` masked image, `v_c` crop, `u` text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CropLoss {
    /// No branch 2.
    Off,
    /// InfoNCE(v_c, u).
    C1,
    /// mean(1 - cos(v_m, v_c)), the crop as the teacher.
    C2,
    /// InfoNCE(v_m, v_c).
    C2Nce,
    /// C1 + `c3_lambda` x C2.
    C3,
}

/// Branch 3, local-global representation enhancement (method.md 2.5). `v_r` pooled region of the patch map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalLoss {
    /// No branch 3.
    Off,
    /// mean(1 - cos(v_r, teacher(v_c))).
    G1,
    /// InfoNCE(v_r, u).
    G2,
    /// G1 + G2 (FineCLIP's two terms).
    G1G2,
    /// mean(1 - cos(v_m, v_r)).
    G3,
    /// InfoNCE(v_m, v_r).
    G3Nce,
}

/// How a region is pooled from the patch map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// RoIAlign to 1x1 over the box (method.md 2.7).
    RoiAlign,
    /// Mask pooling: sum F m / (sum m + 1e-12), m area-resized to the map.
    Mask,
}

/// Pool first or project first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolOrder {
    /// Pool the raw map, then head and norm.
    PoolThenHead,
    /// Head and norm per patch, then pool (CLIPSelf).
    HeadThenPool,
}

/// Who teaches in C2 and G1 (method.md 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Teacher {
    /// The model itself, stop-gradient.
    Online,
    /// The model itself, gradient flows (FineCLIP).
    NoStop,
    /// An exponential moving average of the model.
    Ema,
    /// A frozen copy of the initial weights (CLIPSelf).
    Frozen,
}

/// `[loss]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossSpec {
    /// The preset that the other keys started from.
    pub preset: LossPreset,
    /// What images are contrasted with; PixCLIP's branches 2 and 3 go with `mask-text`, FG-CLIP's region terms with
    /// `captions`.
    pub global: GlobalLoss,
    /// Branch 2.
    pub crop: CropLoss,
    /// Branch 3.
    pub local: LocalLoss,
    /// Weight of branch 1.
    pub global_weight: f64,
    /// Weight of branch 2.
    pub crop_weight: f64,
    /// Weight of branch 3.
    pub local_weight: f64,
    /// FG-CLIP's regional contrast, and among which regions.
    pub region: RegionLoss,
    /// FG-CLIP's choice of the true text among ten hard negatives.
    pub hard: bool,
    /// Weight of the long captions.
    pub long_weight: f64,
    /// Weight of the short captions.
    pub short_weight: f64,
    /// Weight of the regional contrast.
    pub region_weight: f64,
    /// Weight of the hard negatives.
    pub hard_weight: f64,
    /// Weight of C2 within C3.
    pub c3_lambda: f64,
    /// How a region is pooled.
    pub pool: Pool,
    /// Pool first or project first.
    pub pool_order: PoolOrder,
    /// Who teaches.
    pub teacher: Teacher,
    /// Decay of the EMA teacher.
    pub ema_decay: f64,
    /// Label smoothing of every InfoNCE.
    pub label_smoothing: f64,
}

impl LossSpec {
    /// The values that a preset stands for.
    #[must_use]
    pub fn preset(preset: LossPreset) -> Self {
        let three = |crop, local, teacher| (GlobalLoss::MaskText, crop, local, teacher);
        let captions = (GlobalLoss::Captions, CropLoss::Off, LocalLoss::Off, Teacher::Online);
        let (global, crop, local, teacher) = match preset {
            LossPreset::Default => three(CropLoss::C1, LocalLoss::G1, Teacher::Online),
            LossPreset::TwoCl => three(CropLoss::C1, LocalLoss::Off, Teacher::Online),
            LossPreset::Fineclip => three(CropLoss::Off, LocalLoss::G1G2, Teacher::NoStop),
            LossPreset::Direct => three(CropLoss::C2, LocalLoss::G3, Teacher::Online),
            LossPreset::Alphaclip => three(CropLoss::Off, LocalLoss::Off, Teacher::Online),
            LossPreset::Fgclip1Stage1 | LossPreset::Fgclip1Stage2 => captions,
        };
        let regions = preset == LossPreset::Fgclip1Stage2;
        Self {
            preset,
            global,
            crop,
            local,
            global_weight: 1.0,
            crop_weight: 1.0,
            local_weight: 1.0,
            region: if regions { RegionLoss::Global } else { RegionLoss::Off },
            hard: regions,
            long_weight: 1.0,
            short_weight: 1.0,
            region_weight: 0.1,
            hard_weight: 0.5,
            c3_lambda: 1.0,
            pool: Pool::RoiAlign,
            pool_order: PoolOrder::PoolThenHead,
            teacher,
            ema_decay: 0.999,
            label_smoothing: 0.0,
        }
    }

    /// What must hold between the section's values.
    pub(super) fn check(&self, bad: &mut impl Bad) {
        check_share("loss.label_smoothing", self.label_smoothing, bad);
        check_share("loss.ema_decay", self.ema_decay, bad);
        check_weight("loss.global_weight", self.global_weight, bad);
        check_weight("loss.crop_weight", self.crop_weight, bad);
        check_weight("loss.local_weight", self.local_weight, bad);
        check_weight("loss.long_weight", self.long_weight, bad);
        check_weight("loss.short_weight", self.short_weight, bad);
        check_weight("loss.region_weight", self.region_weight, bad);
        check_weight("loss.hard_weight", self.hard_weight, bad);
        let captions = self.global == GlobalLoss::Captions;
        let mut with = |set: bool, key: &str, ok: bool, other: &str| {
            let cure = format!("goes with loss.global = \"{other}\"; leave it out, or choose another preset");
            bad(!set || ok, key, cure);
        };
        with(self.crop != CropLoss::Off, "loss.crop", !captions, "mask-text");
        with(self.local != LocalLoss::Off, "loss.local", !captions, "mask-text");
        with(self.region != RegionLoss::Off, "loss.region", captions, "captions");
        with(self.hard, "loss.hard", captions, "captions");
    }
}
