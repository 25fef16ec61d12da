//! Bounds of what one message may hold; the worst case of memory per session is one message each way.

use crate::pb;
use pb::fleet_client::FleetClient;
use pb::fleet_server::{Fleet, FleetServer};
use pb::meeting_client::MeetingClient;
use pb::meeting_server::{Meeting, MeetingServer};
use std::time::Duration;
use tonic::transport::Channel;

/// A client asks the coordinator for a sign of life this often,
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// and takes the connection for broken without an answer in this time: a coordinator that went without a word is noticed.
/// It does not know the run file yet; a session that it opens anew in vain costs nobody anything. When members are
/// missed is the coordinator's question, whose times follow from the run file.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest message in either direction: a spec, a part's list of tensors or one rendezvous value.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Largest key of the rendezvous store.
pub const STORE_KEY_BYTES_MAX: usize = 1 << 10;
/// Largest value of the rendezvous store (c10d exchanges addresses and ids of a few hundred bytes).
pub const STORE_VALUE_BYTES_MAX: usize = 1 << 20;

/// The service with its message bounds.
pub fn server<F: Fleet>(fleet: F) -> FleetServer<F> {
    FleetServer::new(fleet).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// The service of a meeting point with its message bounds.
pub fn meeting_server<M: Meeting>(meeting: M) -> MeetingServer<M> {
    MeetingServer::new(meeting)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A client of it with its message bounds.
pub(crate) fn meeting_client(channel: Channel) -> MeetingClient<Channel> {
    MeetingClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A client with its message bounds.
#[must_use]
pub fn client(channel: Channel) -> FleetClient<Channel> {
    FleetClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}
