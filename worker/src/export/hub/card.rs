//! The model card: `README.md` with its front matter (https://huggingface.co/docs/hub/model-cards).

use crate::eval::facts::thousands;
use crate::eval::history::Training;
use crate::hub::config::{Config, TextFacts};
use pixfleet_cluster::Manifest;
use pixfleet_cluster::audit::Audit;
use pixfleet_cluster::spec::RunSpec;
use serde_json::{Map, Value};
use std::fmt::Write;

/// The picture of the losses.
pub(super) const CURVE: &str = "loss.svg";
/// Keys of a report that are facts of the run and of the evaluation, not measurements.
const FACTS: [&str; 12] = [
    "run",
    "split",
    "steps",
    "samples_seen",
    "samples_per_s",
    "train_s",
    "eval_s",
    "wall_s",
    "workers",
    "members_lost",
    "parameters",
    "rows_left_out",
];

/// All that the card tells.
pub(super) struct Card<'a> {
    pub(super) repo: Option<&'a str>,
    pub(super) license: Option<&'a str>,
    pub(super) tags: &'a [String],
    pub(super) datasets: &'a [String],
    /// As published.
    pub(super) spec: &'a RunSpec,
    pub(super) config: &'a Config,
    pub(super) manifest: &'a Manifest,
    pub(super) training: &'a Training,
    pub(super) parameters: u64,
    /// `None` if there could be none.
    pub(super) audit: Option<&'a Audit>,
    pub(super) report: Option<&'a Map<String, Value>>,
    pub(super) has_curve: bool,
}

impl Card<'_> {
    /// The file.
    pub(super) fn text(&self) -> String {
        let name = self.repo.and_then(|repo| repo.split('/').nth(1)).unwrap_or(&self.spec.run.name);
        let parts = [
            self.front_matter(),
            format!("# {name}\n\n{}", self.lead()),
            format!("## Use\n\n{}", self.usage()),
            format!("## Training\n\n{}", self.trained()),
            self.report.map(measured).unwrap_or_default(),
            format!("## Run file\n\n```toml\n{}```", self.spec.to_toml()),
        ];
        parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| format!("{}\n", part.trim_end()))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn front_matter(&self) -> String {
        let system = self.config.architectures.first().map_or_else(String::new, |system| system.to_lowercase());
        let own = ["pixfleet".to_owned(), system, "clip".into(), "image-text-retrieval".into()];
        let list = |key: &str, items: Vec<&String>| match items.is_empty() {
            true => String::new(),
            false => {
                format!("{key}:\n{}", items.iter().map(|item| format!("- {}\n", quoted(item))).collect::<String>())
            }
        };
        let license = self.license.map_or_else(String::new, |license| format!("license: {}\n", quoted(license)));
        let tags = list("tags", own.iter().chain(self.tags).collect());
        let datasets = list("datasets", self.datasets.iter().collect());
        format!(
            "---\n{license}library_name: pixfleet\npipeline_tag: zero-shot-image-classification\n{tags}{datasets}---"
        )
    }

    fn lead(&self) -> String {
        let vision = &self.config.vision_config;
        let mask = if vision.takes_mask { ", with a mask of a region if there is one" } else { "" };
        let text = match &self.config.text_config {
            TextFacts::Adapter { encoder, encoder_dim, .. } => {
                let pooling = encoder.pooling.as_ref().map_or_else(String::new, |p| format!(", pooling `{p}`"));
                format!(
                    "through an adapter from a frozen encoder's vectors of {encoder_dim} numbers: `{}` (model `{}`, template \
                     `{}`{pooling})",
                    encoder.key, encoder.model, encoder.template
                )
            }
            TextFacts::Clip { tokenizer, max_position_embeddings, long_position_embeddings, .. } => {
                let long = long_position_embeddings.map_or_else(String::new, |n| format!(", {n} of a long one"));
                format!("from at most {max_position_embeddings} tokens of a short text{long} (tokenizer `{tokenizer}`)")
            }
        };
        format!(
            "A {} model of {:.1} million parameters, trained with pixfleet. It embeds pictures of {side} x {side} \
             pixels{mask}, and texts {text}, in one space of {} dimensions.",
            self.config.architectures.join(", "),
            self.parameters as f64 / 1e6,
            self.config.projection_dim,
            side = vision.image_size,
        )
    }

    fn usage(&self) -> String {
        let at = self.repo.map_or_else(|| "FOLDER".to_owned(), |repo| format!("hf://{repo}"));
        let data = match self.datasets {
            [] => " --data URL",
            [..] => "",
        };
        format!(
            "```\npixfleet eval {at}{data}                # what it can do\npixfleet train run.toml --set model.weights={at}    # \
             start from it\n```\n\n```python\nfrom safetensors.torch import load_file\nweights = load_file(\"model.safetensors\")   \
             # the names of the official code\n```"
        )
    }

    fn trained(&self) -> String {
        let mut text = String::from("| | |\n|---|---|\n");
        let mut row = |name: &str, value: String| {
            // Infallible: a String takes what it is given.
            let _ = writeln!(text, "| {name} | {} |", value.replace('|', "\\|"));
        };
        row("step", format!("{} of {}", self.manifest.step.0, self.spec.schedule.steps));
        row("global batch", self.spec.train.global_batch.to_string());
        if !self.training.steps.is_empty() {
            row("samples seen", thousands(self.training.samples()));
            row("samples/s", format!("{:.1}", self.training.samples_per_s()));
            row("workers", self.training.world.to_string());
            row("workers lost on the way", self.training.losses.to_string());
        }
        row("dataset digest", format!("`{}`", self.manifest.dataset_digest));
        row("run file digest", format!("`{}`", self.manifest.spec_digest));
        row("audit", audit_words(self.audit));
        if self.has_curve {
            text += &format!("\n![Loss over steps]({CURVE})\n");
        }
        text
    }
}

fn audit_words(audit: Option<&Audit>) -> String {
    match audit {
        // Why would tell places.
        None => "none: the ledger or the dataset's index could not be read".into(),
        Some(audit) if audit.is_clean() => {
            let epochs = audit.epochs.len();
            format!(
                "{} ({} steps, {epochs} epochs begun, {} substituted)",
                audit.words(),
                audit.steps,
                audit.substitutions.len()
            )
        }
        Some(audit) => {
            let first = audit.findings.first().map_or_else(String::new, |finding| format!("; {finding}"));
            format!("{}: {} findings{first}", audit.words(), audit.findings.len())
        }
    }
}

/// A table of an evaluation's numbers.
fn measured(report: &Map<String, Value>) -> String {
    let split = report.get("split").and_then(Value::as_str).unwrap_or("?");
    let mut text = format!(
        "## Evaluation\n\n`pixfleet eval` on the split `{split}`; shares are of 1, `chance_*` is what guessing gives.\n\n"
    );
    text += "| measure | value |\n|---|---|\n";
    // Of a run that stood beside there are the same facts, each with the run's label behind it.
    let is_fact = |name: &str| {
        FACTS.iter().any(|fact| name.strip_prefix(fact).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
    };
    for (name, value) in report.iter().filter(|(name, _)| !is_fact(name)) {
        let value = match value {
            Value::Number(n) if n.is_f64() => format!("{:.4}", n.as_f64().unwrap_or_default()),
            Value::Number(n) => n.to_string(),
            _ => continue,
        };
        text += &format!("| {name} | {value} |\n");
    }
    text
}

/// A scalar of YAML: JSON's strings are some of it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
