//! Raw -> checked: every name is known, every field has one writer, and the stages have an order.

use super::fields::GIVEN;
use super::{Chat, Field, Kind, Over, RawRecipe, RawStage, Recipe, Stage, Work, names_in};
use crate::shape::Shape;
use crate::template::Template;
use crate::views::View;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Tokens of an answer unless the stage says otherwise.
const MAX_TOKENS: u32 = 1024;

pub(super) fn recipe(
    raw: RawRecipe,
    templates: &BTreeMap<PathBuf, String>,
    urls: &[(String, Vec<String>)],
) -> Result<Recipe, Vec<String>> {
    let mut problems = Vec::new();
    let mut servers = raw.server;
    for (name, urls) in urls {
        match servers.get_mut(name) {
            Some(server) => server.urls.clone_from(urls),
            None => problems.push(format!("no server is called `{name}`; there are {}", list(servers.keys()))),
        }
    }
    for (name, server) in &servers {
        if server.urls.is_empty() {
            problems.push(format!("server.{name}.urls is empty; expected at least one, like http://127.0.0.1:8000/v1"));
        }
        for url in &server.urls {
            if reqwest::Url::parse(url).is_err() {
                problems.push(format!("server.{name}.urls: `{url}` is no URL"));
            }
        }
        for (key, value) in [("most_in_flight", u64::from(server.most_in_flight)), ("timeout_s", server.timeout_s)] {
            if value == 0 {
                problems.push(format!("server.{name}.{key} is 0; expected 1 or more"));
            }
        }
    }
    let mut stages = Vec::new();
    for raw in raw.stage {
        let before = problems.len();
        if !servers.contains_key(&raw.server) {
            problems.push(format!(
                "stage `{}`: no server is called `{}`; there are {}",
                raw.name,
                raw.server,
                list(servers.keys())
            ));
        }
        match stage(raw, templates, &mut problems) {
            Some(stage) if problems.len() == before => stages.push(stage),
            Some(_) | None => {}
        }
    }
    writers(&stages, &mut problems);
    if problems.is_empty() {
        let order = order(&stages).map_err(|problem| vec![problem])?;
        let mut taken: Vec<Option<Stage>> = stages.into_iter().map(Some).collect();
        let stages = order.into_iter().filter_map(|i| taken[i].take()).collect();
        return Ok(Recipe { name: raw.name, digest: String::new(), servers, stages });
    }
    Err(problems)
}

fn stage(raw: RawStage, templates: &BTreeMap<PathBuf, String>, problems: &mut Vec<String>) -> Option<Stage> {
    let mut problem = |words: String| problems.push(format!("stage `{}`: {words}", raw.name));
    let over = raw.writes.over();
    let mut names: Vec<String> = Vec::new();
    if let Some(when) = &raw.when {
        match names_in(when) {
            Ok(found) => names.extend(found),
            Err(error) => problem(format!("when = \"{when}\" is no expression: {error}")),
        }
    }
    let work = match (raw.kind, writable(raw.kind, raw.writes)) {
        (_, Err(expected)) => {
            problem(format!("`{}` is not written by this kind of stage; expected {expected}", raw.writes.name()));
            return None;
        }
        (Kind::Segment, Ok(_)) => Work::Segment,
        (Kind::Detect, Ok(_)) => {
            names.push(Field::Expressions.name().into());
            Work::Detect { score_min: raw.score_min, overlap_max: raw.overlap_max }
        }
        (Kind::Chat, Ok(shape)) => {
            if raw.answer.is_some_and(|answer| Some(answer) != shape) {
                problem(format!("`{}` is not written by answers of this shape", raw.writes.name()));
            }
            let Some(text) = raw.template.as_ref().and_then(|file| templates.get(file)) else {
                problem("a chat stage needs a `template`".into());
                return None;
            };
            if over == Over::Image
                && let Some(view) = raw.views.iter().find(|view| view.is_of_region())
            {
                problem(format!("view `{}` shows a region, and `{}` is of the image", view.name(), raw.writes.name()));
            }
            match Template::parse(text) {
                Ok(template) => {
                    names.extend(template.names().iter().cloned());
                    let max_tokens = raw.max_tokens.unwrap_or(MAX_TOKENS);
                    let shape = shape.unwrap_or(Shape::Text);
                    let (views, temperature) = (raw.views.clone(), raw.temperature);
                    Work::Chat(Box::new(Chat { template, shape, views, max_tokens, temperature }))
                }
                Err(error) => {
                    problem(format!("its template: {error}"));
                    return None;
                }
            }
        }
    };
    let reads = reads(&raw, over, names, &mut problem);
    let (name, server, writes, when, replace) = (raw.name, raw.server, raw.writes, raw.when, raw.replace);
    Some(Stage { name, server, over, writes, work, reads, when, replace })
}

/// The fields that stand behind the names that a stage reads.
fn reads(raw: &RawStage, over: Over, names: Vec<String>, problem: &mut impl FnMut(String)) -> BTreeSet<Field> {
    let mut reads: BTreeSet<Field> = BTreeSet::new();
    for name in names {
        match known(&name) {
            None => problem(format!("reads `{name}`, which is no field; there are {}", known_names())),
            Some((_, Over::Region)) if over == Over::Image => {
                problem(format!("reads `{name}` of a region, and `{}` is of the image", raw.writes.name()));
            }
            Some((field, _)) => reads.extend(field.filter(|&f| f != raw.writes)),
        }
    }
    if raw.views.iter().any(|view| *view == View::Masked) {
        reads.insert(Field::Mask);
    }
    if over == Over::Region {
        reads.insert(Field::Regions);
    }
    reads
}

