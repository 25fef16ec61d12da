//! The way of a rank to the point where its generation meets.

use crate::client::{Keepalive, endpoint};
use crate::error::{FleetError, Malformed};
use crate::limits::meeting_client;
use crate::pb;
use pb::meeting_client::MeetingClient;
use pb::store_request::Op;
use pixfleet_cluster::Generation;
use pixfleet_cluster::run::MeetingPoint;
use std::time::Duration;
use tonic::transport::Channel;

/// One generation's store of keys: what c10d's store asks, answered at its meeting point.
#[derive(Debug, Clone)]
pub struct StoreClient {
    client: MeetingClient<Channel>,
    secret: String,
    generation: Generation,
}

impl StoreClient {
    /// The store of `generation` at `meets_at`, which is called on with the first question.
    ///
    /// # Errors
    /// [`FleetError::Malformed`] if that is no address.
    pub fn new(meets_at: &MeetingPoint, generation: Generation) -> Result<Self, FleetError> {
        let no_address = |_| Malformed { field: "form.meets_at", problem: "is no address" };
        let channel = endpoint(&meets_at.address, Keepalive::default()).map_err(no_address)?.connect_lazy();
        Ok(Self { client: meeting_client(channel), secret: meets_at.secret.clone(), generation })
    }

    async fn ask(&self, op: Op) -> Result<pb::StoreReply, FleetError> {
        let request = pb::StoreRequest { generation: self.generation.0, secret: self.secret.clone(), op: Some(op) };
        Ok(self.client.clone().keys(request).await?.into_inner())
    }

    /// Sets `key`.
    ///
    /// # Errors
    /// [`FleetError::StaleGeneration`], [`FleetError::TooLarge`], [`FleetError::Disconnected`].
    pub async fn set(&self, key: &str, value: &[u8]) -> Result<(), FleetError> {
        self.ask(Op::Set(pb::KeyValue { key: key.into(), value: value.into() })).await.map(drop)
    }

    /// The value of `key`, waiting for it.
    ///
    /// # Errors
    /// [`FleetError::KeyTimeout`] after `timeout`; else as [`StoreClient::set`].
    pub async fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, FleetError> {
        let op = Op::Get(pb::KeyWait { key: key.into(), timeout_ms: millis(timeout) });
        self.ask(op).await.map(|r| r.value)
    }

    /// Adds to the decimal number in `key` (0 if absent) and returns the sum.
    ///
    /// # Errors
    /// As [`StoreClient::set`]; [`FleetError::Malformed`] if the value is no number.
    pub async fn add(&self, key: &str, amount: i64) -> Result<i64, FleetError> {
        self.ask(Op::Add(pb::KeyAdd { key: key.into(), amount })).await.map(|r| r.number)
    }

    /// Whether all keys are there.
    ///
    /// # Errors
    /// As [`StoreClient::set`].
    pub async fn check(&self, keys: &[String]) -> Result<bool, FleetError> {
        self.ask(Op::Check(pb::Keys { keys: keys.to_vec() })).await.map(|r| r.flag)
    }

    /// Waits for all keys.
    ///
    /// # Errors
    /// As [`StoreClient::get`].
    pub async fn wait(&self, keys: &[String], timeout: Duration) -> Result<(), FleetError> {
        let op = Op::Wait(pb::KeysWait { keys: keys.to_vec(), timeout_ms: millis(timeout) });
        self.ask(op).await.map(drop)
    }

    /// Sets `key` to `desired` if its value is `expected` (or if it is absent and `expected` is empty); returns the
    /// value afterwards, or `expected` if the key is absent still. This is c10d's contract.
    ///
    /// # Errors
    /// As [`StoreClient::set`].
    pub async fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, FleetError> {
        let op = Op::CompareSet(pb::CompareSet { key: key.into(), expected: expected.into(), desired: desired.into() });
        self.ask(op).await.map(|r| r.value)
    }

    /// Deletes `key`; whether it was there.
    ///
    /// # Errors
    /// As [`StoreClient::set`].
    pub async fn delete(&self, key: &str) -> Result<bool, FleetError> {
        self.ask(Op::Delete(key.into())).await.map(|r| r.flag)
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
