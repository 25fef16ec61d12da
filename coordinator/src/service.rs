//! The tonic service: turns streams and calls into the driver's inputs. It holds no state of the run.

use crate::driver::Input;
use crate::orders::{self, OrderStream};
use crate::stage::StageGate;
use futures::Stream;
use pixfleet_cluster::run::{Report, RunEvent};
use pixfleet_cluster::sessions::Seat;
use pixfleet_proto::pb::fleet_server::Fleet;
use pixfleet_proto::{FleetError, pb};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

/// Orders that may wait for one worker; a healthy one holds none or one.
const ORDERS_QUEUED_MAX: usize = 64;
/// How long a new session may take to say who it is.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);

type Reply<T> = Result<Response<T>, Status>;
type Stream2<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) inputs: mpsc::Sender<Input>,
    /// Taken away when the run is over, so that all watchers' streams end.
    pub(crate) notices: Arc<Mutex<Option<broadcast::Sender<pb::Notice>>>>,
    /// Whether this coordinator may speak for the run.
    pub(crate) gate: StageGate,
}

impl Service {
    async fn tell(&self, input: Input) -> Result<(), Status> {
        self.inputs.send(input).await.map_err(|_| self.gone())
    }

    fn gone(&self) -> Status {
        self.gate.gone().into()
    }

    /// Who watches or tells something may do so before the run is open: it is heard when it is.
    fn may_lead(&self) -> Result<(), Status> {
        if self.gate.may_lead() { Ok(()) } else { Err(self.gone()) }
    }

    fn leads(&self) -> Result<(), Status> {
        self.gate.refusal().map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Passes on what a worker says until its session ends.
async fn listen(mut reports: Streaming<pb::Report>, inputs: mpsc::Sender<Input>, seat: Seat) {
    let how = loop {
        let report = match reports.message().await {
            Ok(Some(report)) => report,
            Ok(None) => break "it hung up".to_string(),
            Err(status) => break status.message().to_string(),
        };
        let input = match Report::try_from(report) {
            Ok(report) => Input::Report { seat, report },
            Err(malformed) => break FleetError::from(malformed).to_string(),
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    };
    // The driver is gone only when this coordinator is about to end.
    let _ = inputs.send(Input::Closed { seat, how }).await;
}

#[tonic::async_trait]
impl Fleet for Service {
    type SessionStream = OrderStream;
    type WatchStream = Stream2<pb::Notice>;

    async fn session(&self, request: Request<Streaming<pb::Report>>) -> Reply<Self::SessionStream> {
        self.leads()?;
        let mut reports = request.into_inner();
        let first = tokio::time::timeout(JOIN_PATIENCE, reports.message()).await;
        let malformed = |problem: &str| FleetError::Malformed { field: "report".into(), problem: problem.into() };
        let first = first.map_err(|_| malformed("no join came within 10 seconds"))??;
        let first = first.ok_or_else(|| malformed("the session ended before its join"))?;
        let Report::Join(join) = Report::try_from(first).map_err(FleetError::from)? else {
            return Err(malformed("the first report of a session must be a join").into());
        };
        let (orders, to_worker) = mpsc::channel(ORDERS_QUEUED_MAX);
        let (seat, taken) = oneshot::channel();
        self.tell(Input::Join { join, orders, seat }).await?;
        let seat = taken.await.map_err(|_| self.gone())?;
        tokio::spawn(listen(reports, self.inputs.clone(), seat));
        Ok(Response::new(orders::stream(to_worker)))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Reply<pb::StatusReply> {
        self.leads()?;
        let (sender, reply) = oneshot::channel();
        self.tell(Input::Status(sender)).await?;
        Ok(Response::new(reply.await.map_err(|_| self.gone())?))
    }

    async fn watch(&self, _: Request<pb::WatchRequest>) -> Reply<Self::WatchStream> {
        self.may_lead()?;
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = notices.as_ref().ok_or_else(|| self.gone())?.subscribe();
        // A watcher that lags behind thousands of notices misses some and goes on with the newest.
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(notice) => return Some((Ok(notice), receiver)),
                    Err(broadcast::error::RecvError::Lagged(missed)) => tracing::warn!(missed, "a watcher lags behind"),
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn control(&self, request: Request<pb::ControlRequest>) -> Reply<pb::ControlReply> {
        use pb::control_request::Kind;
        self.may_lead()?;
        let kind = request.into_inner().kind;
        let missing = FleetError::Malformed { field: "control.kind".into(), problem: "is missing".into() };
        let input = match kind.ok_or(missing)? {
            Kind::Drain(pb::Drain {}) => Input::Event(RunEvent::Drain),
            Kind::MemberExit(e) => Input::Exited { host: e.host, pid: e.pid, how: e.how },
            Kind::Stop(stop) => Input::Event(RunEvent::Stop { message: stop.message }),
        };
        self.tell(input).await?;
        Ok(Response::new(pb::ControlReply {}))
    }
}
