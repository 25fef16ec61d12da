//! How a benchmark is run: what of a row is shown and how, which texts ask, how answers are counted. Every quirk of a
//! published protocol is a value here, and every value may be typed otherwise.

use super::score::{Average, Ties};
use super::table::{Benchmark, Task};
use crate::eval::templates::{Prompts, Templates};
use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use pixfleet_shards::sample::Frame;

/// How a region is shown to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Show {
    /// The picture with the region's mask.
    Mask,
    /// The picture with the region's box as if it were the mask.
    Box,
    /// Pooled by its box from the patch map (RoIAlign).
    Pool,
    /// Cut out, without a mask.
    Crop,
}

/// How a picture becomes the model's square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FrameKind {
    /// Both sides resized freely.
    Squash,
    /// Zero-padded to a square.
    Pad,
    /// The square in its middle.
    Center,
    /// A square around each region, white beyond the border; see --crop-scale.
    Crop,
}

/// How category names are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Names {
    /// `_` is a space.
    Words,
    /// As they stand in the data.
    Raw,
}

/// Which captions of a picture are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaptionKind {
    /// Those that people wrote (column `captions`).
    All,
    /// `caption_long`.
    Long,
    /// `caption_short`.
    Short,
}

/// One way to run a benchmark. What its task does not look at has no effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Protocol {
    /// How regions are shown.
    pub(crate) show: Show,
    /// How pictures become squares.
    pub(crate) frame: Frame,
    /// Whether similarities to the region on a blurred picture are added (ReCLIP's `full,blur` with `sum`).
    pub(crate) blur: bool,
    /// What an all-ones mask is once normalized; for towers that take one.
    pub(crate) full_mask_value: f64,
    /// Prompts around categories, expressions and captions.
    pub(crate) prompts: Prompts,
    /// How category names are read.
    pub(crate) names: Names,
    /// Whether texts are lower-cased.
    pub(crate) lower: bool,
    /// Whether texts go through the long path of towers that have one.
    pub(crate) long: bool,
    /// Which captions are asked.
    pub(crate) captions: CaptionKind,
    /// Most captions of a picture.
    pub(crate) per_picture: Option<usize>,
    /// Pictures, from the first of the split.
    pub(crate) first: Option<u64>,
    /// How classes are averaged.
    pub(crate) average: Average,
    /// What ties count.
    pub(crate) ties: Ties,
}

/// What can be typed instead of a benchmark's own values.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Benchmarks (--bench); each option unless told as published")]
pub(crate) struct ProtocolArgs {
    /// Over what shares of classes are averaged.
    #[arg(long, value_enum)]
    average: Option<Average>,
    /// What an answer counts that ties with another.
    #[arg(long, value_enum)]
    ties: Option<Ties>,
    /// Pictures at most, from the first of the split; 0 for all.
    #[arg(long, value_name = "PICTURES")]
    first: Option<u64>,
    /// How regions are shown.
    #[arg(long, value_enum)]
    show: Option<Show>,
    /// How pictures become squares.
    #[arg(long, value_enum)]
    frame: Option<FrameKind>,
    /// Side of a crop over the longer side of the region's box.
    #[arg(long)]
    crop_scale: Option<f64>,
    /// Whether similarities on a picture that is blurred outside of the region are added.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    blur: Option<bool>,
    /// Normalized value of an all-ones mask: 1.0 as in PixCLIP's retrieval, 1.923 as in training.
    #[arg(long)]
    full_mask_value: Option<f64>,
    /// How category names are read.
    #[arg(long, value_enum)]
    names: Option<Names>,
    /// Whether expressions, captions and category names are lower-cased.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    lower: Option<bool>,
    /// Which captions of a picture are asked.
    #[arg(long, value_enum)]
    captions: Option<CaptionKind>,
    /// Captions of a picture at most; 0 for all.
    #[arg(long, value_name = "N")]
    per_picture: Option<usize>,
}

/// A benchmark's protocol with what was typed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chosen {
    /// The values.
    pub(crate) protocol: Protocol,
    /// Its prompts.
    pub(crate) templates: Templates,
    /// Values as people read them, by name: those that the task looks at.
    pub(crate) words: Vec<(&'static str, String)>,
    /// How they differ from the published ones, in words.
    pub(crate) departures: Vec<String>,
}

