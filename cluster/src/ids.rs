//! Newtypes of everything that is counted, so that a rank cannot be passed where a lane is meant.
//!
//! ```compile_fail
//! use pixfleet_cluster::{Lane, Rank};
//! let lane: Lane = Rank(0);
//! ```

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! counted {
    ($($(#[$doc:meta])* $name:ident($inner:ty)),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The next one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

counted! {
    /// One process that asked to take part. Never reused within a run.
    MemberId(u64),
    /// One membership of the collective. Grows by one at every re-forming; never reused.
    Generation(u64),
    /// A member's place in its generation, `0..world`.
    Rank(u32),
    /// A fixed micro-batch of the global batch, `0..lanes`. Lanes never change during a run; ranks do.
    Lane(u32),
    /// An optimizer step. Step `s` consumes positions `s*B .. (s+1)*B`.
    Step(u64),
    /// A place in the endless stream of samples.
    Position(u64),
}

/// A run's name, as it stands in URLs: lower-case letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
