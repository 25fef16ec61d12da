//! The Hugging Face Hub as a read-only object store: `hf://datasets/OWNER/NAME[@REVISION][/FOLDER]` for datasets,
//! `hf://OWNER/NAME[@REVISION][/FOLDER]` for models, as `huggingface_hub` writes them
//! (https://huggingface.co/docs/huggingface_hub/guides/hf_file_system).
//!
//! | request | what for | source |
//! |---|---|---|
//! | `GET /api/{datasets,models}/OWNER/NAME/revision/REVISION` | which commit a branch or tag is, asked once | https://huggingface.co/spaces/huggingface/openapi |
//! | `GET /api/{datasets,models}/OWNER/NAME/tree/COMMIT/FOLDER` | listing, a page at a time by `Link: <...>; rel="next"` | the same |
//! | `GET [/datasets]/OWNER/NAME/resolve/COMMIT/FILE` with `Range` | bytes; large files are elsewhere, at a signed address | https://huggingface.co/docs/hub/rate-limits |
//!
//! Invariants: one store reads one commit, whatever is pushed meanwhile; the token goes to the Hub alone, never to where it
//! sends us.

mod client;
mod error;
mod headers;
mod place;
mod settings;
mod store;

pub use error::HubError;
pub use place::{HubPlace, RepoKind};
pub use settings::HubSettings;

use object_store::ObjectStore;
use object_store::path::Path;
use std::sync::Arc;

/// The store that `url` names, and the folder within it. Nothing is fetched.
///
/// # Errors
/// [`HubError::Place`] for another URL, [`HubError::Endpoint`] for settings that name no server.
pub fn open(url: &str, settings: HubSettings) -> Result<(Arc<dyn ObjectStore>, Path), HubError> {
    let place = HubPlace::parse(url)?;
    let folder = place.folder.clone();
    Ok((Arc::new(store::HubStore::new(client::Client::new(place, settings)?)), folder))
}