impl ProtocolArgs {
    /// Of `benchmark` for a model that takes masks, or does not. `templates`: what was typed of them.
    ///
    /// # Errors
    /// Values that do not fit each other, the task or the model.
    pub(crate) fn choose(&self, benchmark: &Benchmark, takes_mask: bool, templates: &[String]) -> Result<Chosen> {
        let published = benchmark.protocol;
        let protocol = self.of(benchmark, takes_mask);
        let name = benchmark.name;
        let regions = benchmark.task.shows_regions();
        ensure!(
            takes_mask || !regions || !matches!(protocol.show, Show::Mask | Show::Box),
            "`{name}` shows regions by masks and this model takes none; --show pool or --show crop shows them otherwise"
        );
        let cropped = matches!(protocol.frame, Frame::Crop { .. });
        ensure!(regions || !cropped, "`{name}` shows whole pictures: --frame crop has no region to cut around");
        ensure!(protocol.show != Show::Crop || cropped, "--show crop needs --frame crop");
        ensure!(
            protocol.show != Show::Pool || !cropped,
            "--show pool pools from whole pictures: --frame crop does not fit"
        );
        ensure!(
            !(protocol.blur && protocol.show == Show::Pool),
            "--blur is for regions that are shown by mask, box or crop"
        );
        let templates = match templates {
            [] => Templates::of(protocol.prompts),
            [one] => Templates::open(one)?,
            _ => bail!("--templates: a benchmark takes one kind of prompts, {} were given", templates.len()),
        };
        let words = protocol.words(benchmark.task, &templates);
        let original = published.words(benchmark.task, &Templates::of(published.prompts));
        let departures = words.iter().zip(&original).filter(|(own, published)| own != published);
        let departures = departures.map(|((key, own), (_, published))| format!("{key}: {own}; published: {published}"));
        Ok(Chosen { protocol, templates, departures: departures.collect(), words })
    }

    fn of(&self, benchmark: &Benchmark, takes_mask: bool) -> Protocol {
        let published = benchmark.protocol;
        // Regions that FG-CLIP pools are what PixCLIP shows by a mask.
        let default = if published.show == Show::Pool && takes_mask { Show::Box } else { published.show };
        let show = self.show.unwrap_or(default);
        let kind = self.frame.or((self.show == Some(Show::Crop)).then_some(FrameKind::Crop));
        let scale = |own: f64| self.crop_scale.unwrap_or(own);
        let frame = match (kind, published.frame) {
            (None, Frame::Crop { scale: own }) => Frame::Crop { scale: scale(own) },
            (None, own @ (Frame::Squash | Frame::Pad | Frame::Center)) => own,
            (Some(FrameKind::Squash), _) => Frame::Squash,
            (Some(FrameKind::Pad), _) => Frame::Pad,
            (Some(FrameKind::Center), _) => Frame::Center,
            (Some(FrameKind::Crop), Frame::Crop { scale: own }) => Frame::Crop { scale: scale(own) },
            (Some(FrameKind::Crop), Frame::Squash | Frame::Pad | Frame::Center) => Frame::Crop { scale: scale(1.0) },
        };
        let captions = self.captions.unwrap_or(published.captions);
        Protocol {
            show,
            frame,
            blur: self.blur.unwrap_or(published.blur && show != Show::Pool),
            full_mask_value: self.full_mask_value.unwrap_or(published.full_mask_value),
            names: self.names.unwrap_or(published.names),
            lower: self.lower.unwrap_or(published.lower),
            // Captions go through the path that is theirs; no other text does.
            long: match (benchmark.task, self.captions) {
                (Task::Retrieve, Some(captions)) => captions == CaptionKind::Long,
                (Task::Retrieve | Task::Name | Task::NamePicture | Task::Choose | Task::Refer, _) => published.long,
            },
            captions,
            per_picture: self.per_picture.map_or(published.per_picture, |n| (n > 0).then_some(n)),
            first: self.first.map_or(published.first, |n| (n > 0).then_some(n)),
            average: self.average.unwrap_or(published.average),
            ties: self.ties.unwrap_or(published.ties),
            prompts: published.prompts,
        }
    }
}

