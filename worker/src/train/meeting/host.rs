//! A worker's own port: where the generations meet whose rank 0 it is. Whoever comes shows the secret that came with the order.

use super::keys::KeyStore;
use pixfleet_cluster::run::MeetingPoint;
use pixfleet_proto::{meeting_server, pb};
use std::io::Read;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// Bytes of a secret.
const SECRET_BYTES: usize = 16;

struct Host {
    keys: Arc<KeyStore>,
    secret: blake3::Hash,
}

#[tonic::async_trait]
impl pb::meeting_server::Meeting for Host {
    async fn keys(&self, request: Request<pb::StoreRequest>) -> Result<Response<pb::StoreReply>, Status> {
        let request = request.into_inner();
        // Digests are compared in constant time.
        if blake3::hash(request.secret.as_bytes()) != self.secret {
            tracing::warn!(
                generation = request.generation,
                "somebody without the secret of this meeting point was refused"
            );
            return Err(Status::unauthenticated("no order of this generation says so"));
        }
        Ok(Response::new(self.keys.answer(request).await?))
    }
}

/// Serves `keys` on a free port of `host` for as long as this process lives.
///
/// # Errors
/// If there is no such address here, or no port is free.
pub(crate) async fn serve(host: &str, keys: Arc<KeyStore>) -> std::io::Result<MeetingPoint> {
    let listener = TcpListener::bind((host, 0)).await?;
    let mut bytes = [0; SECRET_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let point = MeetingPoint { address: listener.local_addr()?.to_string(), secret };
    let service = meeting_server(Host { keys, secret: blake3::hash(point.secret.as_bytes()) });
    let serving = Server::builder().tcp_nodelay(true).add_service(service);
    tokio::spawn(async move {
        if let Err(error) = serving.serve_with_incoming(TcpListenerStream::new(listener)).await {
            tracing::error!(%error, "nobody can meet here any more");
        }
    });
    Ok(point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixfleet_cluster::Generation;
    use pixfleet_proto::StoreClient;

    #[tokio::test]
    async fn a_stranger_gets_in_with_no_secret_but_the_right_one() {
        let keys = Arc::new(KeyStore::default());
        keys.open(Generation(3));
        let point = serve("127.0.0.1", Arc::clone(&keys)).await.expect("loopback");
        let with = |secret: &str| {
            let point = MeetingPoint { secret: secret.into(), ..point.clone() };
            StoreClient::new(&point, Generation(3)).expect("an address")
        };
        for wrong in ["", "guessed", &point.secret[1..]] {
            let error = with(wrong).set("k", b"v").await.expect_err("refused");
            assert!(error.to_string().contains("no order"), "{error}");
        }
        let member = with(&point.secret);
        assert!(!member.check(&["k".into()]).await.expect("let in"), "nothing was set");
        member.set("k", b"v").await.expect("let in");
        assert!(!format!("{point:?}").contains(&point.secret), "logs do not tell it");
    }
}
