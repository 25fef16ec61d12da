//! How an order reaches a worker that is connected.

use pixfleet_cluster::run::Order;
use pixfleet_proto::{FleetError, pb};
use tokio::sync::mpsc;
use tonic::Status;

#[cfg(test)]
mod tests;

/// The way to the worker at the other end of a session.
pub(crate) type Orders = mpsc::Sender<Result<pb::Order, Status>>;

/// Why an order did not reach its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The worker does not read its orders.
    Full,
    /// The session has ended.
    Closed,
}

/// Queues an order.
pub(crate) fn give(orders: &Orders, order: Order) -> Result<(), Unsent> {
    orders.try_send(Ok(order.into())).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => Unsent::Full,
        mpsc::error::TrySendError::Closed(_) => Unsent::Closed,
    })
}

/// Ends a session with `error`.
pub(crate) fn refuse(orders: &Orders, error: FleetError) {
    // A session that takes no more, or is gone, ends all the same.
    let _ = orders.try_send(Err(error.into()));
}
