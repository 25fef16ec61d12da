//! Datasets and models of the Hugging Face Hub, from a stand-in that refuses, redirects and lets signatures run out.

use futures::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use pixfleet_hub::{HubSettings, open};
use pixfleet_tests::hub_standin::{COMMIT, HubStandIn, RepoAccess, TOKEN};
use pixfleet_tests::{TestRun, dataset, pixfleet, scratch, succeed};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn store(hub: &HubStandIn, url: &str, token: Option<&str>) -> Arc<dyn ObjectStore> {
    let settings = HubSettings { endpoint: hub.endpoint.clone(), token: token.map(str::to_owned) };
    open(url, settings).expect("a place").0
}

/// A small repository: one large file, a folder of eleven, an empty one.
fn small() -> PathBuf {
    let folder = scratch().join("hub-small");
    std::fs::create_dir_all(folder.join("data/of it")).expect("scratch is writable");
    std::fs::write(folder.join("config.json"), "{}").expect("scratch is writable");
    std::fs::write(folder.join("big.parquet"), (0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())
        .expect("scratch is writable");
    for i in 0..11 {
        std::fs::write(folder.join(format!("data/of it/{i}.parquet")), vec![i; 10]).expect("scratch is writable");
    }
    std::fs::write(folder.join("data/empty.parquet"), "").expect("scratch is writable");
    folder
}

#[tokio::test]
async fn a_repository_is_listed_by_pages_and_read_by_ranges() {
    let hub = HubStandIn::start().await.expect("it serves");
    let folder = small();
    hub.add("datasets/me/small", &folder, RepoAccess::Private);
    let store = store(&hub, "hf://datasets/me/small@refs%2Fpr%2F1", Some(TOKEN));
    let listed: Vec<_> = store.list(None).try_collect().await.expect("a listing");
    assert_eq!(listed.len(), 14, "{listed:?}");
    let big = std::fs::read(folder.join("big.parquet")).expect("a file");
    let at = Key::from("big.parquet");
    assert_eq!(listed.iter().find(|o| o.location == at).map(|o| o.size), Some(big.len() as u64));
    let below = store.list_with_delimiter(Some(&Key::from("data"))).await.expect("a listing");
    assert_eq!((below.objects.len(), below.common_prefixes), (1, vec![Key::from("data/of it")]));
    assert!(store.list(Some(&Key::from("nowhere"))).try_collect::<Vec<_>>().await.expect("nothing").is_empty());

    hub.be_busy(2);
    assert_eq!(store.get_range(&at, 1000..5000).await.expect("a range"), big[1000..5000]);
    assert_eq!(hub.counts().busy, 2, "both were waited for");
    let ranges = store.get_ranges(&at, &[0..4, 300_000..300_040]).await.expect("ranges");
    assert_eq!((&ranges[0][..], &ranges[1][..]), (&big[..4], &big[300_000..300_040]));
    assert_eq!(store.get(&at).await.expect("all").bytes().await.expect("all"), big);
    assert_eq!(hub.counts().resolve, 1, "the signed address is asked for once");
    hub.expire();
    let head = store.head(&at).await.expect("it is there");
    assert_eq!((head.size, head.version.as_deref()), (big.len() as u64, Some(COMMIT)));
    let counts = hub.counts();
    assert_eq!((counts.expired, counts.resolve, counts.leaked), (1, 2, 0), "{counts:?}");
    assert_eq!(store.head(&Key::from("data/empty.parquet")).await.expect("it is there").size, 0);
    let one = store.get(&Key::from("data/of it/7.parquet")).await.expect("a file").bytes().await.expect("a file");
    assert_eq!(&one[..], &[7; 10]);
    assert_eq!(hub.counts().leaked, 0, "the token is the Hub's alone");
    assert!(store.get_range(&at, 400_000..400_001).await.is_err(), "beyond its end");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let hub = HubStandIn::start().await.expect("it serves");
    let folder = small();
    hub.add("me/private", &folder, RepoAccess::Private);
    hub.add("me/gated", &folder, RepoAccess::Gated);
    let file = |url: &'static str, token: Option<&'static str>, name: &'static str| {
        let store = store(&hub, url, token);
        async move { store.get(&Key::from(name)).await.map(drop).expect_err(url).to_string() }
    };
    let cases = [
        ("hf://me/private", None, "config.json", "shows no repository `me/private` to somebody without a token"),
        ("hf://me/private", Some("hf_wrong"), "config.json", "to the owner of this token"),
        (
            "hf://me/gated",
            None,
            "big.parquet",
            "`me/gated` is gated and not open to somebody without a token: ask for access at",
        ),
        ("hf://me/gated@v9", None, "config.json", "`me/gated` has no revision `v9`"),
        ("hf://me/gated", Some(TOKEN), "none.json", "`me/gated` has no file `none.json` at revision `main`"),
    ];
    for (url, token, name, said) in cases {
        let found = file(url, token, name).await;
        assert!(found.contains(said) && !found.contains("hf_wrong"), "{url} {name}: {found}");
    }
    let store = store(&hub, "hf://me/gated", Some(TOKEN));
    let error = store.put(&Key::from("a"), "b".into()).await.map(drop).expect_err("no writing").to_string();
    assert!(error.contains("the Hub is read and not written here"), "{error}");
    let settings = HubSettings { endpoint: "http://127.0.0.1:9".into(), token: None };
    let (nobody, _) = open("hf://me/one", settings).expect("a place");
    let error = nobody.get(&Key::from("a")).await.map(drop).expect_err("nobody there").to_string();
    assert!(error.contains("cannot reach http://127.0.0.1:9") && error.contains("set HF_ENDPOINT"), "{error}");
}

