//! How an order reaches a worker that is connected.

use futures::StreamExt;
use futures::stream::Map;
use pixfleet_cluster::run::Order;
use pixfleet_proto::{FleetError, pb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

#[cfg(test)]
mod tests;

/// The way to the worker at the other end of a session.
pub(crate) type Orders = mpsc::Sender<Result<Order, FleetError>>;

/// What the session sends of them. An order becomes a message only when its session has room for it: until then all members
/// of a generation share one list of them.
pub(crate) type OrderStream =
    Map<ReceiverStream<Result<Order, FleetError>>, fn(Result<Order, FleetError>) -> Result<pb::Order, Status>>;

/// See [`OrderStream`].
pub(crate) fn stream(orders: mpsc::Receiver<Result<Order, FleetError>>) -> OrderStream {
    ReceiverStream::new(orders).map(|order| Ok(order?.into()))
}

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
    orders.try_send(Ok(order)).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => Unsent::Full,
        mpsc::error::TrySendError::Closed(_) => Unsent::Closed,
    })
}

/// Ends a session with `error`.
pub(crate) fn refuse(orders: &Orders, error: FleetError) {
    // A session that takes no more, or is gone, ends all the same.
    let _ = orders.try_send(Err(error));
}
