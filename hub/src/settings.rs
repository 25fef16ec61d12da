//! Where the Hub is, and who asks (https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables).

use std::fmt;
use std::path::{Path, PathBuf};

/// What the environment says.
#[derive(Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// `HF_ENDPOINT`, or <https://huggingface.co>.
    pub endpoint: String,
    /// `HF_TOKEN`, or what `hf auth login` keeps at `HF_TOKEN_PATH` or in `HF_HOME`.
    pub token: Option<String>,
}

/// The token is nobody's to read.
impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubSettings({}, {})", self.endpoint, if self.token.is_some() { "a token" } else { "no token" })
    }
}

impl HubSettings {
    /// Those of this process.
    #[must_use]
    pub fn from_env() -> Self {
        Self::of(|name| std::env::var(name).ok(), |path| std::fs::read_to_string(path).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>, file: impl Fn(&Path) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let cache = || {
            let caches = set("XDG_CACHE_HOME").map(PathBuf::from);
            caches.or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache"))).map(|caches| caches.join("huggingface"))
        };
        let kept = || {
            let home = || set("HF_HOME").map(PathBuf::from).or_else(cache).map(|home| home.join("token"));
            let path = set("HF_TOKEN_PATH").map(PathBuf::from).or_else(home)?;
            file(&path).map(|token| token.trim().to_owned()).filter(|token| !token.is_empty())
        };
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), token: set("HF_TOKEN").or_else(kept) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_goes_before_files() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> = set.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            let variable = move |name: &str| set.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
            HubSettings::of(variable, |path| Some(format!("kept at {}\n", path.display())))
        };
        let all = of(&[("HF_TOKEN", "hf_1\n"), ("HF_ENDPOINT", "http://mirror/"), ("HF_HOME", "/h")]);
        assert_eq!((all.endpoint.as_str(), all.token.as_deref()), ("http://mirror", Some("hf_1")));
        assert!(!format!("{all:?}").contains("hf_1"));
        let token = |set: &[(&str, &str)]| of(set).token.expect("a token");
        assert_eq!(token(&[("HOME", "/me")]), "kept at /me/.cache/huggingface/token");
        assert_eq!(token(&[("HOME", "/me"), ("XDG_CACHE_HOME", "/c")]), "kept at /c/huggingface/token");
        assert_eq!(token(&[("HF_TOKEN", " "), ("HF_HOME", "/h")]), "kept at /h/token");
        assert_eq!(token(&[("HF_TOKEN_PATH", "/t"), ("HF_HOME", "/h")]), "kept at /t");
        let none = HubSettings::of(|_| None, |_| None);
        assert_eq!((none.endpoint.as_str(), none.token), ("https://huggingface.co", None));
    }
}
