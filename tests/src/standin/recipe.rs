//! LongGRIT's recipe, as a test wants its servers.

use crate::root;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Copies `recipes/annotate/longgrit.toml` and its templates into the folder `to`, with `settings` (lines of TOML) for each of
/// its servers; the recipe's path.
pub fn recipe(to: &Path, settings: &str) -> Result<PathBuf> {
    let from = root().join("recipes/annotate");
    std::fs::create_dir_all(to.join("longgrit"))?;
    for file in std::fs::read_dir(from.join("longgrit")).context("the recipe's templates")? {
        let file = file?;
        std::fs::copy(file.path(), to.join("longgrit").join(file.file_name()))?;
    }
    let text = std::fs::read_to_string(from.join("longgrit.toml")).context("the recipe")?;
    // A key may stand once.
    let keys: Vec<&str> = settings.lines().filter_map(|line| line.split_once(" =")).map(|(key, _)| key).collect();
    let kept = text.lines().filter(|line| !keys.iter().any(|key| line.starts_with(key)));
    let path = to.join("longgrit.toml");
    let text = kept.collect::<Vec<_>>().join("\n").replace("model = ", &format!("{settings}\nmodel = "));
    std::fs::write(&path, text)?;
    Ok(path)
}
