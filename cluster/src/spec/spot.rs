//! `[spot]`: who tells a worker that its machine is about to be taken back.

use serde::{Deserialize, Serialize};

/// Whose metadata service knows of reclamations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpotProvider {
    /// Nobody is asked.
    None,
    /// EC2's instance metadata service, version 2.
    Aws,
    /// Compute Engine's metadata server.
    Gcp,
    /// Azure's scheduled events.
    Azure,
}

/// `[spot]`: each worker asks the metadata service of its own machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpotSpec {
    /// Whom to ask.
    pub provider: SpotProvider,
    /// `http://host[:port]` in place of the provider's metadata address; empty: that address.
    pub url: String,
    /// Milliseconds between two questions.
    pub poll_ms: u64,
}

impl SpotSpec {
    /// Keys that may change between two starts of one run: they shape no weight.
    pub(super) const NEUTRAL: [&str; 3] = ["provider", "url", "poll_ms"];
}

impl Default for SpotSpec {
    fn default() -> Self {
        Self { provider: SpotProvider::None, url: String::new(), poll_ms: 2_000 }
    }
}
