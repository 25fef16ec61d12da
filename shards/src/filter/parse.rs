//! Text -> condition. Pure; every error knows the characters that it is about.
//!
//! ```text
//! any        = all { "or" all }
//! all        = one { "and" one }
//! one        = "not" one | "(" any ")" | "has" "(" field ")" | value [ relation value | ["not"] "in" "(" value { "," value } ")" ]
//! relation   = "<" | "<=" | ">" | ">=" | "=" | "==" | "!="
//! value      = field | number | 'text' | "text" | true | false
//! ```

use super::field::{FIELDS, Field, Kind};
use std::fmt;
use std::ops::Range;

/// Conditions within conditions, at most.
const DEPTH_MAX: u32 = 64;
/// Longest condition, bytes.
const TEXT_MAX: usize = 1 << 16;

/// A condition that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FilterError {
    /// The condition.
    pub text: String,
    /// The bytes of it that are wrong; empty at its end.
    pub at: Range<usize>,
    /// What is wrong, and what is expected.
    pub problem: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.text[..self.at.start].chars().count();
        let marked = self.text[self.at.clone()].chars().count().max(1);
        // Line ends and tabs would move the mark.
        let line: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        write!(f, "character {}: {}\n  {line}\n  ", before + 1, self.problem)?;
        write!(f, "{}{}", " ".repeat(before), "^".repeat(marked))
    }
}

/// A condition and where it stands in the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) expr: Expr,
    pub(crate) at: Range<usize>,
}

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Compare(Operand, Relation, Operand),
    In(Operand, Vec<Operand>),
    Has(Field),
    /// A field that is true or false by itself.
    Is(Operand),
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    Field(Field),
    Number(f32),
    Text(String),
    Truth(bool),
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    Unequal,
}

impl Relation {
    /// The same with its sides changed.
    pub(crate) fn turned(self) -> Self {
        match self {
            Self::Less => Self::More,
            Self::AtMost => Self::AtLeast,
            Self::More => Self::Less,
            Self::AtLeast => Self::AtMost,
            Self::Equal => Self::Equal,
            Self::Unequal => Self::Unequal,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Word {
    Name(String),
    Number(f32),
    Text(String),
    Relation(Relation),
    Open,
    Close,
    Comma,
}

/// The condition that `text` says.
pub(crate) fn parse(text: &str) -> Result<Node, FilterError> {
    let fault = |at: Range<usize>, problem: String| FilterError { text: text.into(), at, problem };
    if text.len() > TEXT_MAX {
        let problem = format!("a condition of {} bytes; at most {TEXT_MAX} are read", text.len());
        return Err(FilterError { text: String::new(), at: 0..0, problem });
    }
    let words = words(text).map_err(|(at, problem)| fault(at, problem))?;
    let mut parser = Parser { words: &words, next: 0, end: text.len(), depth: 0 };
    let node = parser.any().map_err(|(at, problem)| fault(at, problem))?;
    match parser.words.get(parser.next) {
        None => Ok(node),
        Some((_, at)) => Err(fault(at.clone(), "expected `and`, `or` or the end".into())),
    }
}

type Fault = (Range<usize>, String);

fn words(text: &str) -> Result<Vec<(Word, Range<usize>)>, Fault> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (word, length) = match first {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '(' => (Word::Open, 1),
            ')' => (Word::Close, 1),
            ',' => (Word::Comma, 1),
            '\'' | '"' => quoted(rest, first).ok_or_else(|| (at..text.len(), format!("no {first} ends this text")))?,
            '<' | '>' | '=' | '!' => relation(rest).ok_or_else(|| (at..at + 1, "expected `!=`".to_owned()))?,
            c if c.is_ascii_digit() || matches!(c, '.' | '-' | '+') => {
                number(rest).map_err(|length| (at..at + length, format!("`{}` is no number", &rest[..length])))?
            }
            c if c.is_alphabetic() || c == '_' => {
                let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                (Word::Name(rest[..length].into()), length)
            }
            c => return Err((at..at + c.len_utf8(), format!("`{c}` means nothing here"))),
        };
        words.push((word, at..at + length));
        at += length;
    }
    Ok(words)
}

/// A text in quotes; two quotes within it are one.
fn quoted(rest: &str, quote: char) -> Option<(Word, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            text.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            text.push(quote);
        } else {
            return Some((Word::Text(text), at + 1));
        }
    }
    None
}

fn relation(rest: &str) -> Option<(Word, usize)> {
    let all = [
        ("<=", Relation::AtMost),
        (">=", Relation::AtLeast),
        ("==", Relation::Equal),
        ("!=", Relation::Unequal),
        ("<", Relation::Less),
        (">", Relation::More),
        ("=", Relation::Equal),
    ];
    all.into_iter().find(|(sign, _)| rest.starts_with(sign)).map(|(sign, r)| (Word::Relation(r), sign.len()))
}

/// A number, or the length of what looks like one.
fn number(rest: &str) -> Result<(Word, usize), usize> {
    let mut before = ' ';
    let ends = |c: char| {
        let sign = matches!(c, '-' | '+') && matches!(before, ' ' | 'e' | 'E');
        before = c;
        !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || sign)
    };
    let length = rest.find(ends).unwrap_or(rest.len()).max(1);
    let found = rest[..length].parse::<f32>().ok().filter(|n| n.is_finite());
    found.map(|n| (Word::Number(n), length)).ok_or(length)
}

