//! The result of a benchmark: its numbers beside those that are published, and how the two differ, in words.

use super::protocol::Chosen;
use super::published::PublishedRow;
use super::questions::Questions;
use super::record::PastScores;
use super::score::Score;
use super::table::{Benchmark, Task, Unit};
use crate::eval::captions::measure::rounded;
use crate::eval::facts::thousands;
use crate::eval::output::percent;
use comfy_table::{Attribute, Cell, CellAlignment, presets};
use serde_json::{Map, Value, json};

/// One benchmark, run.
#[derive(Debug, Clone)]
pub(crate) struct BenchmarkResult {
    /// Which.
    pub(crate) benchmark: &'static Benchmark,
    /// URL of the dataset.
    pub(crate) data: String,
    /// Its split.
    pub(crate) split: String,
    /// How it was run.
    pub(crate) chosen: Chosen,
    /// The numbers.
    pub(crate) scores: Vec<Score>,
    /// How much was looked at.
    pub(crate) counts: Counts,
    /// What others published, on this split.
    pub(crate) published: Vec<PublishedRow>,
    /// What differs from how the published rows were made, in words.
    pub(crate) differs: Vec<String>,
    /// The run's results that were taken alike, by steps; this one among them.
    pub(crate) history: Vec<PastScores>,
}

/// How much of a split was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Pictures that ask something.
    pub(crate) pictures: u64,
    /// Regions shown; 0 where pictures are.
    pub(crate) regions: u64,
    /// Texts: captions, expressions, a region's true text and its negatives.
    pub(crate) texts: u64,
    /// Category names that are chosen among.
    pub(crate) classes: u64,
    /// Regions without a mask, shown by their boxes.
    pub(crate) without_mask: u64,
    /// Rows left out as bad.
    pub(crate) rows_left_out: u64,
}

impl Counts {
    /// Of what was asked by `task`, among `classes`.
    pub(crate) fn of(questions: &Questions, task: Task, classes: usize, bad: u64) -> Self {
        Self {
            pictures: questions.pictures as u64,
            regions: if task.shows_regions() { questions.picture.len() as u64 } else { 0 },
            texts: questions.texts.len() as u64,
            classes: classes as u64,
            without_mask: questions.without_mask as u64,
            rows_left_out: bad,
        }
    }

    /// By the names of `report.json`; what a task has none of is left out.
    pub(crate) fn named(self) -> Vec<(&'static str, u64)> {
        let all = [
            ("pictures", self.pictures),
            ("regions", self.regions),
            ("texts", self.texts),
            ("classes", self.classes),
            ("without_mask", self.without_mask),
            ("rows_left_out", self.rows_left_out),
        ];
        all.into_iter().filter(|(name, n)| *n > 0 || *name == "rows_left_out").collect()
    }

    /// In the unit that a benchmark counts.
    fn in_unit(self, unit: Unit) -> u64 {
        match unit {
            Unit::Pictures => self.pictures,
            Unit::Regions => self.regions,
            Unit::Expressions => self.texts,
        }
    }
}

/// What is known of the model that was looked at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelFacts {
    /// Parameters.
    pub(crate) parameters: u64,
    /// Side of its square input in pixels.
    pub(crate) side: i64,
    /// Steps, samples and data of its training, where it is a run.
    pub(crate) trained: Option<(u64, u64, String)>,
}

