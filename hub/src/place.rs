//! `hf://` URLs.

use crate::error::HubError;
use object_store::path::Path;

/// What a repository of the Hub holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// A model.
    Model,
    /// A dataset.
    Dataset,
}

/// A folder of a repository, at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubPlace {
    /// Model or dataset.
    pub kind: RepoKind,
    /// `OWNER/NAME`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Empty for all of it.
    pub folder: Path,
}

impl HubPlace {
    /// Reads `hf://[datasets/]OWNER/NAME[@REVISION][/FOLDER]`; a slash in a revision is written `%2F`.
    ///
    /// # Errors
    /// [`HubError::Place`] for anything else.
    pub fn parse(url: &str) -> Result<Self, HubError> {
        let bad = || HubError::Place { url: url.into() };
        let rest = url.strip_prefix("hf://").ok_or_else(bad)?;
        let (kind, rest) = match rest.strip_prefix("datasets/") {
            Some(rest) => (RepoKind::Dataset, rest),
            None => (RepoKind::Model, rest.strip_prefix("models/").unwrap_or(rest)),
        };
        let mut parts = rest.split('/').filter(|part| !part.is_empty());
        let (owner, name) = (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
        let (name, revision) = match name.split_once('@') {
            Some((name, revision)) => (name, revision.replace("%2F", "/").replace("%2f", "/")),
            None => (name, "main".to_owned()),
        };
        let named =
            |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if owner == "spaces" || !named(owner) || !named(name) || revision.is_empty() {
            return Err(bad());
        }
        Ok(Self { kind, repo: format!("{owner}/{name}"), revision, folder: Path::from_iter(parts) })
    }

    /// The repository's page below the endpoint: `datasets/OWNER/NAME` or `OWNER/NAME`.
    pub(crate) fn page(&self) -> String {
        match self.kind {
            RepoKind::Model => self.repo.clone(),
            RepoKind::Dataset => format!("datasets/{}", self.repo),
        }
    }

    /// The repository in the API: `api/datasets/OWNER/NAME` or `api/models/OWNER/NAME`.
    pub(crate) fn api(&self) -> String {
        match self.kind {
            RepoKind::Model => format!("api/models/{}", self.repo),
            RepoKind::Dataset => format!("api/datasets/{}", self.repo),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_kind_repository_revision_and_folder() {
        let parse = |url: &str| HubPlace::parse(url).expect("a place");
        let place = parse("hf://datasets/me/grit-1.0@refs%2Fpr%2F3/data/train/");
        assert_eq!((place.kind, place.repo.as_str()), (RepoKind::Dataset, "me/grit-1.0"));
        assert_eq!((place.revision.as_str(), place.folder.as_ref()), ("refs/pr/3", "data/train"));
        assert_eq!((place.page(), place.api()), ("datasets/me/grit-1.0".into(), "api/datasets/me/grit-1.0".into()));
        let model = parse("hf://openai/clip-vit-base-patch16");
        assert_eq!((model.kind, model.revision.as_str(), model.folder.as_ref()), (RepoKind::Model, "main", ""));
        assert_eq!(model.api(), "api/models/openai/clip-vit-base-patch16");
        assert_eq!(parse("hf://models/me/one@v1").revision, "v1");
    }

    #[test]
    fn what_is_no_place_says_how_one_is_written() {
        for url in
            ["hf://datasets/grit", "hf://gpt2", "hf://", "s3://a/b", "hf://spaces/a/b", "hf://a/b@", "hf://a b/c"]
        {
            let said = HubPlace::parse(url).expect_err(url).to_string();
            assert!(said.contains("hf://datasets/OWNER/NAME[@REVISION]") && said.contains(url), "{said}");
        }
    }
}