impl Protocol {
    /// The values that `task` looks at, by the names of their options.
    pub(crate) fn words(&self, task: Task, templates: &Templates) -> Vec<(&'static str, String)> {
        let yes = |on: bool| if on { "yes" } else { "no" }.to_owned();
        let most = |n: Option<u64>| n.map_or_else(|| "all".to_owned(), |n| n.to_string());
        let frame = match self.frame {
            Frame::Crop { scale } => format!("crop {scale}, white beyond the border"),
            Frame::Squash => typed(FrameKind::Squash),
            Frame::Pad => typed(FrameKind::Pad),
            Frame::Center => typed(FrameKind::Center),
        };
        let mut words = vec![("frame", frame), ("templates", templates.words()), ("first", most(self.first))];
        words.push(("lower", yes(self.lower)));
        words.push(("ties", typed(self.ties)));
        if task.shows_regions() {
            words.extend([("show", typed(self.show)), ("blur", yes(self.blur))]);
        } else {
            words.push(("full-mask-value", format!("{:.3}", self.full_mask_value)));
        }
        match task {
            Task::Name | Task::NamePicture => {
                words.extend([("average", typed(self.average)), ("names", typed(self.names))]);
            }
            Task::Retrieve => {
                let most = most(self.per_picture.map(|n| n as u64));
                words.extend([("captions", typed(self.captions)), ("per-picture", most)]);
            }
            Task::Choose | Task::Refer => {}
        }
        words
    }
}

/// A value as it is typed.
fn typed(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::table::find;
    use super::*;

    fn choose(name: &str, args: &ProtocolArgs, takes_mask: bool) -> Result<Chosen> {
        args.choose(find(name).expect("a benchmark"), takes_mask, &[])
    }

    #[test]
    fn nothing_typed_is_the_published_protocol() {
        for benchmark in super::super::table::BENCHMARKS {
            let masks = benchmark.protocol.show != Show::Pool;
            let chosen = choose(benchmark.name, &ProtocolArgs::default(), masks).expect("fits");
            assert_eq!((chosen.protocol, chosen.departures.len()), (benchmark.protocol, 0), "{}", benchmark.name);
        }
    }

    #[test]
    fn what_is_typed_is_told_as_a_departure() {
        let args = ProtocolArgs { average: Some(Average::Micro), crop_scale: Some(2.0), ..ProtocolArgs::default() };
        let chosen = choose("coco-mask", &args, true).expect("fits");
        assert_eq!((chosen.protocol.average, chosen.protocol.frame), (Average::Micro, Frame::Crop { scale: 2.0 }));
        let told = chosen.departures.join("\n");
        assert!(told.contains("average: micro; published: class") && told.contains("published: crop 1.5"), "{told}");
        let long = ProtocolArgs { captions: Some(CaptionKind::Long), ..ProtocolArgs::default() };
        let path = |name| choose(name, &long, false).expect("fits").protocol.long;
        assert!(path("coco-retrieval") && !path("fgovd-hard"), "expressions have no long path");
        let all = ProtocolArgs { first: Some(0), per_picture: Some(1), ..ProtocolArgs::default() };
        assert_eq!(choose("docci", &all, true).expect("fits").protocol.first, None);
        assert_eq!(choose("flickr30k", &all, true).expect("fits").protocol.per_picture, Some(1));
    }

    #[test]
    fn a_model_of_masks_meets_boxes_as_masks_and_one_without_is_told_what_to_do() {
        let with = choose("coco-box", &ProtocolArgs::default(), true).expect("fits");
        assert_eq!((with.protocol.show, with.departures.len()), (Show::Box, 1));
        let error = choose("coco-mask", &ProtocolArgs::default(), false).expect_err("no mask").to_string();
        assert!(error.contains("`coco-mask` shows regions by masks") && error.contains("--show pool"), "{error}");
        let crop = ProtocolArgs { show: Some(Show::Crop), ..ProtocolArgs::default() };
        assert_eq!(choose("coco-box", &crop, false).expect("fits").protocol.frame, Frame::Crop { scale: 1.0 });
        let pool = ProtocolArgs { show: Some(Show::Pool), ..ProtocolArgs::default() };
        assert!(!choose("refcoco", &pool, false).expect("fits").protocol.blur, "what is pooled is not blurred");
        let bad = ProtocolArgs { frame: Some(FrameKind::Crop), ..ProtocolArgs::default() };
        assert!(choose("imagenet", &bad, true).is_err() && choose("coco-box", &bad, false).is_err());
    }
}
