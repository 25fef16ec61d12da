use super::*;
use axum::Router;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;

/// When each path was asked for, and with which `User-Agent`.
type Seen = Arc<Mutex<Vec<(String, Instant, String)>>>;

/// A server with pictures, a forbidden folder, and one that is busy for the first two requests.
async fn server() -> (String, Seen) {
    let seen = Seen::default();
    let note = {
        let seen = Arc::clone(&seen);
        move |path: &str, headers: &HeaderMap| {
            let agent = headers.get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
            let mut seen = seen.lock().expect("one server");
            seen.push((path.to_owned(), Instant::now(), agent));
            seen.iter().filter(|(asked, ..)| asked == path).count()
        }
    };
    let busy = {
        let note = note.clone();
        move |headers: HeaderMap| async move {
            match note("/busy.jpg", &headers) {
                1 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "later").into_response(),
                2 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                _ => "at last".into_response(),
            }
        }
    };
    let plain = move |path: &'static str, body: Vec<u8>| {
        let note = note.clone();
        get(move |headers: HeaderMap| async move {
            note(path, &headers);
            body
        })
    };
    let app = Router::new()
        .route("/robots.txt", plain("/robots.txt", b"User-agent: *\nDisallow: /private\n".to_vec()))
        .route("/a.jpg", plain("/a.jpg", b"picture".to_vec()))
        .route("/private/a.jpg", plain("/private/a.jpg", b"secret".to_vec()))
        .route("/large.jpg", plain("/large.jpg", vec![0; PICTURE_MAX as usize + 1]))
        .route("/moved.jpg", get(|| async { Redirect::permanent("/a.jpg") }))
        .route("/led.jpg", get(|| async { Redirect::permanent("/private/a.jpg") }))
        .route("/round.jpg", get(|| async { Redirect::permanent("/round.jpg") }))
        .route("/busy.jpg", get(busy));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, seen)
}

fn quick() -> Politeness {
    let (timeout, backoff) = (Duration::from_secs(5), Duration::from_millis(10));
    Politeness { per_second: 20.0, contact: Some("https://example.org/us".into()), timeout, backoff }
}

#[tokio::test]
async fn pictures_come_as_robots_and_rate_allow() {
    let (url, seen) = server().await;
    let fetcher = Fetcher::new(&quick()).expect("a client");
    let of = |path: &str| format!("{url}{path}");
    let many = futures::future::join_all((0..6).map(|_| async { fetcher.get(&of("/a.jpg")).await })).await;
    assert!(many.iter().all(|found| found.as_deref() == Ok(&b"picture"[..])), "{many:?}");
    assert_eq!(fetcher.get(&of("/moved.jpg")).await.as_deref(), Ok(&b"picture"[..]));
    for path in ["/private/a.jpg", "/led.jpg"] {
        assert_eq!(fetcher.get(&of(path)).await.expect_err("forbidden").kind, RejectKind::Robots, "{path}");
    }
    let seen = seen.lock().expect("one server");
    assert_eq!(seen.iter().filter(|(path, ..)| path == "/robots.txt").count(), 1, "asked for once");
    assert!(!seen.iter().any(|(path, ..)| path.starts_with("/private")));
    assert!(
        seen.iter().all(|(.., agent)| agent.starts_with("pixfleet/") && agent.ends_with("(+https://example.org/us)"))
    );
    let times: Vec<Instant> = seen.iter().map(|(_, at, _)| *at).collect();
    let took = *times.iter().max().expect("asked") - *times.iter().min().expect("asked");
    // Eight that are noted and a redirect between them are eight intervals at 20 a second; one less for timers.
    assert!(took >= Duration::from_millis(50 * 7), "{} requests within {took:?}", times.len());
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_later() {
    let (url, seen) = server().await;
    let fetcher = Fetcher::new(&quick()).expect("a client");
    assert_eq!(fetcher.get(&format!("{url}/busy.jpg")).await.as_deref(), Ok(&b"at last"[..]));
    let seen = seen.lock().expect("one server");
    let times: Vec<Instant> = seen.iter().filter(|(path, ..)| path == "/busy.jpg").map(|(_, at, _)| *at).collect();
    assert_eq!(times.len(), 3);
    assert!(times[1] - times[0] >= Duration::from_millis(990), "Retry-After was a second: {:?}", times[1] - times[0]);
}

#[tokio::test]
async fn what_is_no_picture_is_refused_by_kind() {
    let (url, _seen) = server().await;
    let fetcher = Fetcher::new(&quick()).expect("a client");
    let kinds = [
        (format!("{url}/gone.jpg"), RejectKind::Status),
        (format!("{url}/large.jpg"), RejectKind::PictureLarge),
        (format!("{url}/round.jpg"), RejectKind::Status),
        ("ftp://example.org/a.jpg".into(), RejectKind::Field),
        ("no address".into(), RejectKind::Field),
        // Nobody listens there, so nobody's robots.txt says that we may ask.
        ("http://127.0.0.1:1/a.jpg".into(), RejectKind::Network),
    ];
    for (address, kind) in kinds {
        assert_eq!(fetcher.get(&address).await.expect_err("no picture").kind, kind, "{address}");
    }
    assert!(Fetcher::new(&Politeness { per_second: 0.0, ..quick() }).is_err());
}

#[test]
fn waits_are_seconds_or_dates() {
    assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
    let later = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(60));
    assert!(retry_after(&later).is_some_and(|wait| wait > Duration::from_secs(50) && wait <= Duration::from_secs(60)));
    assert_eq!(retry_after("soon"), None);
}
