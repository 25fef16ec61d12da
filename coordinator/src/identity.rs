//! Whether two run files describe the same run. Where things lie, how long to wait and what to keep may change between
//! a start and the next; what shapes the weights may not.

use crate::error::CoordinatorError;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use pixfleet_checkpoint::Folder;
use pixfleet_cluster::RunSpec;

/// The run file as it was at the first start.
const OBJECT: &str = "run.toml";

/// Writes the run file of a new run; compares it for one that exists.
///
/// # Errors
/// [`CoordinatorError::OtherSpec`] names the keys that differ; [`CoordinatorError::Permission`] if the store refuses.
pub(crate) async fn claim(location: &Folder, spec: &RunSpec) -> Result<(), CoordinatorError> {
    let url = format!("{}/{OBJECT}", location.url());
    let path = location.path(OBJECT);
    let put = location.store().put_opts(&path, spec.to_toml().into(), PutMode::Create.into()).await;
    match put {
        Ok(_) => Ok(()),
        Err(object_store::Error::AlreadyExists { .. }) => {
            let failed = |source| CoordinatorError::store("read", url.clone(), source);
            let bytes = location.store().get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?;
            let keys = differences(&String::from_utf8_lossy(&bytes), &spec.to_toml());
            if keys.is_empty() {
                return Ok(());
            }
            Err(CoordinatorError::OtherSpec { run: spec.run.name.clone(), keys: keys.join(", ") })
        }
        Err(source) => Err(CoordinatorError::store("write", url, source)),
    }
}

/// `key (then, now)` of each value that differs and matters.
fn differences(then: &str, now: &str) -> Vec<String> {
    let (then, now) = (flat(then), flat(now));
    let keys: std::collections::BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let show = |v: Option<&String>| v.map_or("absent".to_string(), Clone::clone);
    keys.into_iter()
        .filter(|key| !RunSpec::is_neutral(key) && then.get(*key) != now.get(*key))
        .map(|key| format!("{key} ({}, now {})", show(then.get(key)), show(now.get(key))))
        .collect()
}

fn flat(text: &str) -> std::collections::BTreeMap<String, String> {
    fn walk(prefix: &str, table: &toml::Table, out: &mut std::collections::BTreeMap<String, String>) {
        for (key, value) in table {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                toml::Value::Table(inner) => walk(&path, inner, out),
                other => drop(out.insert(path, other.to_string())),
            }
        }
    }
    let mut out = std::collections::BTreeMap::new();
    // A file that is no longer TOML differs in every key, which is what there is to say.
    walk("", &text.parse::<toml::Table>().unwrap_or_default(), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[run]\nname = \"r\"\nstore = \"file:///tmp/a\"\n[data]\nurl = \"file:///tmp/d\"\n\
                        [schedule]\nsteps = 10\nwarmup = 2\n";

    #[tokio::test]
    async fn a_run_keeps_its_file_but_for_neutral_keys() {
        let location = Folder::in_memory();
        let spec = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(|s| (*s).to_string()).collect();
            RunSpec::parse(FILE, &set).expect("valid")
        };
        claim(&location, &spec(&[])).await.expect("new");
        claim(
            &location,
            &spec(&["checkpoint.keep=9", "train.min_workers=2", "spot.provider=aws", "train.patience_ms=9000"]),
        )
        .await
        .expect("neutral keys");
        let error = claim(&location, &spec(&["optimizer.lr=0.5", "run.seed=4"])).await.expect_err("another run");
        assert_eq!(
            error.to_string(),
            "run `r` was started with another run file; these differ: optimizer.lr (0.00001, now 0.5), run.seed (0, \
             now 4); give a new name with --set run.name=..., or the values it was started with"
        );
    }
}
