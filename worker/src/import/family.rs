//! Whose checkpoint a file is: by its names, or as it is told.

use super::rule::{Fate, Holes, Rule, fits};
use super::tower::Kind;
use super::{clip, eva, openai};
use clap::ValueEnum;

/// A family of checkpoints that name their tensors alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// `CLIPModel` of transformers, also with an alpha convolution; and pixfleet's own CLIP towers.
    HfClip,
    /// OpenAI's own names: `visual.transformer.resblocks.0.attn.in_proj_weight`.
    OpenaiClip,
    /// AlphaCLIP's files: the vision tower alone, under OpenAI's names without `visual.`.
    Alphaclip,
    /// FG-CLIP v1.
    Fgclip1,
    /// EVA-CLIP's EVA02, with `attn.q_bias`; its head and text tower are left out.
    EvaClip,
    /// LLM2CLIP's EVA02.
    Llm2clip,
    /// PixCLIP; and pixfleet's own EVA02 towers.
    Pixclip,
}

impl Family {
    /// By the names in a file.
    pub(super) fn detect(has: impl Fn(&str) -> bool) -> Option<Self> {
        let marks: [(&str, Self); 8] = [
            ("visual.blocks.0.attn.q_bias", Self::EvaClip),
            ("visual.alpha_patch_embed.proj.weight", Self::Pixclip),
            ("visual.blocks.0.attn.q_proj.weight", Self::Llm2clip),
            ("text_filip_projection.weight", Self::Fgclip1),
            ("vision_model.embeddings.class_embedding", Self::HfClip),
            ("visual.conv1.weight", Self::OpenaiClip),
            ("conv1_alpha.weight", Self::Alphaclip),
            ("conv1.weight", Self::Alphaclip),
        ];
        marks.into_iter().find(|(name, _)| has(name)).map(|(_, family)| family)
    }

    /// As it is typed after `--from`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HfClip => "hf-clip",
            Self::OpenaiClip => "openai-clip",
            Self::Alphaclip => "alphaclip",
            Self::Fgclip1 => "fgclip1",
            Self::EvaClip => "eva-clip",
            Self::Llm2clip => "llm2clip",
            Self::Pixclip => "pixclip",
        }
    }

    /// The kind of its vision tower.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::HfClip | Self::OpenaiClip | Self::Alphaclip | Self::Fgclip1 => Kind::Clip,
            Self::EvaClip | Self::Llm2clip | Self::Pixclip => Kind::Eva02,
        }
    }

    fn tables(self) -> &'static [&'static [Rule]] {
        match self {
            Self::HfClip | Self::Fgclip1 => &[clip::HF],
            Self::OpenaiClip => &[openai::VISUAL, openai::TEXT],
            Self::Alphaclip => &[openai::VISUAL],
            Self::EvaClip => &[eva::OTHER_SPACE, eva::EVA02],
            Self::Llm2clip | Self::Pixclip => &[eva::EVA02],
        }
    }

    /// What becomes of a tensor, and what its name's `#` and `*` stood for; `None` if no rule knows it.
    pub(super) fn fate<'n>(self, name: &'n str) -> Option<(Rule, Holes<'n>)> {
        let by = |rules: &[Rule], name: &'n str| {
            rules.iter().find_map(|rule| fits(rule.0, name).map(|holes| (*rule, holes)))
        };
        self.tables().iter().find_map(|rules| by(rules, name))
    }

    /// The file's name as the tables know it.
    pub(super) fn full_name(self, name: &str) -> String {
        match self {
            Self::Alphaclip if !name.starts_with("visual.") => format!("visual.{name}"),
            Self::HfClip
            | Self::OpenaiClip
            | Self::Alphaclip
            | Self::Fgclip1
            | Self::EvaClip
            | Self::Llm2clip
            | Self::Pixclip => name.to_owned(),
        }
    }
}

impl Fate {
    /// The parts of the tensor, each with the pattern of the name that it gets.
    pub(super) fn parts(self) -> Vec<(&'static str, Cut)> {
        match self {
            Self::As(to) => vec![(to, Cut::Whole)],
            Self::Transposed(to) => vec![(to, Cut::Transposed)],
            Self::Thirds(to) => to.into_iter().zip((0u8..).map(Cut::Third)).collect(),
            Self::Left(_) => vec![],
        }
    }
}

/// How a tensor is taken out of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// As it is.
    Whole,
    /// Rows and columns swapped.
    Transposed,
    /// The rows of query (0), key (1) or value (2).
    Third(u8),
}

impl Cut {
    /// The shape of what is taken out of a tensor of `shape`; `None` if it cannot be.
    pub(super) fn shape(self, shape: &[i64]) -> Option<Vec<i64>> {
        match (self, shape) {
            (Self::Whole, _) => Some(shape.to_vec()),
            (Self::Transposed, &[rows, columns]) => Some(vec![columns, rows]),
            (Self::Third(_), [rows, rest @ ..]) if rows % 3 == 0 => Some([&[rows / 3], rest].concat()),
            (Self::Transposed | Self::Third(_), _) => None,
        }
    }
}
