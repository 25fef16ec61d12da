//! `[loss]`: the three branches, their variants and weights (method.md 2.3 to 2.6).

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
        let (crop, local, teacher) = match preset {
            LossPreset::Default => (CropLoss::C1, LocalLoss::G1, Teacher::Online),
            LossPreset::TwoCl => (CropLoss::C1, LocalLoss::Off, Teacher::Online),
            LossPreset::Fineclip => (CropLoss::Off, LocalLoss::G1G2, Teacher::NoStop),
            LossPreset::Direct => (CropLoss::C2, LocalLoss::G3, Teacher::Online),
            LossPreset::Alphaclip => (CropLoss::Off, LocalLoss::Off, Teacher::Online),
        };
        Self {
            preset,
            crop,
            local,
            global_weight: 1.0,
            crop_weight: 1.0,
            local_weight: 1.0,
            c3_lambda: 1.0,
            pool: Pool::RoiAlign,
            pool_order: PoolOrder::PoolThenHead,
            teacher,
            ema_decay: 0.999,
            label_smoothing: 0.0,
        }
    }

    /// Whether the crop's feature `v_c` is needed.
    #[must_use]
    pub fn needs_crop(&self) -> bool {
        self.crop != CropLoss::Off || matches!(self.local, LocalLoss::G1 | LocalLoss::G1G2)
    }

    /// Whether the region feature `v_r` is needed.
    #[must_use]
    pub fn needs_patch_map(&self) -> bool {
        self.local != LocalLoss::Off
    }
}
