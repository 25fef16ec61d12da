//! What a coordinator needs to lead a run that nobody computes: a dataset's index, a run file, a folder for both.

use anyhow::{Context, Result};
use pixfleet_checkpoint::Folder;
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::index::{DatasetIndex, FileIndex, LATEST, RowGroupIndex, SplitIndex};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Row groups of the made-up dataset, each of as many rows as a step takes and some.
const ROW_GROUPS: u32 = 5;

/// A run of its own, in a folder that is removed at the end.
pub(super) struct Scene {
    folder: PathBuf,
    pub(super) spec: RunSpec,
}

impl Scene {
    /// A run of `members` lanes of one sample, which count as lost after `patience_ms` of silence.
    pub(super) fn new(members: u32, patience_ms: u64) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("pixfleet-stress-{}-{members}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let url = |name: &str| format!("file://{}", folder.join(name).display());
        let text = format!(
            "[run]\nname = \"stress\"\nseed = 5\nstore = \"{}\"\n[data]\nurl = \"{}\"\nwindow_row_groups = 2\n\
             [schedule]\nsteps = 1000000\nwarmup = 1\n[train]\nglobal_batch = {members}\nlanes = {members}\n\
             patience_ms = {patience_ms}\n[checkpoint]\nevery_steps = 1000000\n",
            url("store"),
            url("data")
        );
        let scene = Self { spec: RunSpec::parse(&text, &[])?, folder };
        write_index(&scene.folder.join("data"), members).context("cannot write the dataset's index")?;
        Ok(scene)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The run's folder in its store.
    pub(super) fn run(&self) -> Result<Folder> {
        Ok(Folder::parse(&self.spec.run.store)?.join(&self.spec.run.name))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What stays in a temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn write_index(folder: &Path, rows: u32) -> Result<()> {
    let group = |n| RowGroupIndex { rows: rows + n, regions: rows, start: 4, end: 40, image_bytes: 30 };
    let file = FileIndex {
        path: "train/part-00000.parquet".into(),
        size: 100,
        etag: None,
        content: Some("made up".into()),
        row_groups: (0..ROW_GROUPS).map(group).collect(),
    };
    let splits = BTreeMap::from([("train".to_string(), SplitIndex { files: vec![file] })]);
    let index = DatasetIndex::new("1", splits);
    std::fs::create_dir_all(folder.join("index"))?;
    std::fs::write(folder.join(index.path()), serde_json::to_vec(&index)?)?;
    std::fs::write(folder.join(LATEST), serde_json::to_vec(&index.latest())?)?;
    Ok(())
}
