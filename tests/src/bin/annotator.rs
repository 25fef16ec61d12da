//! `annotator`: what the check of LongGRIT's pipeline is worth, at planted shares of wrong captions. `make annotate-check`.

use anyhow::{Result, ensure};
use clap::Parser;
use comfy_table::{Table, presets};
use pixfleet_tests::standin::{StandIn, StandInConfig, read, strip};
use pixfleet_tests::{pixfleet, root, succeed, url};
use std::path::PathBuf;

/// Annotates mini-LongGRIT's scenes with a stand-in that is wrong at a chosen rate, and counts what the check finds.
#[derive(Parser)]
struct Args {
    /// A dataset composed by `pixfleet shards build mini`.
    #[arg(long)]
    data: String,
    /// What is annotated, if not these scenes themselves: the same pictures and boxes from elsewhere.
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Where the annotated ones go.
    #[arg(long, default_value = "target/annotate-check")]
    out: PathBuf,
    /// The recipe; its stages may leave out the check.
    #[arg(long, default_value = "recipes/annotate/longgrit.toml")]
    recipe: PathBuf,
    /// A real server for the stages that show no picture, instead of the stand-in.
    #[arg(long, value_name = "URL")]
    judge: Option<String>,
    /// Scenes at most.
    #[arg(long, default_value_t = usize::MAX)]
    rows: usize,
    /// Shares of regions with a wrong caption.
    #[arg(long, value_delimiter = ',', default_value = "0.05,0.2,0.5")]
    wrong: Vec<f64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let out = if args.out.is_absolute() { args.out.clone() } else { root().join(&args.out) };
    let bare = url(&out.join("bare"));
    strip(args.from.as_ref().unwrap_or(&args.data), "train", &bare, args.rows, true).await?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["planted", "regions", "wrong", "found", "precision", "recall", "wrong before", "wrong after"]);
    for share in args.wrong {
        let config = StandInConfig { seed: 5, wrong: share, trouble: 0.0, outside: 0.0 };
        let standin = StandIn::start(&args.data, "train", config).await?;
        let to = url(&out.join(format!("wrong-{share}")));
        let mut command = pixfleet(["annotate"]);
        command.arg(root().join(&args.recipe)).args([&bare, "--out", &to]);
        let judge = args.judge.as_ref().unwrap_or(&standin.url);
        for (server, url) in [("vlm", &standin.url), ("llm", judge), ("segmenter", &standin.url)] {
            command.args(["--server", &format!("{server}={url}")]);
        }
        tokio::task::spawn_blocking(move || succeed(command)).await?;
        let planted = standin.served().planted;
        let (mut regions, mut wrong, mut found, mut right) = (0u32, 0u32, 0u32, 0u32);
        for row in read(&to, "train").await? {
            for (at, region) in row.regions.iter().enumerate() {
                let is_wrong = planted.contains_key(&(row.image_id.clone(), at));
                let refused = region.check_ok == Some(false);
                regions += 1;
                wrong += u32::from(is_wrong);
                found += u32::from(refused);
                right += u32::from(refused && is_wrong);
            }
        }
        ensure!((wrong > 0) == (share > 0.0), "{wrong} wrong captions were planted at {share}");
        let part = |a: u32, b: u32| f64::from(a) / f64::from(b.max(1));
        let cells = [
            format!("{share}"),
            regions.to_string(),
            wrong.to_string(),
            found.to_string(),
            format!("{:.3}", part(right, found)),
            format!("{:.3}", part(right, wrong)),
            format!("{:.3}", part(wrong, regions)),
            format!("{:.3}", part(wrong - right, regions - found)),
        ];
        table.add_row(cells);
    }
    println!("{table}");
    Ok(())
}
