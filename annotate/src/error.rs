//! What stops an annotation. A question that cannot be answered does not: it is counted, and told in its row.

use crate::recipe::RecipeError;
use pixfleet_shards::ShardError;

/// Why an annotation stopped. What was answered until then is in the store, and the same command goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum AnnotateError {
    /// The recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The dataset, or where the new one goes.
    #[error(transparent)]
    Shards(#[from] ShardError),
    /// The output is the input.
    #[error(
        "{url} is where the rows come from; expected another place for the annotated ones (--out): nothing is overwritten"
    )]
    SamePlace {
        /// Both.
        url: String,
    },
    /// An empty dataset.
    #[error("nothing to annotate: {url} has no rows in the splits asked for")]
    NoRows {
        /// The dataset.
        url: String,
    },
    /// No server of a model answered for as long as was allowed.
    #[error(
        "no server of `{server}` has answered for {seconds} s, the last word was: {last}; start one at {urls} or raise \
         `patience_s`, then run the same command again: what was answered is kept"
    )]
    NoServer {
        /// Its name in the recipe.
        server: String,
        /// Where its servers are.
        urls: String,
        /// How long.
        seconds: u64,
        /// What was heard last.
        last: String,
    },
    /// A server refuses all requests alike.
    #[error("{url} refuses every request: {said}; check `model` and `key_env` of server `{server}`")]
    Refused {
        /// Its name in the recipe.
        server: String,
        /// Which one.
        url: String,
        /// Status and words.
        said: String,
    },
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}
