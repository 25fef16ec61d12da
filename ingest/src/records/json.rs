//! Records of JSON without a document in memory: the elements of the lists of one large object, of one large list, and
//! lines. Only brackets and strings are looked at here, so an element that is no JSON is refused alone by who parses it,
//! and the next is found all the same.

use crate::error::IngestError;
use std::io::{BufRead, ErrorKind, Read};

/// Bytes of one element at most.
pub(crate) const ELEMENT_MAX: usize = 64 << 20;
/// Bytes that are read ahead.
pub(crate) const READ_AHEAD: usize = 1 << 20;

/// What comes next of a JSON file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The elements that follow are those of this member of the object; empty for a file that is one list.
    List(String),
    /// The text of one element.
    Element(Vec<u8>),
}

/// Walks one JSON file.
pub(crate) struct JsonLists<R> {
    file: String,
    input: R,
    offset: u64,
    state: State,
    /// Lists that are wanted; the others are passed over.
    wanted: fn(&str) -> bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// Between the members of the object.
    Members,
    /// Between the elements of a list; whether the list is a member.
    Elements {
        member: bool,
    },
    End,
}

impl<R: BufRead> JsonLists<R> {
    pub(crate) fn new(file: impl Into<String>, input: R, wanted: fn(&str) -> bool) -> Self {
        Self { file: file.into(), input, offset: 0, state: State::Start, wanted }
    }

    /// The next list or element; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, IngestError> {
        loop {
            match self.state {
                State::Start => match self.token()? {
                    Some(b'[') => {
                        self.state = State::Elements { member: false };
                        return Ok(Some(Piece::List(String::new())));
                    }
                    Some(b'{') => self.state = State::Members,
                    found => return Err(self.broken(found, "`[` or `{`, the begin of JSON")),
                },
                State::Members => match self.token()? {
                    Some(b'"') => {
                        if let Some(name) = self.member()? {
                            return Ok(Some(Piece::List(name)));
                        }
                    }
                    Some(b',') => {}
                    Some(b'}') => self.state = State::End,
                    found => return Err(self.broken(found, "a member of the object")),
                },
                State::Elements { member } => match self.token()? {
                    Some(b',') => {}
                    Some(b']') => self.state = if member { State::Members } else { State::End },
                    Some(first) => return Ok(Some(Piece::Element(self.value(first, true)?))),
                    None => return Err(self.broken(None, "the next element of the list, or its end")),
                },
                State::End => {
                    return match self.token()? {
                        None => Ok(None),
                        found => Err(self.broken(found, "the end of the file")),
                    };
                }
            }
        }
    }

    /// The member whose name has begun: its name if it is a list that is wanted, else it is passed over.
    fn member(&mut self) -> Result<Option<String>, IngestError> {
        let quoted = self.value(b'"', true)?;
        let name: String = serde_json::from_slice(&quoted).map_err(|_| self.broken(None, "a member's name"))?;
        match self.token()? {
            Some(b':') => {}
            found => return Err(self.broken(found, "`:` after a member's name")),
        }
        match self.token()? {
            Some(b'[') if (self.wanted)(&name) => {
                self.state = State::Elements { member: true };
                Ok(Some(name))
            }
            Some(first) => self.value(first, false).map(|_| None),
            None => Err(self.broken(None, "a member's value")),
        }
    }

    /// The value that begins with `first`, to its end by brackets and strings; its text if it is to be `kept`.
    fn value(&mut self, first: u8, kept: bool) -> Result<Vec<u8>, IngestError> {
        let mut scan = Scan::new(first);
        let mut text = Vec::new();
        if kept {
            text.push(first);
        }
        while !scan.done {
            let buffer = fill(&mut self.input, &self.file)?;
            if buffer.is_empty() {
                return if scan.is_bare() { Ok(text) } else { Err(self.broken(None, "the end of a value")) };
            }
            let used = scan.run(buffer);
            if kept {
                text.extend_from_slice(&buffer[..used]);
                if text.len() > ELEMENT_MAX {
                    return Err(self.broken(Some(first), "an element of 64 MiB at most"));
                }
            }
            self.input.consume(used);
            self.offset += used as u64;
        }
        Ok(text)
    }

    /// The next byte that is no space.
    fn token(&mut self) -> Result<Option<u8>, IngestError> {
        loop {
            let buffer = fill(&mut self.input, &self.file)?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let blank = buffer.iter().position(|b| !matches!(b, b' ' | b'\n' | b'\r' | b'\t'));
            let (found, used) = match blank {
                Some(at) => (Some(buffer[at]), at + 1),
                None => (None, buffer.len()),
            };
            self.input.consume(used);
            self.offset += used as u64;
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    fn broken(&self, found: Option<u8>, expected: &'static str) -> IngestError {
        let (file, offset) = (self.file.clone(), self.offset - u64::from(found.is_some()));
        let found = found.map_or_else(|| "the file ends".into(), |b| format!("`{}`", char::from(b)));
        IngestError::Broken { file, offset, found, expected }
    }
}

/// Where within a value a scan is.
struct Scan {
    depth: u32,
    in_string: bool,
    escaped: bool,
    done: bool,
}

impl Scan {
    fn new(first: u8) -> Self {
        let depth = u32::from(matches!(first, b'[' | b'{'));
        Self { depth, in_string: first == b'"', escaped: false, done: false }
    }

    /// A number or word: ends before the next mark.
    fn is_bare(&self) -> bool {
        self.depth == 0 && !self.in_string
    }

    /// Bytes of `buffer` that belong to the value.
    fn run(&mut self, buffer: &[u8]) -> usize {
        for (at, &byte) in buffer.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        self.done = self.depth == 0;
                    }
                    _ => {}
                }
            } else if self.is_bare() {
                if matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t') {
                    self.done = true;
                    return at;
                }
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'[' | b'{' => self.depth += 1,
                    b']' | b'}' => {
                        self.depth -= 1;
                        self.done = self.depth == 0;
                    }
                    _ => {}
                }
            }
            if self.done {
                return at + 1;
            }
        }
        buffer.len()
    }
}

