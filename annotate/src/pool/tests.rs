//! Pools against small real servers.

use super::*;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A server that answers its n-th request by `answer(n)`; its URL.
async fn server<F>(answer: F) -> String
where
    F: Fn(u32) -> (StatusCode, HeaderMap, String) + Clone + Send + Sync + 'static,
{
    let count = Arc::new(AtomicU32::new(0));
    let serve = move || {
        let answer = answer(count.fetch_add(1, Ordering::Relaxed));
        async move { answer }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/ask", post(serve))).await });
    url
}

fn pool(urls: &[&str], patience_s: u64) -> Pool {
    let server = Server {
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        model: "m".into(),
        key_env: None,
        most_in_flight: 8,
        timeout_s: 2,
        patience_s,
        price_in: 2.0,
        price_out: 10.0,
    };
    Pool::new("llm", &server).expect("a client")
}

fn good() -> (StatusCode, HeaderMap, String) {
    (StatusCode::OK, HeaderMap::new(), json!({"said": "yes"}).to_string())
}

async fn ask(pool: &Pool) -> Result<Asked, AnnotateError> {
    pool.ask("ask", &json!({}), |_| Ok(())).await
}

#[tokio::test]
async fn a_server_that_is_gone_costs_no_question() {
    let alive = server(|_| good()).await;
    // Nobody listens on port 9.
    let pool = pool(&["http://127.0.0.1:9", &alive], 30);
    for _ in 0..20 {
        assert!(matches!(ask(&pool).await, Ok(Asked::Answered(_))));
    }
}

#[tokio::test]
async fn whoever_asks_for_time_gets_it() {
    let busy = server(|n| match n {
        0 => {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", "0.4".parse().expect("a value"));
            (StatusCode::TOO_MANY_REQUESTS, headers, String::new())
        }
        _ => good(),
    })
    .await;
    let began = Instant::now();
    assert!(matches!(ask(&pool(&[&busy], 30)).await, Ok(Asked::Answered(_))));
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_question_that_is_refused_for_itself_ends_alone() {
    let strict = server(|n| match n {
        1 => (StatusCode::BAD_REQUEST, HeaderMap::new(), "the context is too long".into()),
        _ => good(),
    })
    .await;
    let pool = pool(&[&strict], 30);
    assert!(matches!(ask(&pool).await, Ok(Asked::Answered(_))));
    assert!(matches!(ask(&pool).await, Ok(Asked::Rejected(said)) if said.contains("context is too long")));
    assert!(matches!(ask(&pool).await, Ok(Asked::Answered(_))));
}

#[tokio::test]
async fn without_a_server_the_job_stops_and_says_why() {
    let error = ask(&pool(&["http://127.0.0.1:9"], 1)).await.expect_err("nobody is there");
    let said = error.to_string();
    assert!(said.contains("no server of `llm`") && said.contains("refused") && said.contains(":9"), "{said}");
    let locked = server(|_| (StatusCode::UNAUTHORIZED, HeaderMap::new(), "no key".into())).await;
    let began = Instant::now();
    let error = ask(&pool(&[&locked], 600)).await.expect_err("no key");
    assert!(matches!(&error, AnnotateError::Refused { said, .. } if said.contains("no key")), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "it does not wait for a key to appear");
}

#[test]
fn tokens_cost_what_the_recipe_says() {
    let pool = pool(&["http://127.0.0.1:9"], 1);
    assert!((pool.cost(500_000, 100_000) - 2.0).abs() < 1e-9);
}
