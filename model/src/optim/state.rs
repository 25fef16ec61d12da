//! Everything of a run that a checkpoint holds, as named tensors: `param/<n>`, `adam_m/<n>`, `adam_v/<n>` and, with an
//! EMA or frozen teacher, `ema/<n>`. The order is fixed by the model, so every rank sees the same list and can take
//! its share of it, or send it by broadcast, by position.

use std::collections::HashMap;

use tch::{Tensor, no_grad};

use super::AdamW;
use crate::{ModelError, Params};

/// The parts of a run's state that are tensors.
#[derive(Debug)]
pub struct State<'a> {
    /// The model's numbers, frozen ones too.
    pub params: &'a Params,
    /// The optimizer's.
    pub optimizer: &'a mut AdamW,
    /// The teacher's, if the loss has one.
    pub teacher: Option<&'a Params>,
}

impl State<'_> {
    /// The live tensors, by name and in a fixed order: sharing memory with the run, not copies. Writing into them (a
    /// broadcast) under `no_grad` is a restore.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let live = |prefix: &str, name: &str, t: &Tensor| (format!("{prefix}/{name}"), t.detach());
        let mut all: Vec<_> = self.params.iter().map(|p| live("param", p.name(), p.tensor())).collect();
        all.extend(self.optimizer.slots().iter().map(|s| live("adam_m", s.name(), s.moments().0)));
        all.extend(self.optimizer.slots().iter().map(|s| live("adam_v", s.name(), s.moments().1)));
        if let Some(teacher) = self.teacher {
            all.extend(teacher.iter().map(|p| live("ema", p.name(), p.tensor())));
        }
        all
    }

    /// Optimizer steps taken: the one number beside the tensors.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Notes the step count of a state whose tensors were written through [`Self::tensors`].
    pub fn set_steps(&mut self, steps: u64) {
        self.optimizer.restore_steps(steps);
    }

    /// Takes over a checkpoint's tensors, whole and exactly: all names, no other, the same shapes. Nothing is changed
    /// unless everything fits. Any device and dtype is converted.
    ///
    /// # Errors
    /// [`ModelError::NoSuchParameter`] for a name that is missing or foreign, [`ModelError::Shape`],
    /// [`ModelError::Torch`].
    pub fn restore(&mut self, saved: &HashMap<String, Tensor>, steps: u64) -> Result<(), ModelError> {
        let mut live = self.tensors();
        for (name, target) in &live {
            let source = saved.get(name).ok_or_else(|| ModelError::StateLacks { name: name.clone() })?;
            if source.size() != target.size() {
                let expected = format!("{:?}", target.size());
                return Err(ModelError::Shape { what: name.clone(), expected, found: source.size() });
            }
        }
        if saved.len() != live.len() {
            let known: std::collections::HashSet<&str> = live.iter().map(|(name, _)| name.as_str()).collect();
            let foreign = saved.keys().filter(|name| !known.contains(name.as_str())).min();
            return Err(ModelError::NoSuchParameter { name: foreign.cloned().unwrap_or_default() });
        }
        no_grad(|| live.iter_mut().try_for_each(|(name, target)| target.f_copy_(&saved[name.as_str()])))?;
        self.set_steps(steps);
        Ok(())
    }
}