/// `command` as somebody who knows the stand-in.
fn known(mut command: Command, hub: &HubStandIn, token: &str) -> Command {
    command.env("HF_ENDPOINT", &hub.endpoint).env("HF_TOKEN", token).env("HF_HOME", scratch());
    command
}

async fn run(command: Command) -> std::process::Output {
    tokio::task::spawn_blocking(move || succeed(command)).await.expect("it ran")
}

/// A run on a private dataset of the Hub, and its model back from the Hub: the same features, bit for bit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_trains_on_the_hub_and_its_model_comes_back_from_it() {
    let hub = HubStandIn::start().await.expect("it serves");
    let local = Path::new(dataset().trim_start_matches("file://"));
    hub.add("datasets/me/mini", local, RepoAccess::Private);
    let there = "hf://datasets/me/mini@main";
    let trained = TestRun::new("on-the-hub");
    let mut train = trained.train(1);
    let url = format!("data.url={there}");
    train.args(["--set", &url, "--set", "schedule.steps=2", "--set", "schedule.warmup=0"]);
    run(known(train, &hub, TOKEN)).await;
    assert!(hub.counts().elsewhere > 0 && hub.counts().leaked == 0, "{:?}", hub.counts());
    let audit = run(known(pixfleet(["audit", &trained.url()]), &hub, TOKEN)).await;
    assert!(String::from_utf8_lossy(&audit.stdout).contains("clean: every sample"), "{audit:?}");

    let folder = trained.dir.join("hub");
    let mut export = pixfleet(["export", "hub", &trained.url(), "--dataset", "me/mini", "--out"]);
    export.arg(&folder);
    run(known(export, &hub, TOKEN)).await;
    hub.add("me/small", &folder, RepoAccess::Gated);
    let mut tables = Vec::new();
    // The published run file names the dataset.
    for (name, args) in
        [("run", vec![trained.url(), "--data".into(), dataset().into()]), ("hub", vec!["hf://me/small".into()])]
    {
        let out = trained.dir.join(format!("{name}.parquet"));
        let mut encode = pixfleet(["encode"]);
        encode.args(args).args(["--split", "test", "--limit", "40", "--out"]).arg(&out);
        run(known(encode, &hub, TOKEN)).await;
        tables.push(std::fs::read(&out).expect("written"));
    }
    assert!(tables[0] == tables[1], "the model from the Hub has other features");

    let mut closed = known(pixfleet(["eval", "hf://me/small"]), &hub, "hf_of_somebody");
    let output = tokio::task::spawn_blocking(move || closed.output()).await.expect("it ran").expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("is gated and not open to the owner of this token"), "{said}");
}
