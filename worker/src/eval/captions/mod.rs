//! Evaluation of FG-CLIP's runs (method.md 5.1): images and captions, regions and expressions, the true text among hard
//! negatives, the categories of boxes. Another run may stand beside, measured on the same split.

mod about;
mod classes;
pub(crate) mod features;
mod gallery;
mod hard;
pub(crate) mod measure;
mod table;

#[cfg(test)]
mod tests;

use super::subject::{Subject, SubjectArgs};
use super::templates::{Prompts, Templates};
use super::{Opened, Shown, facts};
use crate::report::{CaptionFindings, EvalReport, Findings, LossCurve};
use anyhow::{Context, Result, ensure};
use features::SplitFeatures;
use measure::Measures;
use serde_json::Value;

/// What can be typed for FG-CLIP's runs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CaptionArgs {
    /// Another run, `<store>/<name>`, to be measured on the same split and shown beside (FG-CLIP).
    #[arg(long, value_name = "RUN")]
    beside: Option<String>,
    /// What RUN is called where there are two; its name unless told.
    #[arg(long, requires = "beside")]
    label: Option<String>,
    /// What the run beside is called; its name unless told.
    #[arg(long, requires = "beside")]
    beside_label: Option<String>,
    /// Prompts that categories and expressions are put into: none, photo-of, one, openai80, or a file with a prompt a line and
    /// {} for the text. FG-CLIP's runs take several, one,openai80 unless told; a benchmark takes one, its own unless told.
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',')]
    pub(super) templates: Vec<String>,
}

impl CaptionArgs {
    /// Whether two runs are to be compared.
    pub(crate) fn compares(&self) -> bool {
        self.beside.is_some()
    }

    fn templates(&self) -> Result<Vec<Templates>> {
        match self.templates.as_slice() {
            [] => Ok([Prompts::Plain, Prompts::Imagenet80].map(Templates::of).to_vec()),
            typed => typed.iter().map(|typed| Templates::open(typed)).collect(),
        }
    }
}

/// One run, measured.
pub(crate) struct MeasuredRun {
    label: String,
    subject: Subject,
    split: SplitFeatures,
    measures: Measures,
}

impl MeasuredRun {
    fn new(label: String, subject: Subject, args: &SubjectArgs, templates: &[Templates]) -> Result<Self> {
        ensure!(
            !subject.needs.draws_region(),
            "`{}` is no run of FG-CLIP, so it cannot stand beside one; evaluate it by itself",
            subject.name
        );
        let config = subject.config(features::needs(&subject))?;
        let split = features::encode_split(&subject, &config, args.limit)?;
        let boxes = classes::classify(&split, (&subject.model, &config), templates)?;
        let measures = Measures::of(&split, &boxes)?;
        ensure!(
            !measures.all.is_empty(),
            "the split {} has neither captions nor expressions, hard negatives or categories: there is nothing to measure",
            args.split()
        );
        if !split.cuts.is_empty() {
            eprintln!("{}", split.cuts);
        }
        Ok(Self { label, subject, split, measures })
    }
}

/// Measures the opened run, and the one beside it if there is one.
///
/// # Errors
/// A run, dataset or split that cannot be read, with what to do about it; a split that holds nothing to measure.
pub(super) fn evaluate(opened: Opened<'_>, subject: Subject) -> Result<Shown> {
    let Opened { args, runtime, stages, started } = opened;
    let (own, typed) = (&args.captions, &args.subject);
    let beside = own.beside.as_deref().map(|url| -> Result<_> {
        let subject = runtime.block_on(Subject::open(&typed.beside(url, &subject)))?;
        Ok((own.beside_label.clone().unwrap_or_else(|| subject.name.clone()), subject))
    });
    let beside = beside.transpose()?;
    let label = own.label.clone().unwrap_or_else(|| subject.name.clone());
    if let Some((other, _)) = &beside {
        ensure!(*other != label, "both runs are called `{label}`; name them: --label NAME --beside-label NAME");
    }
    let templates = own.templates()?;
    let mut runs = Vec::new();
    for (label, subject) in beside.into_iter().chain([(label, subject)]) {
        runs.push(MeasuredRun::new(label, subject, typed, &templates)?);
    }
    let gallery = match &args.out {
        Some(_) => runtime.block_on(gallery::gallery(&runs, args.gallery))?,
        None => Vec::new(),
    };
    let main = runs.last().context("the run that was opened")?;
    let bad = main.split.bad;
    let columns: Vec<(String, Measures)> = runs.iter().map(|r| (r.label.clone(), r.measures.clone())).collect();
    let table = table::table(&columns);

    let stages = about::stages(&runs, stages);
    let mut facts = facts::facts(&main.subject, &stages, started.elapsed().as_secs_f64());
    facts.keys.insert("split".into(), Value::from(typed.split()));
    facts.keys.insert("rows_left_out".into(), Value::from(bad));
    if runs.len() > 1 {
        runs.iter().for_each(|run| facts::keys_of(&run.subject, &run.label, &mut facts.keys));
    }
    let curve = |run: &MeasuredRun| Some(LossCurve { run: run.label.clone(), plot: run.subject.training.loss_plot()? });
    let report = EvalReport {
        title: about::title(&runs),
        lead: about::lead(main, typed.split()),
        losses: runs.iter().filter_map(curve).collect(),
        speed: main.subject.training.speed_plot(),
        findings: Findings::Captions(CaptionFindings { runs: columns, gallery }),
        facts,
    };
    Ok(Shown { report, table, bad })
}
