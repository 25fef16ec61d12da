//! What a caller does about an error. Every error of every crate maps to one of these, and the class survives the
//! wire.

use serde::{Deserialize, Serialize};

/// The caller's next move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// The same call may succeed later: a time-out, a busy store, a coordinator that is restarting.
    Retry,
    /// The generation is over; wait for the next one.
    Reform,
    /// Nothing but a person can mend it: bad input, missing permission, a bug.
    Fatal,
}
