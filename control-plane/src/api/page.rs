//! The console page: built by npm, embedded in the binary.
//!
//! Vite names assets after their content, so they never change under a name; the page itself is asked for each time
//! and answered 304 while it is the same. The policy of the page allows this origin, the edge and the bucket, nothing
//! else. `frame-ancestors` keeps it out of other pages.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use rust_embed::{EmbeddedFile, RustEmbed};
use url::Url;

use crate::error::ApiError;
use crate::state::Shared;

#[derive(RustEmbed)]
#[folder = "console/dist"]
struct Console;

/// One year, the longest that caches are asked for (RFC 9111 leaves it open).
const FOR_EVER: &str = "public, max-age=31536000, immutable";

const ASK_AGAIN: &str = "no-cache";

pub(crate) async fn index(State(parts): State<Shared>, headers: HeaderMap) -> Response {
    serve("index.html", &parts.page_policy, &headers)
}

/// Everything that no route knows: an asset, or nothing.
pub(crate) async fn asset(State(parts): State<Shared>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let reads = matches!(method, Method::GET | Method::HEAD);
    match uri.path().strip_prefix('/') {
        Some(path) if reads && !path.starts_with("v1/") => serve(path, &parts.page_policy, &headers),
        _ => ApiError::NotFound("route").into_response(),
    }
}

fn serve(path: &str, policy: &str, asked: &HeaderMap) -> Response {
    let Some(file) = Console::get(path) else { return ApiError::NotFound("page").into_response() };
    let etag = etag(&file);
    let held = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or("");
    let same = held.split(',').any(|one| one.trim().trim_start_matches("W/") == etag);
    let cache = if path.starts_with("assets/") { FOR_EVER } else { ASK_AGAIN };
    let mut response =
        if same { StatusCode::NOT_MODIFIED.into_response() } else { file.data.into_owned().into_response() };
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::ETAG, &etag);
    set(header::CACHE_CONTROL, cache);
    set(header::CONTENT_TYPE, &content_type(path));
    set(header::CONTENT_SECURITY_POLICY, policy);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // The page's token is in its fragment, which is never sent; nothing else of its address need leave either.
    set(header::REFERRER_POLICY, "no-referrer");
    response
}

fn etag(file: &EmbeddedFile) -> String {
    let hash: String = file.metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hash}\"")
}

fn content_type(path: &str) -> String {
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    let text = kind.type_() == "text" || matches!(kind.essence_str(), "application/javascript" | "application/json");
    if text { format!("{kind}; charset=utf-8") } else { kind.to_string() }
}

/// The page's `Content-Security-Policy` for an edge and a bucket.
pub(crate) fn policy(edge_base: &str, bucket_endpoint: &str) -> String {
    let origin = |text: &str| Url::parse(text).ok().map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    let (edge, bucket) = (origin(edge_base), origin(bucket_endpoint));
    // Players hand media to the browser and run their worker through blob: URLs; charts and waveforms style themselves inline.
    format!(
        "default-src 'none'; script-src 'self'; worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; \
         font-src 'self' data:; img-src 'self' data: blob: {edge}; media-src 'self' blob: {edge}; \
         connect-src 'self' {edge} {bucket}; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_policy_names_origins_and_no_paths() {
        let policy = policy("http://127.0.0.1:8080/edge", "http://127.0.0.1:9000");
        assert!(policy.contains("connect-src 'self' http://127.0.0.1:8080 http://127.0.0.1:9000;"), "{policy}");
        assert!(!policy.contains("/edge"), "{policy}");
    }

    #[test]
    fn the_page_has_a_type_a_tag_and_is_not_sent_twice() {
        let first = serve("index.html", "default-src 'none'", &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let tag = first.headers()[header::ETAG].clone();
        let again = serve("index.html", "default-src 'none'", &HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn nothing_outside_of_the_page_is_served() {
        for path in ["../Cargo.toml", "nothing.js", "", "/etc/passwd"] {
            assert_eq!(serve(path, "", &HeaderMap::new()).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
