//! LongGRIT's pipeline over real scenes, against a stand-in that sees them and makes trouble.

use pixfleet_annotate::NoteKind;
use pixfleet_shards::ImageRow;
use pixfleet_tests::standin::{StandIn, StandInConfig, TroubleKind, read, recipe, strip};
use pixfleet_tests::{dataset, pixfleet, root, scratch, succeed, url};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROWS: usize = 60;
const CALM: StandInConfig = StandInConfig { seed: 3, wrong: 0.2, trouble: 0.0, outside: 0.1 };

fn annotate(recipe: &Path, data: &str, out: &str, standin: &StandIn) -> Command {
    let mut command = pixfleet(["annotate"]);
    command.arg(recipe).args([data, "--out", out, "--lease", "2"]);
    for server in ["vlm", "llm", "segmenter"] {
        command.args(["--server", &format!("{server}={}", standin.url)]);
    }
    command
}

/// The rows without when they were asked about.
async fn rows(out: &str) -> Vec<ImageRow> {
    let rows = read(out, "train").await.expect("an annotated dataset");
    rows.into_iter().map(|row| ImageRow { provenance: None, ..row }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_and_kills_change_no_row_and_no_question_is_answered_twice() {
    let folder = |name: &str| url(&scratch().join("annotate").join(name));
    let (bare, calm_out, out) = (folder("bare"), folder("calm"), folder("troubled"));
    strip(dataset(), "train", &bare, ROWS, true).await.expect("stripped");
    let little_patience = "timeout_s = 2\npatience_s = 60";
    let recipe = recipe(&scratch().join("annotate/recipe"), little_patience).expect("scratch is writable");

    let calm = StandIn::start(dataset(), "train", CALM).await.expect("it serves");
    let mut command = annotate(&recipe, &bare, &calm_out, &calm);
    tokio::task::spawn_blocking(move || succeed(command_quiet(&mut command))).await.expect("annotated");
    assert!(calm.served().answers.values().all(|&times| times == 1), "a question was answered twice");

    let troubled =
        StandIn::start(dataset(), "train", StandInConfig { trouble: 0.15, ..CALM }).await.expect("it serves");
    let mut first = annotate(&recipe, &bare, &out, &troubled).stderr(Stdio::null()).spawn().expect("it starts");
    let began = Instant::now();
    while troubled.served().answers.len() < calm.served().answers.len() / 3 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is asked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let at_kill = troubled.served().answers.len();
    first.kill().expect("it lives");
    first.wait().expect("it is ours");
    assert!(at_kill < calm.served().answers.len(), "killed after the last answer");
    let mut command = annotate(&recipe, &bare, &out, &troubled);
    tokio::task::spawn_blocking(move || succeed(command_quiet(&mut command))).await.expect("annotated");

    let served = troubled.served();
    for kind in [TroubleKind::Dies, TroubleKind::Stalls, TroubleKind::TooMany, TroubleKind::Fails, TroubleKind::Garbage]
    {
        assert!(served.troubles.get(&kind).is_some_and(|&n| n > 0), "{kind:?} did not happen: {:?}", served.troubles);
    }
    // An answer that was on its way when the process died is asked for again.
    let twice = served.answers.values().filter(|&&times| times > 1).count();
    assert!(twice <= 32, "{twice} questions were answered twice");
    assert!(served.answers.values().all(|&times| times <= 2));
    assert_eq!(rows(&out).await, rows(&calm_out).await);
    told(&out, &served.planted.len()).await;
}

/// Every region has its captions or says why not, every note says who wrote what.
async fn told(out: &str, planted: &usize) {
    let (mut checked, mut refused) = (0, 0);
    for row in read(out, "train").await.expect("an annotated dataset") {
        let notes = pixfleet_annotate::notes(&row);
        for (at, region) in (0u32..).zip(&row.regions) {
            let of = |field: &str| notes.iter().find(|n| n.region == Some(at) && n.field == field);
            let rejected = notes.iter().any(|n| n.region == Some(at) && n.kind == NoteKind::Rejected);
            assert!(region.mask.is_some());
            assert!(rejected || region.caption_object.is_some() && region.caption_context.is_some());
            if let Some(ok) = region.check_ok {
                checked += 1;
                refused += usize::from(!ok);
                let note = of("check_ok").expect("a note");
                assert!(note.reason.is_some() && note.model.is_some() && note.at > 0, "{note:?}");
                assert!(rejected || ok == region.caption_merged.is_some());
            }
        }
    }
    assert!(checked > 100 && refused > 0 && refused < checked / 2 && *planted > 0, "{refused} of {checked}, {planted}");
}

/// FineHARD's recipe from bare pictures: the composer's regions come back, each with its ten hard negatives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finehard_finds_the_regions_and_their_negatives() {
    let folder = |name: &str| url(&scratch().join("finehard").join(name));
    let (bare, out) = (folder("bare"), folder("out"));
    strip(dataset(), "train", &bare, 20, false).await.expect("stripped");
    let standin = StandIn::start(dataset(), "train", StandInConfig { outside: 0.0, ..CALM }).await.expect("it serves");
    let mut command = pixfleet(["annotate"]);
    command.arg(root().join("recipes/annotate/finehard.toml")).args([&bare, "--out", &out]);
    for server in ["vlm", "llm", "detector"] {
        command.args(["--server", &format!("{server}={}", standin.url)]);
    }
    tokio::task::spawn_blocking(move || succeed(command)).await.expect("annotated");
    let composed = read(dataset(), "train").await.expect("the dataset");
    let mut regions = 0;
    for (row, true_row) in rows(&out).await.iter().zip(&composed) {
        assert_eq!((&row.caption_long, &row.caption_short), (&true_row.caption_long, &true_row.caption_short));
        for region in &row.regions {
            let near = |t: &&pixfleet_shards::Region| t.bbox.iter().zip(region.bbox).all(|(a, b)| (a - b).abs() < 1e-4);
            let composed = true_row.regions.iter().find(near).expect("a composed region's box");
            assert_eq!(region.short_expr, composed.short_expr);
            assert_eq!((region.hard_negs.len(), region.hard_neg_kinds.len()), (10, 10));
            regions += 1;
        }
    }
    let all: usize = composed.iter().take(20).map(|r| r.regions.len()).sum();
    // Boxes that overlap by more than half are one to a detector.
    assert!(regions * 10 >= all * 8, "{regions} of {all} regions");
}

fn command_quiet(command: &mut Command) -> Command {
    std::mem::replace(command, Command::new("true"))
}
