//! Headers of the Hub's answers.

use reqwest::header::{CONTENT_RANGE, HeaderMap, LINK, RETRY_AFTER};
use std::ops::Range;
use std::time::Duration;

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What went wrong, as a word: `RepoNotFound`, `GatedRepo`, `RevisionNotFound`, `EntryNotFound`.
pub(crate) fn error_code(headers: &HeaderMap) -> &str {
    text(headers, "x-error-code").unwrap_or_default()
}

/// What went wrong, after a colon; empty if nothing is said.
pub(crate) fn error_message(headers: &HeaderMap) -> String {
    text(headers, "x-error-message").map_or_else(String::new, |said| format!(": {}", said.trim()))
}

/// How long to wait after 429: `Retry-After: 5`, or `RateLimit: "resolvers";r=0;t=55` (https://huggingface.co/docs/hub/rate-limits).
pub(crate) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let seconds = |text: &str| text.trim().parse().ok().map(Duration::from_secs);
    let after = text(headers, RETRY_AFTER.as_str()).and_then(seconds);
    let limited = || text(headers, "ratelimit")?.split(';').find_map(|part| seconds(part.trim().strip_prefix("t=")?));
    after.or_else(limited)
}

/// The address of the next page: `<https://...>; rel="next"`.
pub(crate) fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = text(headers, LINK.as_str())?;
    let link = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    Some(link.split_once('<')?.1.split_once('>')?.0.to_owned())
}

/// `bytes 0-99/1234` as the range and all bytes there are; `bytes */1234` has no range.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<(Option<Range<u64>>, u64)> {
    let (range, size) = text(headers, CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?.split_once('/')?;
    let size = size.parse().ok()?;
    if range == "*" {
        return Some((None, size));
    }
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < size).then(|| (Some(first..last + 1), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderName;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let one = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().expect("a header's value"))
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn waits_ranges_and_pages_are_read() {
        assert_eq!(wait(&headers(&[("retry-after", "7")])), Some(Duration::from_secs(7)));
        assert_eq!(wait(&headers(&[("ratelimit", "\"resolvers\";r=0;t=55")])), Some(Duration::from_secs(55)));
        assert_eq!(wait(&headers(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")])), None);
        let range = |text: &str| content_range(&headers(&[("content-range", text)]));
        assert_eq!(range("bytes 10-19/100"), Some((Some(10..20), 100)));
        assert_eq!(range("bytes */0"), Some((None, 0)));
        for bad in ["bytes 10-100/100", "bytes 9-3/100", "items 1-2/3", "bytes 1-2/*"] {
            assert_eq!(range(bad), None, "{bad}");
        }
        let link = "<https://hub/a>; rel=\"prev\", <https://hub/b?cursor=x%3D>; rel=\"next\"";
        assert_eq!(next_page(&headers(&[("link", link)])).as_deref(), Some("https://hub/b?cursor=x%3D"));
        assert_eq!(next_page(&headers(&[("link", "<https://hub/a>; rel=\"prev\"")])), None);
    }
}
