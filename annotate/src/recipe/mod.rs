//! An annotation recipe: servers, and stages whose fields make them a graph. Raw TOML becomes a checked [`Recipe`]; all
//! problems are told at once.

mod check;
mod fields;

pub(crate) use fields::{Field, Over};

use crate::shape::Shape;
use crate::template::Template;
use crate::views::View;
use minijinja::Environment;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A recipe that can be run.
#[derive(Debug)]
pub struct Recipe {
    /// What it is called.
    pub name: String,
    /// Tells its text, and that of its templates, from every other.
    pub(crate) digest: String,
    pub(crate) servers: BTreeMap<String, Server>,
    /// In an order in which each stage comes after those whose fields it reads.
    pub(crate) stages: Vec<Stage>,
}

/// Servers that give the same answers: one model at one or more addresses.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// Base URLs: `http://10.0.0.5:8000/v1`.
    pub(crate) urls: Vec<String>,
    /// What requests call the model.
    pub(crate) model: String,
    /// The environment variable that holds the key, if the server asks for one.
    #[serde(default)]
    pub(crate) key_env: Option<String>,
    /// Requests under way at one address, at most.
    #[serde(default = "most_in_flight")]
    pub(crate) most_in_flight: u32,
    /// Seconds until an answer must be whole.
    #[serde(default = "timeout_s")]
    pub(crate) timeout_s: u64,
    /// Seconds without any answer after which the job stops.
    #[serde(default = "patience_s")]
    pub(crate) patience_s: u64,
    /// Price of a million tokens read, in any currency.
    #[serde(default)]
    pub(crate) price_in: f64,
    /// Price of a million tokens written.
    #[serde(default)]
    pub(crate) price_out: f64,
}

impl Server {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_s)
    }
}

fn most_in_flight() -> u32 {
    64
}

fn timeout_s() -> u64 {
    120
}

fn patience_s() -> u64 {
    600
}

/// Who answers a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A chat-completions server.
    #[default]
    Chat,
    /// A segmenter: boxes in, masks out.
    Segment,
    /// A detector: phrases in, boxes out.
    Detect,
}

/// One stage as it stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawStage {
    name: String,
    server: String,
    writes: Field,
    #[serde(default)]
    kind: Kind,
    /// Relative to the recipe's own folder.
    template: Option<PathBuf>,
    answer: Option<Shape>,
    #[serde(default)]
    views: Vec<View>,
    when: Option<String>,
    #[serde(default)]
    replace: bool,
    max_tokens: Option<u32>,
    #[serde(default)]
    temperature: f64,
    /// Detections below are dropped (FG-CLIP: 0.4).
    #[serde(default = "score_min")]
    score_min: f32,
    /// Of two detections that overlap more than this, by intersection over union, the better one stays.
    #[serde(default = "overlap_max")]
    overlap_max: f32,
}

fn score_min() -> f32 {
    0.4
}

fn overlap_max() -> f32 {
    0.5
}

/// A stage.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) server: String,
    /// Asked once an image, or once a region.
    pub(crate) over: Over,
    pub(crate) writes: Field,
    pub(crate) work: Work,
    /// Fields that it reads. Where it has no `when`, it waits for all of them.
    pub(crate) reads: BTreeSet<Field>,
    /// A region or row for which this is false is left as it is.
    pub(crate) when: Option<String>,
    /// Whether a field that has a value gets a new one.
    pub(crate) replace: bool,
}

/// What a stage does.
#[derive(Debug)]
pub(crate) enum Work {
    Chat(Box<Chat>),
    Segment,
    Detect { score_min: f32, overlap_max: f32 },
}

/// What is asked of a chat-completions server.
#[derive(Debug)]
pub(crate) struct Chat {
    pub(crate) template: Template,
    pub(crate) shape: Shape,
    pub(crate) views: Vec<View>,
    pub(crate) max_tokens: u32,
    pub(crate) temperature: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecipe {
    name: String,
    server: BTreeMap<String, Server>,
    stage: Vec<RawStage>,
}

/// Why a recipe cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// A file.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key or a value of another type.
    #[error("{}: {source}", path.display())]
    Toml {
        /// The recipe.
        path: PathBuf,
        /// What is wrong and where.
        source: Box<toml::de::Error>,
    },
    /// Everything else, all at once.
    #[error("{}:\n  {}", path.display(), problems.join("\n  "))]
    Problems {
        /// The recipe.
        path: PathBuf,
        /// Each with the stage that it is about.
        problems: Vec<String>,
    },
}

impl Recipe {
    /// Reads a recipe and the templates that it names. `urls` replaces the addresses of a server by name
    /// (`vlm=http://host:8000/v1`).
    ///
    /// # Errors
    /// [`RecipeError`], with all problems at once.
    pub fn load(path: &Path, urls: &[(String, Vec<String>)]) -> Result<Self, RecipeError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| RecipeError::Read { path: path.into(), source })
        };
        let text = read(path)?;
        let raw: RawRecipe = toml::from_str(&text)
            .map_err(|source| RecipeError::Toml { path: path.into(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut templates = BTreeMap::new();
        for file in raw.stage.iter().filter_map(|s| s.template.as_ref()) {
            templates.insert(file.clone(), read(&folder.join(file))?);
        }
        let mut hash = blake3::Hasher::new();
        for part in std::iter::once(&text).chain(templates.values()) {
            hash.update(part.as_bytes()).update(&[0]);
        }
        let digest = hash.finalize().to_hex()[..8].to_owned();
        let recipe = check::recipe(raw, &templates, urls).map(|recipe| Self { digest, ..recipe });
        recipe.map_err(|problems| RecipeError::Problems { path: path.into(), problems })
    }

    /// The stages' names, in the order in which they run.
    pub fn stages(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().map(|s| s.name.as_str())
    }
}

/// The names that an expression reads; the error in words.
fn names_in(expression: &str) -> Result<Vec<String>, String> {
    let environment = Environment::new();
    let compiled = environment.compile_expression(expression).map_err(|e| e.to_string())?;
    Ok(compiled.undeclared_variables(false).into_iter().collect())
}
