//! The pickle machine: the instructions that torch.save writes (protocols 2 to 5), over [`Graph`]. It interprets, it
//! executes nothing: a call is a match on [`Global`], and every name outside that list ends the reading.

use super::error::PickleFault;
use super::globals::Global;
use super::node::{Graph, Id, Node};
use super::tensor::{Storage, Strided};
use std::collections::HashMap;

/// Why a pickle was not read.
#[derive(Debug)]
pub(super) enum Stop {
    /// It names something outside the closed list: `module.name`.
    Refused(String),
    /// It is malformed, at this byte.
    Fault(usize, PickleFault),
}

/// Reads one pickle; what it returned is the second value.
pub(super) fn read(bytes: &[u8]) -> Result<(Graph, Id), Stop> {
    let mut machine = Machine {
        input: Input { bytes, at: 0 },
        graph: Graph::default(),
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
    };
    loop {
        let at = machine.input.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return Ok((machine.graph, root)),
            Err(Halt::Refused(global)) => return Err(Stop::Refused(global)),
            Err(Halt::Fault(fault)) => return Err(Stop::Fault(at, fault)),
        }
    }
}

enum Halt {
    Refused(String),
    Fault(PickleFault),
}

impl From<PickleFault> for Halt {
    fn from(fault: PickleFault) -> Self {
        Self::Fault(fault)
    }
}

struct Input<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Input<'b> {
    fn take(&mut self, n: u64) -> Result<&'b [u8], PickleFault> {
        let rest = &self.bytes[self.at..];
        let n = usize::try_from(n).ok().filter(|&n| n <= rest.len()).ok_or(PickleFault::Truncated)?;
        self.at += n;
        Ok(&rest[..n])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleFault> {
        Ok(self.take(N as u64)?.try_into().expect("N bytes were taken"))
    }

    fn u8(&mut self) -> Result<u8, PickleFault> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, PickleFault> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, PickleFault> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self, n: u64) -> Result<&'b str, PickleFault> {
        std::str::from_utf8(self.take(n)?).map_err(|_| PickleFault::Text)
    }

    /// Up to a line feed, which is consumed.
    fn line(&mut self) -> Result<&'b str, PickleFault> {
        let n = self.bytes[self.at..].iter().position(|&b| b == b'\n').ok_or(PickleFault::Truncated)?;
        let line = self.text(n as u64)?;
        self.at += 1;
        Ok(line)
    }
}

