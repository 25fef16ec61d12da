//! A stack of blocks, of which the last is run in the form that its reader needs.

use tch::Tensor;

use super::attention::Sight;
use super::block::Block;
use super::config::StackSizes;
use crate::params::{Builder, ParamGroup, Weights};

/// The blocks of one tower.
#[derive(Debug)]
pub(super) struct Stack {
    before: Vec<Block>,
    last: Block,
}

impl Stack {
    /// Registers `layers.{0..depth}` at `at` (the builder below `encoder`); `group` says how block i learns.
    pub(super) fn new(
        sizes: &StackSizes,
        sight: Sight,
        group: impl Fn(i64) -> ParamGroup,
        at: &mut Builder<'_>,
    ) -> Self {
        let mut block = |i: i64| Block::new(sizes, sight, &mut at.below(&format!("layers.{i}")).of(group(i)));
        let before = (0..sizes.depth - 1).map(&mut block).collect();
        Self { before, last: block(sizes.depth - 1) }
    }

    /// `x` [B, T, C] through all blocks but the last, and the last.
    pub(super) fn run(&self, w: &Weights<'_>, x: Tensor) -> (Tensor, &Block) {
        let through = |x: Tensor, block: &Block| {
            let block = block.clone();
            w.segment(&x, move |w, x| block.forward(w, x))
        };
        (self.before.iter().fold(x, through), &self.last)
    }
}