/// What differs from how the published rows were made.
pub(crate) fn differences(
    benchmark: &Benchmark,
    split: &str,
    (chosen, counts): (&Chosen, Counts),
    names_given: bool,
    model: &ModelFacts,
) -> Vec<String> {
    let mut told = chosen.departures.clone();
    let (size, unit) = benchmark.size;
    let found = counts.in_unit(unit);
    if split != benchmark.split {
        told.push(format!("split `{split}`; published: `{}` unless a row says otherwise", benchmark.split));
    } else if found != size {
        told.push(format!("{} {} here; published: {}", thousands(found), unit.word(), thousands(size)));
    }
    if benchmark.classes > 0 && counts.classes != benchmark.classes as u64 {
        let whence = if names_given { "" } else { ", those that occur in the split" };
        told.push(format!("{} category names{whence}; published: {}", counts.classes, benchmark.classes));
    }
    if counts.without_mask > 0 {
        told.push(format!("{} regions have no mask and were shown by their boxes", thousands(counts.without_mask)));
    }
    told.extend(benchmark.otherwise.iter().map(|&what| what.to_owned()));
    let millions = model.parameters as f64 / 1e6;
    told.push(format!(
        "the model: {millions:.1} million parameters in all, pictures of {side} x {side}; published rows: ViT-B/16 (86 million in \
         its vision tower, 224 x 224) and larger, as their rows say",
        side = model.side
    ));
    if let Some((steps, samples, data)) = &model.trained {
        told.push(format!(
            "its training: {} steps, {} samples of {data}; published rows: as their rows say, CLIP's own 400 million pairs \
             before all",
            thousands(*steps),
            thousands(*samples)
        ));
    }
    told
}

impl BenchmarkResult {
    /// The object of `report.json`; `facts` of the run stand in it as well.
    pub(crate) fn json(&self, facts: &Map<String, Value>) -> Value {
        let mut object = facts.clone();
        let of = |value: fn(&Score) -> f64| {
            Value::Object(self.scores.iter().map(|s| (s.key.to_owned(), rounded(value(s)))).collect())
        };
        let published = self.published.iter().map(|row| {
            let values: Map<String, Value> = row.values.iter().map(|(k, v)| ((*k).to_owned(), rounded(*v))).collect();
            json!({ "method": row.method, "size": row.size, "data": row.data, "source": row.source, "values": values })
        });
        let words: Map<String, Value> =
            self.chosen.words.iter().map(|(k, v)| ((*k).to_owned(), Value::from(v.as_str()))).collect();
        let counts: Map<String, Value> =
            self.counts.named().into_iter().map(|(k, n)| (k.to_owned(), Value::from(n))).collect();
        object.extend([
            ("benchmark".to_owned(), Value::from(self.benchmark.name)),
            ("title".to_owned(), Value::from(self.benchmark.title)),
            ("data".to_owned(), Value::from(self.data.as_str())),
            ("split".to_owned(), Value::from(self.split.as_str())),
            ("scores".to_owned(), of(|s| s.value)),
            ("chance".to_owned(), of(|s| s.chance)),
            ("counts".to_owned(), Value::Object(counts)),
            ("protocol".to_owned(), Value::Object(words)),
            ("protocol_source".to_owned(), Value::from(self.benchmark.source)),
            ("published".to_owned(), Value::Array(published.collect())),
            ("differs".to_owned(), Value::from(self.differs.clone())),
            ("history".to_owned(), json!(self.history)),
        ]);
        Value::Object(object)
    }

    /// Least and most that was published under `key`, with who did.
    fn range(&self, key: &str) -> Option<[(&PublishedRow, f64); 2]> {
        let values = || self.published.iter().filter_map(|row| Some((row, *row.values.get(key)?)));
        let by = |a: &(&PublishedRow, f64), b: &(&PublishedRow, f64)| a.1.total_cmp(&b.1);
        Some([values().min_by(by)?, values().max_by(by)?])
    }
}

