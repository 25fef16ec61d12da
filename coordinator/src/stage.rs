//! Whether this coordinator may speak for the run: said by the driver, asked by every call.

use pixfleet_proto::FleetError;
use tokio::sync::watch;

/// Where a coordinator stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It reads the run and writes the record that makes it the leader.
    Opening,
    /// It leads.
    Leading,
    /// It does not lead any more, or cannot write: somebody else may.
    Aside {
        /// Why.
        what: &'static str,
    },
    /// The run is over.
    Over,
}

/// The saying side.
#[derive(Debug)]
pub(crate) struct Standing(watch::Sender<Stage>);

/// The asking side.
#[derive(Debug, Clone)]
pub(crate) struct Ask(watch::Receiver<Stage>);

/// Both sides, at [`Stage::Opening`].
pub(crate) fn stage() -> (Standing, Ask) {
    let (sender, receiver) = watch::channel(Stage::Opening);
    (Standing(sender), Ask(receiver))
}

impl Standing {
    /// From now on.
    pub(crate) fn enter(&self, stage: Stage) {
        self.0.send_replace(stage);
    }
}

impl Ask {
    /// What a caller is told instead of an answer, if it must come later or go elsewhere.
    pub(crate) fn refusal(&self) -> Option<FleetError> {
        match &*self.0.borrow() {
            Stage::Leading => None,
            Stage::Opening => Some(FleetError::NotReady { what: "it opens the run".into() }),
            Stage::Aside { what } => Some(FleetError::NotReady { what: (*what).into() }),
            Stage::Over => Some(FleetError::RunOver { how: "the coordinator is about to end".into() }),
        }
    }

    /// What a caller is told whose question nobody answers: the driver has just ended.
    pub(crate) fn gone(&self) -> FleetError {
        self.refusal().unwrap_or(FleetError::NotReady { what: "it is about to end".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixfleet_cluster::Class;

    #[test]
    fn only_the_end_of_the_run_is_final() {
        let (standing, ask) = stage();
        let class = || ask.refusal().map(|error| error.class());
        assert_eq!(class(), Some(Class::Retry));
        standing.enter(Stage::Leading);
        assert_eq!((class(), ask.gone().class()), (None, Class::Retry));
        standing.enter(Stage::Aside { what: "another coordinator leads the run" });
        assert_eq!((class(), ask.gone().class()), (Some(Class::Retry), Class::Retry));
        standing.enter(Stage::Over);
        assert_eq!((class(), ask.gone().class()), (Some(Class::Fatal), Class::Fatal));
    }
}
