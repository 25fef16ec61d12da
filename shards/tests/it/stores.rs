//! URLs and what stores say: no permission, no bucket, nobody there.

use object_store::RetryConfig;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use pixfleet_cluster::Class;
use pixfleet_shards::{Location, ShardError, index};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A store that answers every request with `status` and `body`; its location `s3://photos/grit`.
async fn answering(status: &'static str, body: &'static str) -> Location {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                let n = stream.read(&mut chunk).await.unwrap_or(0);
                if n == 0 {
                    break;
                }
                request.extend_from_slice(&chunk[..n]);
            }
            let head = request.starts_with(b"HEAD");
            let reply = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
                body.len(),
                if head { "" } else { body }
            );
            stream.write_all(reply.as_bytes()).await.expect("the caller listens");
        }
    });
    s3(&format!("http://{address}"))
}

fn s3(endpoint: &str) -> Location {
    let store = AmazonS3Builder::new()
        .with_bucket_name("photos")
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_access_key_id("key")
        .with_secret_access_key("secret")
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .build()
        .expect("a store");
    Location::with_store("s3://photos/grit", Arc::new(store), Path::from("grit"))
}

const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
const NO_BUCKET: &str =
    "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>";

#[tokio::test]
async fn a_store_without_permission() {
    let location = answering("403 Forbidden", DENIED).await;
    let advice = "check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or the store's own) and the rights of their owner";
    let error = index::open(&location).await.expect_err("denied");
    assert_eq!(error.to_string(), format!("s3://photos/grit/index/latest.json: no permission to read; {advice}"));
    assert_eq!(error.class(), Class::Fatal);
    let error = index::build(&location, &mut |_, _| {}).await.expect_err("denied");
    assert_eq!(error.to_string(), format!("s3://photos/grit: no permission to list; {advice}"));
    let error = location.put("train/x", b"x".as_slice()).await.expect_err("denied");
    assert_eq!(error.to_string(), format!("s3://photos/grit/train/x: no permission to write; {advice}"));
}

#[tokio::test]
async fn an_unknown_bucket() {
    let location = answering("404 Not Found", NO_BUCKET).await;
    let error = index::open(&location).await.expect_err("no bucket");
    assert_eq!(
        error.to_string(),
        "s3://photos/grit/index/latest.json: no such bucket; create it, or check the name and AWS_ENDPOINT"
    );
    let error = location.put("train/x", b"x".as_slice()).await.expect_err("no bucket");
    assert_eq!(
        error.to_string(),
        "s3://photos/grit/train/x: no such bucket; create it, or check the name and AWS_ENDPOINT"
    );
}

#[tokio::test]
async fn a_store_in_trouble_may_be_asked_again() {
    let location = answering("503 Slow Down", "<Error><Code>SlowDown</Code></Error>").await;
    let error = index::open(&location).await.expect_err("busy");
    assert_eq!(error.class(), Class::Retry, "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let error = index::open(&s3(&format!("http://{address}"))).await.expect_err("nobody there");
    assert_eq!(error.class(), Class::Retry, "{error}");
}

#[test]
fn urls() {
    let error = |url: &str| Location::parse(url).expect_err("a bad URL").to_string();
    let last = if cfg!(feature = "hub") { "gs://, az:// or hf://" } else { "gs:// or az://" };
    let expected = format!("expected file:///folder, s3://bucket/folder, {last}");
    assert_eq!(error("ftp://host/x"), format!("`ftp://host/x`: unknown scheme `ftp`; {expected}"));
    assert_eq!(error("s3://[bad"), format!("`s3://[bad` is not a URL: invalid IPv6 address; {expected}"));
    let location = Location::parse("file:///tmp/a%20b/").expect("a URL");
    assert_eq!(location.url(), "file:///tmp/a%20b");
    assert_eq!(location.path("train/x.parquet").as_ref(), "tmp/a b/train/x.parquet");
    assert_eq!(location.relative(&location.path("train/x.parquet")).as_deref(), Some("train/x.parquet"));
    let plain = Location::parse("some/folder").expect("a path");
    assert!(plain.url().starts_with("file:///") && plain.url().ends_with("/some/folder"), "{}", plain.url());
    assert!(matches!(Location::parse("s3://photos/grit"), Ok(l) if l.path("a").as_ref() == "grit/a"));
}

#[tokio::test]
async fn an_object_is_created_once() {
    for place in crate::support::scratches() {
        assert!(place.location.create("runs/1", b"a".as_slice()).await.expect("a store"));
        assert!(!place.location.create("runs/1", b"b".as_slice()).await.expect("a store"));
        assert_eq!(place.location.get("runs/1").await.expect("there"), "a");
        let error = place.location.get("runs/2").await.expect_err("nothing there");
        assert!(matches!(error, ShardError::NotFound { .. }), "{error}");
        assert_eq!(error.to_string(), format!("{}/runs/2: no such file", place.location.url()));
    }
}
