//! One stage over one row: which questions come up, what is sent, and what becomes of the answers.

use crate::answers::{Kept, KeptOutcome, Key};
use crate::ask::{Asker, Question};
use crate::chat;
use crate::draft::{Draft, Told};
use crate::error::AnnotateError;
use crate::plug;
use crate::pool::Pool;
use crate::provenance::NoteKind;
use crate::recipe::{Chat, Over, Stage, Work};
use crate::tally::Tallying;
use crate::views::{Shown, View, picture};
use futures::stream::{FuturesOrdered, TryStreamExt};
use minijinja::Environment;

/// What a stage works with.
pub(crate) struct Desk<'d> {
    pub(crate) pool: &'d Pool,
    pub(crate) asker: &'d Asker,
    pub(crate) tallying: &'d Tallying,
}

impl Desk<'_> {
    /// Runs `stage` over `draft`.
    pub(crate) async fn run(&self, stage: &Stage, draft: &mut Draft) -> Result<(), AnnotateError> {
        let places: Vec<Option<usize>> = match stage.over {
            Over::Image => vec![None],
            Over::Region => (0..draft.row.regions.len()).map(Some).collect(),
        };
        let all = places.len();
        let open: Vec<Option<usize>> = places.into_iter().filter(|&at| comes_up(stage, draft, at)).collect();
        self.tallying.stage(&stage.name, |tally| tally.skipped += (all - open.len()) as u64);
        // All questions of a row are open at the same time; their answers are written in the order of regions.
        let asked: Vec<(Option<usize>, Result<Kept, String>)> = {
            let draft = &*draft;
            let ask = |at| async move { Ok::<_, AnnotateError>((at, self.ask(stage, draft, at).await?)) };
            open.into_iter().map(ask).collect::<FuturesOrdered<_>>().try_collect().await?
        };
        for (at, kept) in asked {
            self.write(stage, draft, at, kept);
        }
        Ok(())
    }

    /// The answer, or in words why the question could not even be asked.
    async fn ask(
        &self,
        stage: &Stage,
        draft: &Draft,
        at: Option<usize>,
    ) -> Result<Result<Kept, String>, AnnotateError> {
        let prepared = match &stage.work {
            Work::Chat(chat) => self.chat(chat, draft, at),
            Work::Segment => self.segment(draft),
            Work::Detect { .. } => self.detect(draft),
        };
        let Prepared { key, body, path, template } = match prepared {
            Ok(prepared) => prepared,
            Err(problem) => {
                self.tallying.stage(&stage.name, |tally| {
                    tally.questions += 1;
                    tally.rejected += 1;
                });
                return Ok(Err(problem));
            }
        };
        let is_chat = matches!(stage.work, Work::Chat(_));
        let usable = |text: &str| self.usable(stage, draft, text);
        let question = Question {
            stage: &stage.name,
            pool: self.pool,
            path,
            key,
            template: &template,
            body,
            is_chat,
            usable: &usable,
        };
        self.asker.ask(question).await.map(Ok)
    }

    fn chat(&self, chat: &Chat, draft: &Draft, at: Option<usize>) -> Result<Prepared, String> {
        let prompt = chat.template.fill(draft.values(at))?;
        let region = at.and_then(|at| draft.row.regions.get(at));
        let shown = chat.views.iter().map(|&view| picture(&draft.row, region, view).map(Shown));
        let shown: Vec<Shown> = shown.collect::<Result<_, _>>()?;
        let limits = format!("{} {}", chat.max_tokens, chat.temperature);
        let words =
            [self.pool.model(), chat.template.digest(), &limits, prompt.system.as_deref().unwrap_or(""), &prompt.user];
        let key = Key::of(words.iter().map(|w| w.as_bytes()).chain(shown.iter().map(|Shown(jpeg)| jpeg.as_slice())));
        let body = chat::body(self.pool.model(), chat, &prompt, &shown);
        Ok(Prepared { key, body, path: chat::PATH, template: chat.template.digest().to_owned() })
    }

    fn segment(&self, draft: &Draft) -> Result<Prepared, String> {
        let image = picture(&draft.row, None, View::Picture)?;
        let boxes: Vec<[f32; 4]> = draft.row.regions.iter().map(|r| r.bbox).collect();
        let size = shown_size(&image)?;
        let body = plug::segment_body(self.pool.model(), &chat::data_url(&image), &boxes, size);
        Ok(self.plug(plug::SEGMENT, body))
    }

    fn detect(&self, draft: &Draft) -> Result<Prepared, String> {
        let image = picture(&draft.row, None, View::Picture)?;
        let phrases = draft.expressions.as_deref().unwrap_or_default();
        Ok(self.plug(plug::DETECT, plug::detect_body(self.pool.model(), &chat::data_url(&image), phrases)))
    }

    fn plug(&self, path: &'static str, body: serde_json::Value) -> Prepared {
        let key = Key::of([path.as_bytes(), self.pool.model().as_bytes(), body.to_string().as_bytes()]);
        Prepared { key, body, path, template: path.to_owned() }
    }

    fn usable(&self, stage: &Stage, draft: &Draft, text: &str) -> Result<(), String> {
        match &stage.work {
            Work::Chat(chat) => chat.shape.read(text).map(drop),
            Work::Segment => plug::masks(text, draft.row.regions.len()).map(drop),
            Work::Detect { .. } => self.regions(stage, draft, text).map(drop),
        }
    }

    fn regions(&self, stage: &Stage, draft: &Draft, text: &str) -> Result<Vec<pixfleet_shards::Region>, String> {
        let Work::Detect { score_min, overlap_max } = stage.work else { return Ok(Vec::new()) };
        let size = shown_size(&picture(&draft.row, None, View::Picture)?)?;
        plug::regions(text, draft.expressions.as_deref().unwrap_or_default(), size, (score_min, overlap_max))
    }

    fn write(&self, stage: &Stage, draft: &mut Draft, at: Option<usize>, kept: Result<Kept, String>) {
        let told = |kept: &Kept, reason, kind| Told {
            model: kept.model.clone(),
            template: kept.template.clone(),
            at: kept.at,
            reason,
            kind,
        };
        let (kept, text) = match kept {
            Ok(Kept { outcome: KeptOutcome::Answer(ref text), .. }) => {
                let text = text.clone();
                (kept, Ok(text))
            }
            Ok(Kept { outcome: KeptOutcome::Rejected(ref reason), .. }) => {
                let reason = reason.clone();
                (kept, Err(reason))
            }
            Err(problem) => (Err(String::new()), Err(problem)),
        };
        let kept = kept.unwrap_or_else(|_| Kept {
            model: self.pool.model().to_owned(),
            template: String::new(),
            at: crate::answers::now(),
            outcome: KeptOutcome::Rejected(String::new()),
        });
        let written = text.and_then(|text| match &stage.work {
            Work::Chat(chat) => Ok(draft.write(stage.writes, at, chat.shape.read(&text)?)),
            Work::Segment => {
                let masks = plug::masks(&text, draft.row.regions.len())?;
                for (region, mask) in draft.row.regions.iter_mut().zip(masks) {
                    if region.mask.is_none() || stage.replace {
                        region.mask = Some(mask);
                    }
                }
                Ok(None)
            }
            Work::Detect { .. } => {
                draft.row.regions = self.regions(stage, draft, &text)?;
                Ok(None)
            }
        });
        let note = match written {
            Ok(reason) => told(&kept, reason, NoteKind::Written),
            Err(problem) => told(&kept, Some(problem), NoteKind::Rejected),
        };
        draft.note(&stage.name, stage.writes, at, note);
    }
}

/// A request and what it is known by.
struct Prepared {
    key: Key,
    body: serde_json::Value,
    path: &'static str,
    template: String,
}

/// Whether the stage has a question about the row, or about its region `at`.
fn comes_up(stage: &Stage, draft: &Draft, at: Option<usize>) -> bool {
    if draft.has(stage.writes, at) && !stage.replace {
        return false;
    }
    match &stage.when {
        Some(when) => {
            let environment = Environment::new();
            let verdict = environment.compile_expression(when).and_then(|e| e.eval(draft.values(at)));
            verdict.is_ok_and(|value| value.is_true())
        }
        None => stage.reads.iter().all(|&field| draft.has(field, at)),
    }
}

fn shown_size(jpeg: &[u8]) -> Result<(u32, u32), String> {
    pixfleet_shards::pixels::decode::dimensions(jpeg).map_err(|e| e.to_string())
}
