//! Against a scripted coordinator on loopback.

use super::*;
use pixfleet_cluster::MemberId;
use pixfleet_cluster::run::{Join, Welcome};
use pixfleet_collective::{Backend, Group, GroupConfig, HashStore, RendezvousStore};
use pixfleet_proto::{Patience, connect, pb, server};
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

type Orders = mpsc::Receiver<Result<pb::Order, Status>>;

/// Hands every report on, and sends the orders that the test queued.
struct Scripted {
    reports: mpsc::Sender<Report>,
    orders: tokio::sync::Mutex<Option<Orders>>,
}

fn unasked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this script"))
}

#[tonic::async_trait]
impl pb::fleet_server::Fleet for Scripted {
    type SessionStream = ReceiverStream<Result<pb::Order, Status>>;
    type WatchStream = ReceiverStream<Result<pb::Notice, Status>>;

    async fn session(&self, request: Request<Streaming<pb::Report>>) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let reports = self.reports.clone();
        tokio::spawn(async move {
            while let Ok(Some(report)) = incoming.message().await {
                let report = Report::try_from(report).expect("well-formed");
                if reports.send(report).await.is_err() {
                    return;
                }
            }
        });
        let orders = self.orders.lock().await.take().expect("one session");
        Ok(Response::new(ReceiverStream::new(orders)))
    }

    async fn rendezvous(&self, _: Request<pb::StoreRequest>) -> Result<Response<pb::StoreReply>, Status> {
        unasked()
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusReply>, Status> {
        unasked()
    }

    async fn watch(&self, _: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        unasked()
    }

    async fn control(&self, _: Request<pb::ControlRequest>) -> Result<Response<pb::ControlReply>, Status> {
        unasked()
    }
}

/// A session with a scripted coordinator: (session, orders to send, reports that came).
async fn scripted() -> (Session, mpsc::Sender<Result<pb::Order, Status>>, mpsc::Receiver<Report>) {
    let (orders, queued) = mpsc::channel(16);
    let (reports, came) = mpsc::channel(16);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    let fleet = Scripted { reports, orders: tokio::sync::Mutex::new(Some(queued)) };
    let serve = tonic::transport::Server::builder().add_service(server(fleet));
    tokio::spawn(serve.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut client = connect(&address, Patience::default()).await.expect("it listens");
    let join = Join { name: "w0".into(), ..Join::default() };
    let session = Session::open(&mut client, join).await.expect("it joins");
    (session, orders, came)
}

async fn give(orders: &mpsc::Sender<Result<pb::Order, Status>>, order: Order) {
    orders.send(Ok(order.into())).await.expect("the session is open");
}

const BEAT: Duration = Duration::from_millis(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trainer_that_computes_delays_neither_heartbeat_nor_drain_nor_stop() {
    let (mut session, orders, mut came) = scripted().await;
    let switches = Arc::new(Switches::new());
    switches.set_held(Some(Step(7)));
    // A trainer that never looks at its queue.
    let (trainer, _busy) = mpsc::channel(4);
    let served = tokio::spawn({
        let switches = Arc::clone(&switches);
        async move { run(&mut session, BEAT, switches, trainer).await }
    });
    assert!(matches!(came.recv().await, Some(Report::Join(_))));
    for _ in 0..3 {
        assert_eq!(came.recv().await, Some(Report::Heartbeat { next_step: Some(Step(7)) }));
    }
    give(&orders, Order::Drain).await;
    give(&orders, Order::Stop { outcome: Outcome::Drained, message: String::new() }).await;
    let stopped = served.await.expect("no panic").expect("stopped in order");
    assert_eq!(stopped.outcome, Outcome::Drained);
    assert!(switches.wants_drain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_ends_the_group_of_its_generation_and_no_later_one() {
    let (mut session, orders, _came) = scripted().await;
    let switches = Arc::new(Switches::new());
    let (trainer, mut commands) = mpsc::channel(4);
    let serving = tokio::spawn({
        let switches = Arc::clone(&switches);
        async move { run(&mut session, BEAT, switches, trainer).await }
    });
    give(&orders, Order::Abort { generation: Generation(3), cause: "lost w1".into() }).await;
    assert!(matches!(commands.recv().await, Some(Command::Abort(Generation(3)))));
    for (generation, works) in [(3, false), (4, true)] {
        let store: Arc<dyn RendezvousStore> = Arc::new(HashStore::new());
        let meet = |rank: u32, switches: Option<Arc<Switches>>| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let config = GroupConfig::loopback(rank, 2, generation);
                let group = Group::new(Backend::Gloo, store, config).expect("a group of two");
                if let Some(switches) = switches {
                    // That of 3 is armed after its abort has come: a group that formed too late.
                    switches.arm(Generation(generation), group.abort_handle());
                }
                group.barrier().is_ok()
            })
        };
        let ranks = [meet(0, Some(Arc::clone(&switches))), meet(1, None)];
        assert_eq!(ranks.map(|r| r.join().expect("no panic")), [works; 2], "generation {generation}");
        assert_eq!(switches.is_over(Generation(generation)), !works);
        switches.disarm();
    }
    drop(orders);
    let broken = serving.await.expect("no panic").expect_err("the coordinator closed");
    assert_eq!(broken, FleetError::Disconnected { cause: "the coordinator closed the session".into() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_welcome_is_refused() {
    let (mut session, orders, _came) = scripted().await;
    let (trainer, _commands) = mpsc::channel(4);
    let welcome = Welcome {
        member: MemberId(1),
        run: "r".into(),
        spec_toml: String::new(),
        spec_digest: String::new(),
        dataset_digest: String::new(),
        heartbeat_ms: 100,
    };
    give(&orders, Order::Welcome(welcome)).await;
    let broken = run(&mut session, BEAT, Arc::new(Switches::new()), trainer).await.expect_err("refused");
    assert!(broken.to_string().contains("a second welcome"), "{broken}");
}
