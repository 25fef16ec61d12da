//! What a pickle builds: nodes in one flat list, which refer to each other by number. Nothing is nested in memory, so
//! neither depth nor cycles nor a value that is named a million times cost more than the bytes that say so.

use super::error::PickleFault;
use super::globals::Global;
use super::tensor::{Storage, Strided};

/// Most nodes of one pickle; 32 bytes each. A checkpoint has about thirty per tensor.
pub(super) const NODES_MAX: usize = 1 << 22;

/// The number of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(u32);

/// A value of the pickle, as far as a state dict needs it.
#[derive(Debug)]
pub(super) enum Node {
    Int(i64),
    Text(Box<str>),
    Tuple(Vec<Id>),
    /// Pairs in the order of writing; a later one of the same key wins.
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Box<Storage>),
    Tensor(Box<Strided>),
    /// A value whose contents nobody asks for, by the name of its type: None, floats, bytes, lists, sets, namespaces.
    Inert(&'static str),
}

impl Node {
    /// The name of its type in messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "int",
            Self::Text(_) => "str",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Global(_) => "class or function",
            Self::Storage(_) => "storage",
            Self::Tensor(_) => "tensor",
            Self::Inert(kind) => kind,
        }
    }
}

/// All nodes of one pickle.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
}

impl Graph {
    pub(super) fn add(&mut self, node: Node) -> Result<Id, PickleFault> {
        if self.nodes.len() == NODES_MAX {
            return Err(PickleFault::TooMany(NODES_MAX));
        }
        self.nodes.push(node);
        Ok(Id(self.nodes.len() as u32 - 1))
    }

    pub(super) fn get(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    pub(super) fn int(&self, id: Id) -> Result<i64, PickleFault> {
        match self.get(id) {
            Node::Int(value) => Ok(*value),
            other => Err(PickleFault::Type { expected: "int", found: other.kind() }),
        }
    }

    pub(super) fn text(&self, id: Id) -> Result<&str, PickleFault> {
        match self.get(id) {
            Node::Text(text) => Ok(text),
            other => Err(PickleFault::Type { expected: "str", found: other.kind() }),
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Result<&[Id], PickleFault> {
        match self.get(id) {
            Node::Tuple(items) => Ok(items),
            other => Err(PickleFault::Type { expected: "tuple", found: other.kind() }),
        }
    }

    pub(super) fn ints(&self, id: Id) -> Result<Vec<i64>, PickleFault> {
        self.tuple(id)?.iter().map(|&item| self.int(item)).collect()
    }
}
