//! Captions, checks and hard negatives from servers that speak the OpenAI chat-completions protocol: the pipelines that make
//! LongGRIT and FineHARD (method.md 3.1, 3.4), as stages over the rows of a dataset. Knows no tensors.
//!
//! A recipe names stages; what a stage reads and writes makes them a graph. A question is answered once: its answer is in
//! the store under the hash of all that it depends on before it is used.

mod answers;
mod ask;
mod chat;
mod draft;
mod error;
mod http;
mod job;
mod limit;
mod plug;
mod pool;
mod provenance;
mod recipe;
mod review;
mod shape;
mod stage;
mod tally;
mod template;
mod views;

pub use error::AnnotateError;
pub use job::{Job, JobEnd};
pub use provenance::{Note, NoteKind, notes};
pub use recipe::{Recipe, RecipeError};
pub use review::{Applied, Review, serve};
pub use tally::{JobTally, StageTally};
pub use views::{View, picture};
