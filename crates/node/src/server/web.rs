//! The web page and the API on 127.0.0.1, for whoever has the token.
//!
//! Every user of the computer can reach 127.0.0.1, and so can every page in a browser; the token keeps both out.
//! It is never a cookie, so no other page can make the browser send it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use super::{App, routes};
use crate::create::fill_random;
use crate::{Error, Result};

const PAGE: &str = include_str!("page.html");

pub(super) fn router(app: Arc<App>) -> Router {
    routes::router(app.clone()).route("/", get(page)).layer(from_fn_with_state(app, guard))
}

async fn page() -> impl IntoResponse {
    let headers = [
        // The address holds the token.
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    (headers, Html(PAGE))
}

async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = bearer
        .and_then(|value| value.strip_prefix("Bearer "))
        .or_else(|| request.uri().query()?.split('&').find_map(|part| part.strip_prefix("token=")));
    if given.is_some_and(|given| is_same(given, &app.token)) {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, "`watari node --json` or `watari up` tells the address with its token\n")
            .into_response()
    }
}

/// Compares in a time that does not depend on where the texts differ: so does the comparison of hashes.
fn is_same(a: &str, b: &str) -> bool {
    blake3::hash(a.as_bytes()) == blake3::hash(b.as_bytes())
}

/// The token, made when there is none yet and kept, so that a bookmark stays good.
pub(super) fn token(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(token) if token.len() == 64 && token.bytes().all(|b| b.is_ascii_hexdigit()) => return Ok(token),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("read", path)(e)),
    }
    let mut bytes = [0; 32];
    fill_random(&mut bytes)?;
    let token = hex::encode(bytes);
    fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(token.as_bytes()))
        .map_err(Error::io("write", path))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_is_secret_kept_and_replaced_when_it_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web-token");
        let first = token(&path).unwrap();
        assert_eq!(token(&path).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "").unwrap();
        let second = token(&path).unwrap();
        assert!(second != first && second.len() == 64);
        assert!(is_same(&first, &first.clone()) && !is_same(&first, &second) && !is_same("", &first));
    }
}
