//! Why mini-LongGRIT could not be composed.

use crate::error::ShardError;
use pixfleet_cluster::Class;
use std::path::PathBuf;

/// Why mini-LongGRIT could not be composed.
#[derive(Debug, thiserror::Error)]
pub enum MiniError {
    /// No drawings.
    #[error("no drawings in {}: {source}; fetch them with scripts/fetch-drawings.sh, or name their folder with --drawings", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A style that no folder stands for.
    #[error("no style `{name}`; known are {}", known())]
    Style {
        /// What was asked for.
        name: String,
    },
    /// A drawing that cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A drawing that is no SVG.
    #[error("{}: not an SVG drawing: {source}; fetch the drawings again", path.display())]
    Svg {
        /// The file.
        path: PathBuf,
        /// Why.
        source: resvg::usvg::Error,
    },
    /// A drawing that is no picture.
    #[error("{}: not a picture: {source}; fetch the drawings again", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// Too few drawings to compose scenes and hold some out.
    #[error("{} has drawings of {found} concepts in all the styles asked for; expected at least 8", folder.display())]
    TooFew {
        /// Concepts found.
        found: usize,
        /// The folder.
        folder: PathBuf,
    },
    /// A configuration that makes no scenes.
    #[error("{key}: {found} lies outside {low}..={high}")]
    Config {
        /// Which option.
        key: &'static str,
        /// Its value.
        found: u64,
        /// Least.
        low: u64,
        /// Most.
        high: u64,
    },
    /// A picture that could not be encoded.
    #[error("a scene could not be encoded: {0}")]
    Encode(#[source] image::ImageError),
    /// The dataset could not be written.
    #[error(transparent)]
    Shard(#[from] ShardError),
}

impl MiniError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Shard(e) => e.class(),
            Self::Folder { .. }
            | Self::Style { .. }
            | Self::Read { .. }
            | Self::Svg { .. }
            | Self::Picture { .. }
            | Self::TooFew { .. }
            | Self::Config { .. }
            | Self::Encode(_) => Class::Fatal,
        }
    }
}

fn known() -> String {
    super::catalogue::STYLES.map(|s| s.folder).join(", ")
}
