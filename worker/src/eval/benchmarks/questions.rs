//! What a benchmark asks of a split: which regions of a row it shows, their categories, the texts and whose they are. Pure.

use super::protocol::{CaptionKind, Protocol, Show};
use super::table::Task;
use pixfleet_shards::{Columns, ImageRow, Region};
use serde::{Deserialize, Serialize};

/// All that is asked, filled row by row.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Questions {
    /// Pictures that are shown.
    pub(crate) pictures: usize,
    /// Of each thing that is shown (a region, or a picture) the number of its picture.
    pub(crate) picture: Vec<usize>,
    /// Of each thing shown its category, where that is what is asked.
    pub(crate) categories: Vec<String>,
    /// Texts, and the number of the thing shown that each belongs to, ascending.
    pub(crate) texts: Vec<String>,
    /// See [`Questions::texts`].
    pub(crate) owners: Vec<usize>,
    /// Regions that were to be shown by their masks and have none: they are shown by their boxes.
    pub(crate) without_mask: usize,
}

/// What to read of a row.
pub(crate) fn columns(task: Task) -> Columns {
    match task {
        Task::Name | Task::NamePicture => Columns { details: true, ..Columns::PICTURE },
        Task::Choose => Columns::PICTURE.with_hard_negatives(),
        Task::Refer => Columns::PICTURE.with_expressions(),
        Task::Retrieve => Columns::PICTURE.with_image_captions(),
    }
}

/// The regions of `row` that are shown; `None` where the row asks nothing, and none of them where its picture is shown.
pub(crate) fn shown(row: &ImageRow, task: Task, protocol: &Protocol) -> Option<Vec<u32>> {
    let all = || (0u32..).zip(&row.regions);
    let masked = |region: &Region| protocol.show != Show::Mask || region.mask.is_some();
    let some = |regions: Vec<u32>| (!regions.is_empty()).then_some(regions);
    match task {
        Task::Name => some(all().filter(|(_, r)| r.category.is_some() && masked(r)).map(|(i, _)| i).collect()),
        Task::NamePicture => category(row).map(|_| Vec::new()),
        Task::Choose => {
            let asks = |r: &Region| r.short_expr.is_some() && !r.hard_negs.is_empty();
            some(all().filter(|(_, r)| asks(r)).map(|(i, _)| i).collect())
        }
        // Every region is an answer, whether somebody asks for it or not.
        Task::Refer => all().any(|(_, r)| !expressions(r).is_empty()).then(|| all().map(|(i, _)| i).collect()),
        Task::Retrieve => (!captions(row, protocol).is_empty()).then(Vec::new),
    }
}

impl Questions {
    /// Adds what `row` asks, whose `regions` (see [`shown`]) are the next ones that are shown.
    pub(crate) fn add(&mut self, row: &ImageRow, regions: &[u32], task: Task, protocol: &Protocol) {
        let picture = self.pictures;
        self.pictures += 1;
        if regions.is_empty() {
            let owner = self.picture.len();
            self.picture.push(picture);
            match task {
                Task::NamePicture => self.categories.extend(category(row).map(str::to_owned)),
                Task::Retrieve => self.ask(owner, captions(row, protocol).into_iter(), protocol),
                Task::Name | Task::Choose | Task::Refer => {}
            }
        }
        for region in regions.iter().filter_map(|&i| row.regions.get(i as usize)) {
            let owner = self.picture.len();
            self.picture.push(picture);
            self.without_mask += usize::from(protocol.show == Show::Mask && region.mask.is_none());
            match task {
                Task::Name => self.categories.extend(region.category.clone()),
                Task::Choose => {
                    let negatives = region.hard_negs.iter().map(String::as_str);
                    self.ask(owner, region.short_expr.as_deref().into_iter().chain(negatives), protocol);
                }
                Task::Refer => self.ask(owner, expressions(region).into_iter(), protocol),
                Task::NamePicture | Task::Retrieve => {}
            }
        }
    }

    fn ask<'t>(&mut self, owner: usize, texts: impl Iterator<Item = &'t str>, protocol: &Protocol) {
        for text in texts {
            self.texts.push(if protocol.lower { text.to_lowercase() } else { text.to_owned() });
            self.owners.push(owner);
        }
    }

    /// Adds all that `others` ask, of things that are shown after these.
    pub(crate) fn append(&mut self, others: Self) {
        let Self { pictures, picture, categories, texts, owners, without_mask } = others;
        let (before, shown) = (self.pictures, self.picture.len());
        self.pictures += pictures;
        self.picture.extend(picture.into_iter().map(|i| before + i));
        self.categories.extend(categories);
        self.texts.extend(texts);
        self.owners.extend(owners.into_iter().map(|i| shown + i));
        self.without_mask += without_mask;
    }

    /// Whether nothing is asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.categories.is_empty() && self.texts.is_empty()
    }
}

/// The category of the whole picture: that of its one region, or that all its regions share.
fn category(row: &ImageRow) -> Option<&str> {
    let first = row.regions.first()?.category.as_deref()?;
    row.regions.iter().all(|r| r.category.as_deref() == Some(first)).then_some(first)
}

fn expressions(region: &Region) -> Vec<&str> {
    if region.expressions.is_empty() {
        region.short_expr.as_deref().into_iter().collect()
    } else {
        region.expressions.iter().map(String::as_str).collect()
    }
}

