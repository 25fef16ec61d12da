//! The wire to the coordinator that leads the run: found again, wherever it is, when it breaks.

use anyhow::Result;
use pixfleet_checkpoint::{Folder, leaders};
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::run::Outcome;
use pixfleet_proto::pb::fleet_client::FleetClient;
use pixfleet_proto::{FleetError, Patience, connect, pb};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// How long one attempt to find it again may take.
const ATTEMPT: Patience = Patience(Duration::from_millis(500));

/// See the module.
pub(crate) struct LeaderClient {
    pub(crate) address: String,
    client: FleetClient<Channel>,
    notices: Streaming<pb::Notice>,
}

impl LeaderClient {
    /// Watches the coordinator at `address`.
    pub(crate) async fn open(address: &str, patience: Patience) -> Result<Self, FleetError> {
        let mut client = connect(address, patience).await?;
        let notices = client.watch(pb::WatchRequest {}).await?.into_inner();
        Ok(Self { address: address.into(), client, notices })
    }

    /// The next notice; `None` when the coordinator hung up. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<pb::Notice>, Status> {
        self.notices.message().await
    }

    /// Passes something on; a coordinator that is gone shows in the notices.
    pub(crate) async fn control(&mut self, kind: pb::control_request::Kind) {
        if let Err(status) = self.client.control(pb::ControlRequest { kind: Some(kind) }).await {
            tracing::debug!(error = status.message(), "the coordinator does not listen");
        }
    }

    /// Members of the run, those of other machines included; `None` if the coordinator does not say.
    pub(crate) async fn members(&mut self) -> Option<usize> {
        let status = self.client.status(pb::StatusRequest {}).await.ok()?;
        Some(status.into_inner().members.len())
    }
}

/// What a look for the leader found.
pub(crate) enum Sighting {
    /// A leader that answers.
    Leader(Box<LeaderClient>),
    /// The run is over.
    Closed(Outcome),
    /// Nobody who answers.
    Nobody(String),
}

/// Looks once: at the address where the leader was, and at the one that the run's store names.
pub(crate) async fn find(spec: &RunSpec, last: &str) -> Sighting {
    let newest = match Folder::parse(&spec.run.store) {
        Ok(store) => leaders::newest(&store.join(&spec.run.name)).await,
        Err(error) => Err(error),
    };
    let address = match newest {
        Ok(Some(leader)) => match leader.closed {
            Some(outcome) => return Sighting::Closed(outcome),
            None => leader.address,
        },
        Ok(None) => last.to_string(),
        Err(error) => return Sighting::Nobody(error.to_string()),
    };
    match LeaderClient::open(&address, ATTEMPT).await {
        Ok(client) => Sighting::Leader(Box::new(client)),
        Err(error) => Sighting::Nobody(error.to_string()),
    }
}

/// Looks once at `address`.
pub(crate) async fn look(address: &str) -> Sighting {
    match LeaderClient::open(address, ATTEMPT).await {
        Ok(client) => Sighting::Leader(Box::new(client)),
        Err(error) => Sighting::Nobody(error.to_string()),
    }
}
