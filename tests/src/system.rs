//! The systems that runs are of, as overrides of [`crate::run_file`].

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum System {
    /// PixCLIP's three branches over stored text vectors.
    #[default]
    Pixclip,
    /// FG-CLIP's second stage: captions, regions and hard negatives, with a text tower that learns.
    Fgclip,
}

/// The towers that FG-CLIP's terms need.
pub const FGCLIP_TOWERS: [&str; 5] = [
    "model.vision=tiny-clip",
    "model.text=tiny-clip",
    "model.alpha_init=none",
    "model.last_block=attention-free",
    "data.fit=squash",
];

impl System {
    /// `section.key=value` of its runs.
    #[must_use]
    pub fn overrides(self) -> Vec<&'static str> {
        match self {
            Self::Pixclip => Vec::new(),
            Self::Fgclip => FGCLIP_TOWERS.into_iter().chain(["loss.preset=fgclip1-stage2"]).collect(),
        }
    }
}
