//! Records that stand one after the other: elements of a JSON list, lines, and lines that belong to one image.

use super::json::{JsonLists, Piece, line};
use super::{Body, Found, Position, Records};
use crate::cell::{Cell, text};
use crate::error::IngestError;
use crate::input::Counted;
use crate::reject::Spot;
use std::io::{BufRead, BufReader};
use std::sync::Arc;

/// Elements of the list that a file is, or of all lists of its object.
pub(crate) struct Elements {
    file: Arc<str>,
    lists: JsonLists<BufReader<Counted>>,
    record: u64,
}

impl Elements {
    pub(crate) fn new(file: Arc<str>, input: BufReader<Counted>) -> Self {
        Self { lists: JsonLists::new(file.as_ref(), input, |_| true), file, record: 0 }
    }
}

impl Records for Elements {
    fn next(&mut self) -> Result<Option<Found>, IngestError> {
        loop {
            match self.lists.next()? {
                None => return Ok(None),
                Some(Piece::List(_)) => {}
                Some(Piece::Element(json)) => {
                    let spot = Spot::new(&self.file, self.record);
                    self.record += 1;
                    return Ok(Some(Found { spot, body: Body::Json(json), after: Position::default() }));
                }
            }
        }
    }
}

/// Lines of JSON. With `by`, lines that follow each other with one value of that field are one record.
pub(crate) struct Lines<R> {
    file: Arc<str>,
    input: R,
    by: Option<&'static str>,
    record: u64,
    /// The first line of the next record.
    ahead: Option<(Spot, Vec<u8>)>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(file: Arc<str>, input: R, by: Option<&'static str>) -> Self {
        Self { file, input, by, record: 0, ahead: None }
    }

    fn line(&mut self) -> Result<Option<(Spot, Vec<u8>)>, IngestError> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        let Some(line) = line(&mut self.input, &self.file)? else { return Ok(None) };
        let spot = Spot::new(&self.file, self.record);
        self.record += 1;
        Ok(Some((spot, line)))
    }
}

impl<R: BufRead + Send> Records for Lines<R> {
    fn next(&mut self) -> Result<Option<Found>, IngestError> {
        let Some((spot, first)) = self.line()? else { return Ok(None) };
        let Some(by) = self.by else {
            return Ok(Some(Found { spot, body: Body::Json(first), after: Position::default() }));
        };
        let key = |line: &[u8]| text(&Cell::parse(line).ok()?, by).ok()?;
        let (wanted, mut lines) = (key(&first), vec![(spot.clone(), first)]);
        while let Some((spot, line)) = self.line()? {
            if wanted.is_none() || key(&line) != wanted {
                self.ahead = Some((spot, line));
                break;
            }
            lines.push((spot, line));
        }
        Ok(Some(Found { spot, body: Body::Lines(lines), after: Position::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_image_are_one_record() {
        let text = "{\"i\": \"a\", \"n\": 1}\n{\"i\": \"a\"}\nbad\n{\"i\": \"b\"}\n";
        let mut lines = Lines::new("x.jsonl".into(), text.as_bytes(), Some("i"));
        let mut found = Vec::new();
        while let Some(record) = lines.next().expect("reads") {
            let Body::Lines(lines) = record.body else { panic!("lines") };
            found.push((record.spot.record, lines.len()));
        }
        assert_eq!(found, [(0, 2), (2, 1), (3, 1)]);
    }
}
