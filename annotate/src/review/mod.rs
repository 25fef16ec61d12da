//! A look at what was annotated: some random regions on a page, accepted or rejected by a key each; the verdicts go back into
//! the rows.

mod apply;
mod page;

pub use apply::Applied;

use crate::error::AnnotateError;
use crate::views::{View, picture};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use pixfleet_shards::index;
use pixfleet_shards::{Columns, ImageRow, Location, RowGroupReader};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A region that is looked at.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Row group, counted over the files of the split.
    pub(crate) row_group: u32,
    /// The row's place in it.
    pub(crate) row: u32,
    /// The region's place in its row.
    pub(crate) region: usize,
    pub(crate) shown: Arc<ImageRow>,
}

/// Regions to look at and what was said of them.
#[derive(Debug)]
pub struct Review {
    location: Location,
    split: String,
    seen: Vec<Seen>,
    /// By the place in `seen`: whether it was accepted.
    verdicts: Mutex<BTreeMap<usize, bool>>,
}

impl Review {
    /// `count` regions of `split`, drawn at random by `seed`, one a row.
    ///
    /// # Errors
    /// Those of the store and of bad rows.
    pub async fn open(url: &str, split: &str, count: usize, seed: u64) -> Result<Self, AnnotateError> {
        let location = Location::parse(url)?;
        let index = index::open(&location).await?;
        let reader = RowGroupReader::new(location.clone(), &index, split, None)?;
        let shape = reader.split().shape().rows;
        let places = (0u32..).zip(shape).flat_map(|(group, rows)| (0..rows).map(move |row| (group, row)));
        let mut drawn: Vec<(u64, (u32, u32))> = places.map(|place| (draw(seed, place), place)).collect();
        drawn.sort_unstable();
        let mut seen = Vec::new();
        for (key, (row_group, row)) in drawn {
            if seen.len() == count {
                break;
            }
            let rows = reader.read(row_group, &[row], Columns::ROWS).await?;
            if let Some(shown) = rows.into_iter().next().filter(|row| !row.regions.is_empty()) {
                let region = key as usize % shown.regions.len();
                seen.push(Seen { row_group, row, region, shown: Arc::new(shown) });
            }
        }
        Ok(Self { location, split: split.into(), seen, verdicts: Mutex::default() })
    }

    /// How many there are to look at.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seen.len()
    }

    /// The page and what it needs.
    fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/", get(index_page))
            .route("/picture/{at}", get(region_picture))
            .route("/verdict/{at}/{word}", post(verdict))
            .with_state(Arc::clone(self))
    }

    fn verdicts(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, bool>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the page until `stop` is over.
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    review: &Arc<Review>,
    listener: tokio::net::TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, review.router()).with_graceful_shutdown(stop).await
}

/// A number that sorts places at random.
fn draw(seed: u64, (group, row): (u32, u32)) -> u64 {
    let place = [seed.to_le_bytes(), u64::from(group).to_le_bytes(), u64::from(row).to_le_bytes()].concat();
    let mut key = [0; 8];
    key.copy_from_slice(&blake3::hash(&place).as_bytes()[..8]);
    u64::from_le_bytes(key)
}

async fn index_page(State(review): State<Arc<Review>>) -> Html<String> {
    let verdicts = review.verdicts().clone();
    Html(page::page(review.location.url(), &review.seen, &verdicts))
}

async fn region_picture(State(review): State<Arc<Review>>, Path(at): Path<usize>) -> Response {
    let Some(seen) = review.seen.get(at) else { return StatusCode::NOT_FOUND.into_response() };
    let row = Arc::clone(&seen.shown);
    let region = seen.region;
    let shown = tokio::task::spawn_blocking(move || picture(&row, row.regions.get(region), View::Marked)).await;
    match shown {
        Ok(Ok(jpeg)) => ([(header::CONTENT_TYPE, "image/jpeg")], jpeg).into_response(),
        Ok(Err(problem)) => (StatusCode::UNPROCESSABLE_ENTITY, problem).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn verdict(State(review): State<Arc<Review>>, Path((at, word)): Path<(usize, String)>) -> StatusCode {
    let mut verdicts = review.verdicts();
    match word.as_str() {
        "accept" | "reject" if at < review.seen.len() => verdicts.insert(at, word == "accept"),
        "clear" => verdicts.remove(&at),
        _ => return StatusCode::NOT_FOUND,
    };
    StatusCode::NO_CONTENT
}
