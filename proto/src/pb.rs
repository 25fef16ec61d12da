//! The generated messages, client and server.
#![allow(clippy::all, clippy::unwrap_used, unreachable_pub, missing_docs, reason = "generated code")]

tonic::include_proto!("pixfleet.v1");
