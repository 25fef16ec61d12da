//! Forming a group within its timeout, whatever gloo or NCCL do meanwhile.
//!
//! Gloo waits five timeouts for a peer that wrote its address and died before it connected, and cannot be told to stop;
//! NCCL makes its communicator here, before anybody counts on it, and can be told. Both do so on a thread of its own; this
//! one gives up in time, and the other ends by itself, its group unused.
//!
//! Invariant: the caller is blocked for the timeout and a quarter of a second at most, and not after an abort.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pixfleet_shim::Failure;

use crate::abort::AbortHandle;
use crate::error::CollectiveError;
use crate::group::{Backend, GroupConfig};
use crate::live::LiveGroup;
use crate::store::RendezvousStore;

pub(crate) const OPERATION: &str = "forming the group";

/// Gloo and the store use the same timeout and can say more about what was missing: they speak first.
const SLACK: Duration = Duration::from_millis(250);

pub(crate) fn form(
    backend: Backend,
    store: Arc<dyn RendezvousStore>,
    config: &GroupConfig,
    abort: &AbortHandle,
) -> Result<LiveGroup, CollectiveError> {
    // One channel wakes for both: an abort sends nothing but the signal.
    let (signal, signals) = channel();
    if !abort.forming(signal.clone()) {
        return Err(CollectiveError::Aborted { operation: OPERATION });
    }
    let (answer, answers) = channel();
    let (theirs, reach) = (config.clone(), abort.clone());
    let spawned = std::thread::Builder::new().name("pf-forming".to_owned()).spawn(move || {
        let formed = LiveGroup::join(backend, store, &theirs).and_then(|mut live| {
            if !reach.joined(signal.clone(), live.links()) {
                return Err(CollectiveError::Aborted { operation: OPERATION });
            }
            live.connect(&theirs).map(|()| live)
        });
        // Nobody listens after the timeout: the group then drops here.
        drop(answer.send(formed));
        let _ = signal.send(());
    });
    if let Err(error) = spawned {
        return Err(CollectiveError::Torch { operation: OPERATION, source: Failure::new(error.to_string()) });
    }
    match signals.recv_timeout(config.timeout + SLACK) {
        Ok(()) => match answers.try_recv() {
            Ok(result) => result,
            Err(_) => Err(CollectiveError::Aborted { operation: OPERATION }),
        },
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let source = Failure::new("a peer came to the store and did not connect");
            Err(CollectiveError::Timeout { operation: OPERATION, after: config.timeout, source })
        }
    }
}
