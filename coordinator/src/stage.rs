//! Whether this coordinator may speak for the run: said by the driver, asked by every call.

use pixfleet_proto::FleetError;
use tokio::sync::watch;

/// Where a coordinator stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It reads the run and writes the record that makes it the leader.
    Opening,
    /// Another coordinator leads, and this one follows it.
    Standby {
        /// Its number.
        leader: u64,
        /// Where it is, `host:port`.
        address: String,
    },
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
pub(crate) struct StageSetter(watch::Sender<Stage>);

/// The asking side.
#[derive(Debug, Clone)]
pub(crate) struct StageGate(watch::Receiver<Stage>);

/// Both sides, at [`Stage::Opening`].
pub(crate) fn stage() -> (StageSetter, StageGate) {
    let (sender, receiver) = watch::channel(Stage::Opening);
    (StageSetter(sender), StageGate(receiver))
}

impl StageSetter {
    /// From now on.
    pub(crate) fn enter(&self, stage: Stage) {
        self.0.send_replace(stage);
    }
}

impl StageGate {
    /// What a caller is told instead of an answer, if it must come later or go elsewhere.
    pub(crate) fn refusal(&self) -> Option<FleetError> {
        match &*self.0.borrow() {
            Stage::Leading => None,
            Stage::Opening => Some(FleetError::NotReady { what: "it opens the run".into() }),
            Stage::Standby { leader, address } => {
                Some(FleetError::NotReady { what: format!("it stands by; leader {leader} is at {address}") })
            }
            Stage::Aside { what } => Some(FleetError::NotReady { what: (*what).into() }),
            Stage::Over => Some(FleetError::RunOver { how: "the coordinator is about to end".into() }),
        }
    }

    /// Whether this coordinator leads the run or is about to.
    pub(crate) fn may_lead(&self) -> bool {
        matches!(&*self.0.borrow(), Stage::Opening | Stage::Leading)
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
        let (setter, gate) = stage();
        let class = || gate.refusal().map(|error| error.class());
        assert_eq!(class(), Some(Class::Retry));
        setter.enter(Stage::Leading);
        assert_eq!((class(), gate.gone().class()), (None, Class::Retry));
        setter.enter(Stage::Standby { leader: 2, address: "b:2".into() });
        assert_eq!(class(), Some(Class::Retry));
        assert!(gate.gone().to_string().contains("leader 2 is at b:2"), "{}", gate.gone());
        setter.enter(Stage::Aside { what: "another coordinator leads the run" });
        assert_eq!((class(), gate.gone().class()), (Some(Class::Retry), Class::Retry));
        setter.enter(Stage::Over);
        assert_eq!((class(), gate.gone().class()), (Some(Class::Fatal), Class::Fatal));
    }
}