/// The shape of the answer that a chat stage must give to write the field; for the others whether they may.
fn writable(kind: Kind, field: Field) -> Result<Option<Shape>, &'static str> {
    match (kind, field) {
        (Kind::Segment, Field::Mask) | (Kind::Detect, Field::Regions) => Ok(None),
        (Kind::Segment, _) => Err("`mask`"),
        (Kind::Detect, _) => Err("`regions`"),
        (Kind::Chat, Field::Mask) => Err("a stage of kind = \"segment\" for masks"),
        (Kind::Chat, Field::Regions) => Err("a stage of kind = \"detect\" for regions"),
        (Kind::Chat, Field::CheckOk) => Ok(Some(Shape::Verdict)),
        (Kind::Chat, Field::Expressions) => Ok(Some(Shape::Expressions)),
        (Kind::Chat, Field::HardNegs) => Ok(Some(Shape::Negatives)),
        (Kind::Chat, Field::HardNegsOk) => Ok(Some(Shape::Verdicts)),
        (
            Kind::Chat,
            Field::CaptionLong
            | Field::CaptionShort
            | Field::CaptionObject
            | Field::CaptionContext
            | Field::CaptionMerged
            | Field::ShortExpr
            | Field::LongExpr,
        ) => Ok(Some(Shape::Text)),
    }
}

fn known(name: &str) -> Option<(Option<Field>, Over)> {
    let field = Field::ALL.into_iter().find(|f| f.name() == name).map(|f| (Some(f), f.over()));
    field.or_else(|| GIVEN.into_iter().find(|(given, _)| *given == name).map(|(_, over)| (None, over)))
}

fn known_names() -> String {
    list(Field::ALL.iter().map(|f| f.name()).chain(GIVEN.iter().map(|(name, _)| *name)))
}

fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|n| n.as_ref().to_owned()).collect::<Vec<_>>().join(", ")
}

/// Two stages may not have one name, nor write one field.
fn writers(stages: &[Stage], problems: &mut Vec<String>) {
    for (i, stage) in stages.iter().enumerate() {
        for before in &stages[..i] {
            if before.name == stage.name {
                problems.push(format!("two stages are called `{}`", stage.name));
            }
            if before.writes == stage.writes {
                let (a, b, field) = (&before.name, &stage.name, stage.writes.name());
                problems.push(format!("stages `{a}` and `{b}` both write `{field}`"));
            }
        }
    }
}

/// The stages in an order in which each comes after those that write what it reads; else who waits for whom.
fn order(stages: &[Stage]) -> Result<Vec<usize>, String> {
    let mut done: Vec<usize> = Vec::new();
    while done.len() < stages.len() {
        let ready = (0..stages.len()).find(|i| {
            let waits = |j: usize| !done.contains(&j) && stages[*i].reads.contains(&stages[j].writes);
            !done.contains(i) && !(0..stages.len()).any(waits)
        });
        match ready {
            Some(i) => done.push(i),
            None => {
                let left = (0..stages.len()).filter(|i| !done.contains(i)).map(|i| stages[i].name.as_str());
                return Err(format!("stages wait for each other's fields: {}", list(left)));
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Recipe, Vec<String>> {
        let raw: RawRecipe = toml::from_str(text).expect("TOML");
        let template = "[user]\nSay more of {{ caption_object }}.".to_string();
        let picture = "[user]\nWhat is this?".to_string();
        recipe(raw, &BTreeMap::from([("t.txt".into(), template), ("p.txt".into(), picture)]), &[])
    }

    const HEAD: &str = "name = 'x'\n[server.llm]\nurls = ['http://127.0.0.1:1/v1']\nmodel = 'm'\n";

    #[test]
    fn stages_run_after_those_whose_fields_they_read() {
        let merge =
            "[[stage]]\nname='merge'\nserver='llm'\nwrites='caption_merged'\ntemplate='t.txt'\nwhen='check_ok'\n";
        let check = "[[stage]]\nname='check'\nserver='llm'\nwrites='check_ok'\ntemplate='t.txt'\n";
        let object =
            "[[stage]]\nname='object'\nserver='llm'\nwrites='caption_object'\ntemplate='p.txt'\nviews=['masked']\n";
        let recipe = load(&format!("{HEAD}{merge}{check}{object}")).expect("a recipe");
        assert_eq!(recipe.stages().collect::<Vec<_>>(), ["object", "check", "merge"]);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let bad = "[[stage]]\nname='a'\nserver='gpt'\nwrites='caption_long'\ntemplate='t.txt'\n\
                   [[stage]]\nname='b'\nserver='llm'\nwrites='mask'\ntemplate='p.txt'\n\
                   [[stage]]\nname='c'\nserver='llm'\nwrites='caption_object'\ntemplate='p.txt'\nwhen='taste > 3'\n";
        let problems = load(&format!("{HEAD}{bad}")).expect_err("problems").join("\n");
        for words in
            ["called `gpt`", "reads `caption_object` of a region", "kind = \"segment\"", "`taste`, which is no field"]
        {
            assert!(problems.contains(words), "{words}: {problems}");
        }
    }

    #[test]
    fn a_circle_is_refused() {
        let object =
            "[[stage]]\nname='object'\nserver='llm'\nwrites='caption_object'\ntemplate='p.txt'\nwhen='not check_ok'\n";
        let check = "[[stage]]\nname='check'\nserver='llm'\nwrites='check_ok'\ntemplate='t.txt'\n";
        let problems = load(&format!("{HEAD}{check}{object}")).expect_err("a circle");
        assert!(problems[0].contains("wait for each other"), "{problems:?}");
    }
}