/// For the terminal: the numbers beside the least and the most that was published, then how each was run and what differs.
pub(crate) fn table(results: &[BenchmarkResult], run: &str) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let heads = ["benchmark", "measure", run, "chance", "published, least", "published, most"];
    table.set_header(heads.map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
    let number = |share: f64| Cell::new(percent(share)).set_alignment(CellAlignment::Right);
    for result in results {
        for (i, score) in result.scores.iter().enumerate() {
            let title = if i == 0 { result.benchmark.title } else { "" };
            let mut cells = vec![Cell::new(title), Cell::new(score.name), number(score.value), number(score.chance)];
            let told = |(row, value): (&PublishedRow, f64)| {
                Cell::new(format!("{} {}", percent(value), [row.method, row.size].join(" ").trim_end()))
            };
            match result.range(score.key) {
                Some(range) => cells.extend(range.map(told)),
                None => cells.extend([Cell::new(""), Cell::new("")]),
            }
            table.add_row(cells);
        }
    }
    let mut text = table.to_string();
    for result in results {
        let counts: Vec<String> =
            result.counts.named().iter().map(|(k, n)| format!("{n} {}", k.replace('_', " "))).collect();
        let words: Vec<String> = result.chosen.words.iter().map(|(k, v)| format!("{k} {v}")).collect();
        text += &format!("\n\n{} ({}): {}", result.benchmark.name, result.split, counts.join(", "));
        text += &format!("\n  protocol ({}): {}", result.benchmark.source, words.join("; "));
        for what in &result.differs {
            text += &format!("\n  differs: {what}");
        }
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::protocol::ProtocolArgs;
    use super::super::published;
    use super::super::table::find;
    use super::*;

    const FACTS: ModelFacts = ModelFacts { parameters: 5_300_000, side: 96, trained: None };

    /// A made-up result on `benchmark`.
    pub(crate) fn made_up(benchmark: &str) -> BenchmarkResult {
        let benchmark = find(benchmark).expect("a benchmark");
        let chosen = ProtocolArgs::default().choose(benchmark, true, &["one".to_owned()]).expect("fits");
        let counts = Counts { pictures: 40, regions: 90, classes: 20, rows_left_out: 1, ..Counts::default() };
        let differs = differences(benchmark, benchmark.split, (&chosen, counts), false, &FACTS);
        let score = |key, name, value| Score { key, name, value, chance: 0.05 };
        BenchmarkResult {
            benchmark,
            data: "file:///data/<coco>".into(),
            split: benchmark.split.into(),
            scores: vec![score("top1", "top-1", 0.25), score("top5", "top-5", 0.5)],
            counts,
            published: published::rows(benchmark.name, benchmark.split),
            differs,
            chosen,
            history: Vec::new(),
        }
    }

    #[test]
    fn a_result_tells_what_differs_from_the_published_rows() {
        let told = made_up("coco-box").differs.join("\n");
        for wanted in
            ["show: box; published: pool", "templates: `a photo of a {}.`; published: mean of 80", "90 regions here"]
        {
            assert!(told.contains(wanted), "{wanted}: {told}");
        }
        assert!(told.contains("20 category names, those that occur in the split; published: 80"), "{told}");
        assert!(told.contains("5.3 million parameters in all, pictures of 96 x 96"), "{told}");
        let whole = Counts { regions: 36_781, classes: 80, ..Counts::default() };
        let benchmark = find("coco-mask").expect("a benchmark");
        let chosen = ProtocolArgs::default().choose(benchmark, true, &[]).expect("fits");
        let told = differences(benchmark, "val", (&chosen, whole), true, &FACTS);
        assert_eq!(told.len(), 1 + benchmark.otherwise.len(), "nothing but the model: {told:?}");
        let other = differences(benchmark, "train", (&chosen, whole), true, &FACTS);
        assert!(other[0].contains("split `train`; published: `val`"));
    }

    #[test]
    fn json_and_table_hold_the_numbers_beside_the_published_ones() {
        let result = made_up("coco-box");
        let json = result.json(&serde_json::from_value(json!({ "run": "demo", "steps": 20 })).expect("an object"));
        assert_eq!(
            (&json["benchmark"], &json["run"], &json["scores"]["top1"]),
            (&"coco-box".into(), &"demo".into(), &0.25.into())
        );
        assert_eq!((&json["counts"]["regions"], &json["protocol"]["average"]), (&90.into(), &"micro".into()));
        let rows = json["published"].as_array().expect("a list");
        assert!(rows.iter().any(|r| r["method"] == "FG-CLIP" && r["values"]["top1"] == 0.523), "{rows:?}");
        let text = table(&[result], "demo");
        for wanted in
            ["25.0 %", "30.6 % EVA-CLIP B/16", "77.4 % FG-CLIP 2 So400m/16", "protocol (FG-CLIP", "differs: show: box"]
        {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