fn fill<'a>(input: &'a mut impl BufRead, file: &str) -> Result<&'a [u8], IngestError> {
    // An interrupted read is tried again; the borrow must not outlive the look.
    while let Err(error) = input.fill_buf() {
        if error.kind() != ErrorKind::Interrupted {
            return Err(IngestError::Read { file: file.into(), source: error });
        }
    }
    input.fill_buf().map_err(|source| IngestError::Read { file: file.into(), source })
}

/// The next line that is not empty, without its end; `None` at the end.
pub(crate) fn line(input: &mut impl BufRead, file: &str) -> Result<Option<Vec<u8>>, IngestError> {
    loop {
        let mut line = Vec::new();
        let mut bounded = Read::by_ref(input).take(ELEMENT_MAX as u64 + 1);
        let read = bounded.read_until(b'\n', &mut line);
        read.map_err(|source| IngestError::Read { file: file.into(), source })?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() > ELEMENT_MAX {
            let found = "a line that goes on".into();
            return Err(IngestError::Broken {
                file: file.into(),
                offset: 0,
                found,
                expected: "lines of 64 MiB at most",
            });
        }
        let end = line.iter().rposition(|b| !b.is_ascii_whitespace()).map_or(0, |at| at + 1);
        line.truncate(end);
        if !line.is_empty() {
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// All pieces as text, read a few bytes at a time so that every border is crossed.
    fn pieces(json: &str) -> Result<Vec<String>, IngestError> {
        let mut lists = JsonLists::new("a.json", BufReader::with_capacity(3, json.as_bytes()), |name| name != "info");
        let mut found = Vec::new();
        while let Some(piece) = lists.next()? {
            found.push(match piece {
                Piece::List(name) => format!("<{name}>"),
                Piece::Element(text) => String::from_utf8(text).expect("text"),
            });
        }
        Ok(found)
    }

    #[test]
    fn elements_of_lists_come_one_by_one() {
        let json = r#" {"info": {"x": [1, "]"]}, "v": 1.5, "images": [{"id": 1, "n": "a\"]}"}, {"id": 2}],
                        "empty": [], "annotations":[ [1,[2]] ,7, "s" ], "info":[{"a":1}] } "#;
        assert_eq!(
            pieces(json).expect("JSON"),
            [
                "<images>",
                r#"{"id": 1, "n": "a\"]}"}"#,
                r#"{"id": 2}"#,
                "<empty>",
                "<annotations>",
                "[1,[2]]",
                "7",
                r#""s""#
            ]
        );
        assert_eq!(pieces("[{\"a\": 1},\n{}]").expect("JSON"), ["<>", "{\"a\": 1}", "{}"]);
    }

    #[test]
    fn an_element_that_is_no_json_is_handed_on_and_the_next_is_found() {
        assert_eq!(
            pieces(r#"[{"a": NaN, b}, {"c": 1}]"#).expect("brackets"),
            ["<>", r#"{"a": NaN, b}"#, r#"{"c": 1}"#]
        );
    }

    #[test]
    fn a_file_that_ends_early_is_named_with_its_byte() {
        let error = pieces(r#"{"images": [{"id": 1}, {"id": "#).expect_err("cut").to_string();
        assert_eq!(error, "a.json, byte 30: the file ends; expected the end of a value");
        let error = pieces("").expect_err("empty").to_string();
        assert_eq!(error, "a.json, byte 0: the file ends; expected `[` or `{`, the begin of JSON");
        assert!(pieces("[1] 2").expect_err("more").to_string().contains("expected the end of the file"));
    }

    #[test]
    fn lines_come_without_blanks() {
        let mut input = BufReader::with_capacity(2, &b"{\"a\": 1}\r\n\n  \n{}"[..]);
        assert_eq!(line(&mut input, "x").expect("reads").as_deref(), Some(&b"{\"a\": 1}"[..]));
        assert_eq!(line(&mut input, "x").expect("reads").as_deref(), Some(&b"{}"[..]));
        assert_eq!(line(&mut input, "x").expect("reads"), None);
    }
}