struct Machine<'b> {
    input: Input<'b>,
    graph: Graph,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    /// One instruction; the root at STOP.
    fn step(&mut self) -> Result<Option<Id>, Halt> {
        let opcode = self.input.u8()?;
        match opcode {
            b'.' => return Ok(Some(self.pop()?)),
            // PROTO, FRAME
            0x80 => match self.input.u8()? {
                2..=5 => {}
                other => return Err(PickleFault::Protocol(other).into()),
            },
            0x95 => self.input.u64().map(|_| ())?,
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.pop().map(|_| ())?,
            b'1' => self.above_mark().map(|_| ())?,
            b'h' | b'j' | b'q' | b'r' | 0x94 => self.memorize(opcode)?,
            b'c' | b'i' | 0x93 => self.name_global(opcode)?,
            b'R' | 0x81 | b'b' | b'Q' => self.call(opcode)?,
            b']' | b'a' | b'e' | b'l' | 0x8f | 0x90 | 0x91 | b'}' | b's' | b'u' | b'd' | b')' | b't' | 0x85..=0x87 => {
                self.collect(opcode)?;
            }
            _ => self.literal(opcode)?,
        }
        Ok(None)
    }

    fn pop(&mut self) -> Result<Id, PickleFault> {
        // What lies below a mark belongs to whoever opened it.
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(PickleFault::StackUnderflow);
        }
        self.stack.pop().ok_or(PickleFault::StackUnderflow)
    }

    fn top(&self) -> Result<Id, PickleFault> {
        self.stack.last().copied().ok_or(PickleFault::StackUnderflow)
    }

    fn push(&mut self, node: Node) -> Result<(), PickleFault> {
        let id = self.graph.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn above_mark(&mut self) -> Result<Vec<Id>, PickleFault> {
        let mark = self.marks.pop().ok_or(PickleFault::StackUnderflow)?;
        Ok(self.stack.split_off(mark))
    }

    /// BINGET, LONG_BINGET, BINPUT, LONG_BINPUT, MEMOIZE.
    fn memorize(&mut self, opcode: u8) -> Result<(), PickleFault> {
        let place = match opcode {
            b'h' | b'q' => u32::from(self.input.u8()?),
            b'j' | b'r' => self.input.u32()?,
            _ => self.memo.len() as u32,
        };
        if matches!(opcode, b'h' | b'j') {
            let id = self.memo.get(&place).copied().ok_or(PickleFault::Memo(place))?;
            self.stack.push(id);
        } else {
            let id = self.top()?;
            self.memo.insert(place, id);
        }
        Ok(())
    }

    /// GLOBAL, STACK_GLOBAL; INST, which names a class and calls it at once, is never among what torch writes.
    fn name_global(&mut self, opcode: u8) -> Result<(), Halt> {
        let (module, name) = if opcode == 0x93 {
            let (name, module) = (self.pop()?, self.pop()?);
            (self.graph.text(module)?.to_owned(), self.graph.text(name)?.to_owned())
        } else {
            (self.input.line()?.to_owned(), self.input.line()?.to_owned())
        };
        match Global::find(&module, &name) {
            Some(global) if opcode != b'i' => Ok(self.push(Node::Global(global))?),
            _ => Err(Halt::Refused(format!("{module}.{name}"))),
        }
    }

    /// REDUCE, NEWOBJ, BUILD, BINPERSID: what makes Python call something.
    fn call(&mut self, opcode: u8) -> Result<(), PickleFault> {
        let argument = self.pop()?;
        match opcode {
            b'Q' => {
                let storage = Storage::from_persistent_id(&self.graph, argument)?;
                self.push(Node::Storage(Box::new(storage)))
            }
            // The attributes of an OrderedDict (`_metadata` of a state dict) or of an inert object: dropped.
            b'b' => match self.graph.get(self.top()?) {
                Node::Dict(_) | Node::Inert(_) => Ok(()),
                other => Err(PickleFault::Type { expected: "dict", found: other.kind() }),
            },
            _ => {
                let callee = self.pop()?;
                let made = match self.graph.get(callee) {
                    Node::Global(global) => self.make(*global, argument)?,
                    other => return Err(PickleFault::Type { expected: "class or function", found: other.kind() }),
                };
                self.stack.push(made);
                Ok(())
            }
        }
    }

    /// What a listed class or function makes of its arguments.
    fn make(&mut self, callee: Global, arguments: Id) -> Result<Id, PickleFault> {
        let strange = PickleFault::Arguments(callee.name());
        let items = self.graph.tuple(arguments)?;
        match callee {
            Global::OrderedDict if items.is_empty() => self.graph.add(Node::Dict(vec![])),
            Global::RebuildTensor => {
                let [storage, offset, shape, stride, ..] = *items else { return Err(strange) };
                let Node::Storage(storage) = self.graph.get(storage) else { return Err(strange) };
                let (shape, stride) = (self.graph.ints(shape)?, self.graph.ints(stride)?);
                let tensor = Strided::new((**storage).clone(), self.graph.int(offset)?, &shape, &stride)?;
                self.graph.add(Node::Tensor(Box::new(tensor)))
            }
            Global::RebuildParameter => {
                let is_tensor = |id: &&Id| matches!(self.graph.get(**id), Node::Tensor(_));
                items.first().filter(is_tensor).copied().ok_or(strange)
            }
            Global::RebuildFromType => {
                let [inner, _class, arguments, ..] = *items else { return Err(strange) };
                let Node::Global(inner) = self.graph.get(inner) else { return Err(strange) };
                if !matches!(inner, Global::RebuildTensor | Global::RebuildParameter) {
                    return Err(strange);
                }
                self.make(*inner, arguments)
            }
            Global::Inert(kind) => self.graph.add(Node::Inert(kind)),
            Global::OrderedDict | Global::Storage(_) => Err(strange),
        }
    }

    /// Containers: what opens, fills and closes them.
    fn collect(&mut self, opcode: u8) -> Result<(), PickleFault> {
        match opcode {
            b']' => self.push(Node::Inert("list")),
            0x8f => self.push(Node::Inert("set")),
            b'}' => self.push(Node::Dict(vec![])),
            b')' => self.push(Node::Tuple(vec![])),
            b't' | b'l' | 0x91 | b'd' => {
                let items = self.above_mark()?;
                self.push(match opcode {
                    b't' => Node::Tuple(items),
                    b'd' => Node::Dict(pairs(&items)?),
                    b'l' => Node::Inert("list"),
                    _ => Node::Inert("frozenset"),
                })
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..opcode - 0x84 {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Node::Tuple(items))
            }
            b's' | b'u' => {
                let items = if opcode == b'u' {
                    self.above_mark()?
                } else {
                    let (value, key) = (self.pop()?, self.pop()?);
                    vec![key, value]
                };
                let target = self.top()?;
                match self.graph.get_mut(target) {
                    Node::Dict(held) => held.extend(pairs(&items)?),
                    Node::Inert(_) => {}
                    other => return Err(PickleFault::Type { expected: "dict", found: other.kind() }),
                }
                Ok(())
            }
            // APPEND, APPENDS, ADDITEMS
            _ => {
                let _items = if opcode == b'a' { vec![self.pop()?] } else { self.above_mark()? };
                match self.graph.get(self.top()?) {
                    Node::Inert(_) => Ok(()),
                    other => Err(PickleFault::Type { expected: "list", found: other.kind() }),
                }
            }
        }
    }

    /// Constants: numbers, text, bytes.
    fn literal(&mut self, opcode: u8) -> Result<(), PickleFault> {
        let input = &mut self.input;
        let node = match opcode {
            b'N' => Node::Inert("None"),
            0x88 | 0x89 => Node::Inert("bool"),
            b'J' => Node::Int(i64::from(i32::from_le_bytes(input.array()?))),
            b'K' => Node::Int(i64::from(input.u8()?)),
            b'M' => Node::Int(i64::from(u16::from_le_bytes(input.array()?))),
            0x8a | 0x8b => {
                let n = if opcode == 0x8a { u32::from(input.u8()?) } else { input.u32()? };
                integer(input.take(u64::from(n))?).map_or(Node::Inert("int beyond 64 bits"), Node::Int)
            }
            b'G' => {
                input.take(8)?;
                Node::Inert("float")
            }
            b'X' | 0x8c | 0x8d => {
                let n = match opcode {
                    b'X' => u64::from(input.u32()?),
                    0x8c => u64::from(input.u8()?),
                    _ => input.u64()?,
                };
                Node::Text(input.text(n)?.into())
            }
            b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96 => {
                let n = match opcode {
                    b'T' | b'B' => u64::from(input.u32()?),
                    b'U' | b'C' => u64::from(input.u8()?),
                    _ => input.u64()?,
                };
                input.take(n)?;
                Node::Inert("bytes")
            }
            other => return Err(PickleFault::Opcode(other)),
        };
        self.push(node)
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, PickleFault> {
    if items.len() % 2 == 1 {
        return Err(PickleFault::StackUnderflow);
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// Two's complement, little-endian; `None` beyond 64 bits.
fn integer(bytes: &[u8]) -> Option<i64> {
    let fill = if bytes.last().is_some_and(|&b| b >= 0x80) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}