fn captions<'r>(row: &'r ImageRow, protocol: &Protocol) -> Vec<&'r str> {
    match protocol.captions {
        CaptionKind::All => {
            let most = protocol.per_picture.unwrap_or(usize::MAX);
            row.captions.iter().take(most).map(String::as_str).collect()
        }
        CaptionKind::Long => row.caption_long.as_deref().into_iter().collect(),
        CaptionKind::Short => row.caption_short.as_deref().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::find;
    use super::*;
    use pixfleet_shards::pixels::Mask;
    use pixfleet_shards::pixels::rle::Rle;

    fn region(category: Option<&str>, expressions: &[&str], masked: bool) -> Region {
        Region {
            category: category.map(Into::into),
            expressions: expressions.iter().map(|&e| e.into()).collect(),
            mask: masked.then(|| Rle::encode(&Mask::filled(2, 2, 255))),
            ..Region::default()
        }
    }

    fn row(regions: Vec<Region>) -> ImageRow {
        let captions = ["one", "two", "three"].map(str::to_owned).to_vec();
        ImageRow { image_id: "x".into(), captions, regions, ..ImageRow::default() }
    }

    /// What `benchmark` asks of `rows`, and the regions of each row that asks something.
    fn asked(benchmark: &str, change: impl Fn(&mut Protocol), rows: &[ImageRow]) -> (Questions, Vec<Vec<u32>>) {
        let benchmark = find(benchmark).expect("a benchmark");
        let mut protocol = benchmark.protocol;
        change(&mut protocol);
        let (mut questions, mut all) = (Questions::default(), Vec::new());
        for row in rows {
            if let Some(regions) = shown(row, benchmark.task, &protocol) {
                questions.add(row, &regions, benchmark.task, &protocol);
                all.push(regions);
            }
        }
        (questions, all)
    }

    #[test]
    fn regions_are_named_where_they_have_a_category_and_a_mask() {
        let rows = [
            row(vec![region(None, &[], true)]),
            row(vec![region(Some("a"), &[], false), region(Some("b"), &[], true)]),
        ];
        let (masked, regions) = asked("coco-mask", |_| {}, &rows);
        assert_eq!((masked.categories, masked.picture, masked.pictures), (vec!["b".to_owned()], vec![0], 1));
        assert_eq!(regions, [vec![1]]);
        assert_eq!(asked("coco-box", |_| {}, &rows).0.categories, ["a", "b"]);
        assert!(asked("coco-mask", |_| {}, &rows[..1]).0.is_empty());
    }

    #[test]
    fn a_picture_is_of_the_category_that_all_its_regions_share() {
        let one = |names: &[&str]| row(names.iter().map(|n| region(Some(n), &[], false)).collect());
        let (questions, regions) =
            asked("imagenet", |_| {}, &[one(&["a"]), one(&["a", "b"]), one(&["b", "b"]), one(&[])]);
        assert_eq!((questions.categories, questions.picture), (vec!["a".to_owned(), "b".to_owned()], vec![0, 1]));
        assert_eq!(regions, [vec![], Vec::<u32>::new()]);
    }

    #[test]
    fn the_true_text_stands_before_its_negatives() {
        let mut asks = Region { short_expr: Some("a Red kite".into()), ..Region::default() };
        asks.hard_negs = vec!["a blue kite".into(), "a green kite".into()];
        let silent = Region { short_expr: Some("a kite".into()), ..Region::default() };
        let (questions, regions) = asked("fgovd-hard", |_| {}, &[row(vec![silent, asks])]);
        assert_eq!(questions.texts, ["a Red kite", "a blue kite", "a green kite"]);
        assert_eq!((questions.owners, regions), (vec![0, 0, 0], vec![vec![1]]));
    }

    #[test]
    fn every_region_of_a_picture_is_an_answer_to_its_expressions() {
        let only = Region { short_expr: Some("The last".into()), ..Region::default() };
        let rows = [
            row(vec![region(None, &[], true)]),
            row(vec![region(None, &[], false), region(None, &["A", "b"], true), only]),
        ];
        let (questions, regions) = asked("refcoco", |_| {}, &rows);
        assert_eq!((questions.texts.join("|"), &questions.owners), ("a|b|the last".into(), &vec![1, 1, 2]));
        assert_eq!((questions.picture, questions.without_mask, regions), (vec![0, 0, 0], 2, vec![vec![0, 1, 2]]));
        assert_eq!(asked("refcoco", |p| p.lower = false, &rows).0.texts, ["A", "b", "The last"]);
    }

    #[test]
    fn captions_are_those_that_the_protocol_takes() {
        let mut long = row(vec![]);
        (long.caption_long, long.captions) = (Some("a long one".into()), Vec::new());
        let rows = [row(vec![]), long];
        let of = |change: fn(&mut Protocol)| asked("coco-retrieval", change, &rows).0;
        assert_eq!((of(|_| {}).texts.join(" "), of(|_| {}).pictures), ("one two three".into(), 1));
        let first = of(|p| p.per_picture = Some(1));
        assert_eq!((first.texts.join(" "), first.owners), ("one".into(), vec![0]));
        assert_eq!(of(|p| p.captions = CaptionKind::Long).texts, ["a long one"]);
        assert!(of(|p| p.captions = CaptionKind::Short).is_empty());
    }
}