struct Parser<'w> {
    words: &'w [(Word, Range<usize>)],
    next: usize,
    /// Length of the text.
    end: usize,
    depth: u32,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Node, Fault> {
        self.list("or", Self::all, Expr::Any)
    }

    fn all(&mut self) -> Result<Node, Fault> {
        self.list("and", Self::one, Expr::All)
    }

    fn list(
        &mut self,
        between: &str,
        of: fn(&mut Self) -> Result<Node, Fault>,
        make: fn(Vec<Node>) -> Expr,
    ) -> Result<Node, Fault> {
        let first = of(self)?;
        let mut nodes = vec![first];
        while self.take_name(between) {
            nodes.push(of(self)?);
        }
        if nodes.len() == 1 {
            return Ok(nodes.remove(0));
        }
        let at = nodes[0].at.start..nodes[nodes.len() - 1].at.end;
        Ok(Node { expr: make(nodes), at })
    }

    fn one(&mut self) -> Result<Node, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err((self.here(), format!("more than {DEPTH_MAX} conditions within one another")));
        }
        let start = self.here().start;
        let node = if self.take_name("not") {
            let inner = self.one()?;
            let at = start..inner.at.end;
            Node { expr: Expr::Not(Box::new(inner)), at }
        } else if self.take(&Word::Open) {
            let inner = self.any()?;
            self.close()?;
            // With its parentheses, which a reader of the counts expects.
            Node { at: start..self.before(), ..inner }
        } else if self.is_name("has") && matches!(self.words.get(self.next + 1), Some((Word::Open, _))) {
            self.next += 2;
            let at = self.here();
            let Operand::Field(field) = self.operand()?.0 else {
                return Err((at, "expected the name of a field".into()));
            };
            self.close()?;
            Node { expr: Expr::Has(field), at: start..self.before() }
        } else {
            self.comparison(start)?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn comparison(&mut self, start: usize) -> Result<Node, Fault> {
        let (left, kind) = self.operand()?;
        let not = self.take_name("not");
        if self.take_name("in") {
            let list = self.values(kind)?;
            let at = start..self.before();
            let node = Node { expr: Expr::In(left, list), at: at.clone() };
            return Ok(if not { Node { expr: Expr::Not(Box::new(node)), at } } else { node });
        }
        if not {
            return Err((self.here(), "expected `in` after `not`".into()));
        }
        let Some((Word::Relation(relation), at)) = self.words.get(self.next) else {
            if kind == Kind::Truth {
                return Ok(Node { expr: Expr::Is(left), at: start..self.before() });
            }
            return Err((self.here(), "expected one of < <= > >= = != in".into()));
        };
        if kind == Kind::Truth && !matches!(relation, Relation::Equal | Relation::Unequal) {
            return Err((at.clone(), "true and false have no order; expected = or !=".into()));
        }
        let relation = *relation;
        self.next += 1;
        let right = self.operand_of(kind)?;
        Ok(Node { expr: Expr::Compare(left, relation, right), at: start..self.before() })
    }

    /// The values in parentheses after `in`.
    fn values(&mut self, kind: Kind) -> Result<Vec<Operand>, Fault> {
        if !self.take(&Word::Open) {
            return Err((self.here(), "expected `(` and the values, with commas between them".into()));
        }
        let mut list = vec![self.operand_of(kind)?];
        while self.take(&Word::Comma) {
            list.push(self.operand_of(kind)?);
        }
        self.close()?;
        Ok(list)
    }

    fn operand_of(&mut self, kind: Kind) -> Result<Operand, Fault> {
        let at = self.here();
        let (operand, found) = self.operand()?;
        if found == kind {
            return Ok(operand);
        }
        Err((at, format!("this is {}, and is compared with {}", found.name(), kind.name())))
    }

    fn operand(&mut self) -> Result<(Operand, Kind), Fault> {
        let Some((word, at)) = self.words.get(self.next) else {
            return Err((self.here(), "expected a field, a number or a text".into()));
        };
        let found = match word {
            Word::Number(n) => (Operand::Number(*n), Kind::Number),
            Word::Text(text) => (Operand::Text(text.clone()), Kind::Text),
            Word::Name(name) if name.eq_ignore_ascii_case("true") => (Operand::Truth(true), Kind::Truth),
            Word::Name(name) if name.eq_ignore_ascii_case("false") => (Operand::Truth(false), Kind::Truth),
            Word::Name(name) => match Field::named(name) {
                Some((field, kind)) => (Operand::Field(field), kind),
                None => {
                    let known: Vec<&str> = FIELDS.iter().map(|(name, ..)| *name).collect();
                    let problem = format!(
                        "no field `{name}`; fields are {}; a text stands in quotes, 'like this'",
                        known.join(", ")
                    );
                    return Err((at.clone(), problem));
                }
            },
            Word::Relation(_) | Word::Open | Word::Close | Word::Comma => {
                return Err((at.clone(), "expected a field, a number or a text".into()));
            }
        };
        self.next += 1;
        Ok(found)
    }

    fn close(&mut self) -> Result<(), Fault> {
        if self.take(&Word::Close) { Ok(()) } else { Err((self.here(), "expected `)`".into())) }
    }

    fn take(&mut self, wanted: &Word) -> bool {
        let found = self.words.get(self.next).is_some_and(|(word, _)| word == wanted);
        self.next += usize::from(found);
        found
    }

    fn is_name(&self, wanted: &str) -> bool {
        matches!(self.words.get(self.next), Some((Word::Name(name), _)) if name.eq_ignore_ascii_case(wanted))
    }

    fn take_name(&mut self, wanted: &str) -> bool {
        let found = self.is_name(wanted);
        self.next += usize::from(found);
        found
    }

    /// The next word's place, or the end.
    fn here(&self) -> Range<usize> {
        self.words.get(self.next).map_or(self.end..self.end, |(_, at)| at.clone())
    }

    /// Where the last word ended.
    fn before(&self) -> usize {
        self.next.checked_sub(1).map_or(0, |last| self.words[last].1.end)
    }
}
