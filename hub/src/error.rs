//! What can go wrong with the Hub, and what to do about it.

use object_store::Error;

/// Something of the Hub could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Not such a URL.
    #[error(
        "`{url}` is no place on the Hub; expected hf://datasets/OWNER/NAME[@REVISION][/FOLDER], or hf://OWNER/NAME[@REVISION] for \
         a model"
    )]
    Place {
        /// As given.
        url: String,
    },
    /// `HF_ENDPOINT` is no URL.
    #[error("HF_ENDPOINT is `{endpoint}`; expected a URL like https://huggingface.co")]
    Endpoint {
        /// As given.
        endpoint: String,
    },
    /// Nobody there.
    #[error(
        "cannot reach {url}; without internet, set HF_ENDPOINT to a mirror, or copy the repository with `hf download` and give \
         the folder's path"
    )]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The client's own words.
        source: reqwest::Error,
    },
    /// 401 or 403. The Hub says the same of what is not there and of what one may not see.
    #[error(
        "the Hub shows no repository `{repo}` to {who}: it does not exist, or is private; check its name, and set HF_TOKEN to a \
         token that may read it (or run `hf auth login`){said}"
    )]
    NoAccess {
        /// `datasets/OWNER/NAME` or `OWNER/NAME`.
        repo: String,
        /// Whom it was asked for.
        who: &'static str,
        /// The Hub's own words, after a colon.
        said: String,
    },
    /// A repository whose owner wants to be asked.
    #[error(
        "`{repo}` is gated and not open to {who}: ask for access at {page}, then set HF_TOKEN to your token (or run `hf auth \
         login`){said}"
    )]
    Gated {
        /// `datasets/OWNER/NAME` or `OWNER/NAME`.
        repo: String,
        /// Whom it was asked for.
        who: &'static str,
        /// Where it is asked for.
        page: String,
        /// The Hub's own words, after a colon.
        said: String,
    },
    /// No such branch, tag or commit.
    #[error("`{repo}` has no revision `{revision}`; expected one of its branches, tags or commits")]
    NoRevision {
        /// `datasets/OWNER/NAME` or `OWNER/NAME`.
        repo: String,
        /// As given.
        revision: String,
    },
    /// No such file.
    #[error("`{repo}` has no file `{path}` at revision `{revision}`")]
    NoFile {
        /// `datasets/OWNER/NAME` or `OWNER/NAME`.
        repo: String,
        /// As given.
        revision: String,
        /// Within the repository.
        path: String,
    },
    /// 429, for longer than anybody waits.
    #[error(
        "the Hub has had too many requests from here (429) for {waited} s; with a token (HF_TOKEN) more are allowed, and a copy \
         (`hf download`) needs none"
    )]
    Busy {
        /// Seconds that were waited.
        waited: u64,
    },
    /// Any other answer.
    #[error("{url} answered {status}{said}")]
    Status {
        /// What was asked for.
        url: String,
        /// Its status.
        status: u16,
        /// Its own words, after a colon.
        said: String,
    },
    /// An answer that makes no sense.
    #[error("{url}: {problem}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A connection that broke within an answer.
    #[error("the answer of {url} broke off")]
    Broken {
        /// What was asked for.
        url: String,
        /// The client's own words.
        source: reqwest::Error,
    },
    /// Somebody wanted to write.
    #[error("the Hub is read and not written here; write to a folder or a bucket, and publish it with `hf upload`")]
    ReadOnly,
}

impl HubError {
    /// As a store's error about `path`.
    pub(crate) fn at(self, path: &str) -> Error {
        let path = path.to_owned();
        match self {
            Self::NoAccess { .. } | Self::Gated { .. } => Error::Unauthenticated { path, source: self.into() },
            Self::ReadOnly => Error::PermissionDenied { path, source: self.into() },
            Self::NoRevision { .. } | Self::NoFile { .. } => Error::NotFound { path, source: self.into() },
            Self::Place { .. }
            | Self::Endpoint { .. }
            | Self::Unreachable { .. }
            | Self::Busy { .. }
            | Self::Status { .. }
            | Self::Answer { .. }
            | Self::Broken { .. } => Error::Generic { store: "Hub", source: self.into() },
        }
    }
}
