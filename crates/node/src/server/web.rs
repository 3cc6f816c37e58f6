//! The web page and the API over TCP, for whoever has a token ([`access`](super::access)).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, http};

use super::access::{Access, Denied};
use super::{App, pages, routes};

/// What a page of ours may load: what is ours. Styles may be inline as the terminal on the page makes some as it goes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; \
                      connect-src 'self'; worker-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
/// A browser keeps the cookie for so long, in seconds: a year.
const KEPT: u32 = 365 * 24 * 60 * 60;

pub(super) fn router(app: Arc<App>) -> Router {
    routes::router(app.clone())
        .route("/", get(pages::page))
        .route("/{*path}", get(pages::page))
        .layer(from_fn_with_state(app, guard))
}

async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let mut answer = match admit(&app, &mut request) {
        Ok(cookie) => {
            let mut answer = next.run(request).await;
            if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok()) {
                answer.headers_mut().append(header::SET_COOKIE, cookie);
            }
            answer
        }
        Err(refusal) => refusal.into_response(),
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The address may hold a token.
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

type Refusal = (StatusCode, &'static str);

/// Lets a request in with what it may do, or not. Returns a cookie for who came with a token in the address of a page.
fn admit(app: &App, request: &mut Request) -> Result<Option<String>, Refusal> {
    let (headers, uri) = (request.headers(), request.uri());
    let host = text(headers, header::HOST).unwrap_or_default();
    if !is_ours(host, &app.names) {
        return Err((
            StatusCode::MISDIRECTED_REQUEST,
            "this node is reached by an address, as localhost, or by a name in `[web] names` of node/settings.toml\n",
        ));
    }
    let bearer = text(headers, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD) && !is_upgrade(headers);
    match text(headers, header::ORIGIN) {
        Some(origin) if origin.split_once("://").map(|(_, host)| host) != Some(host) => {
            return Err((StatusCode::FORBIDDEN, "another site's page may not do that\n"));
        }
        // Every browser says where a request comes from that may change something.
        None if bearer.is_none() && !is_read => {
            return Err((
                StatusCode::FORBIDDEN,
                "without an Origin the token must be in the Authorization\n",
            ));
        }
        _ => {}
    }
    let in_address = query_token(uri).filter(|_| is_read);
    let prefix = cookie_prefix(app);
    let given = bearer.into_iter().chain(in_address).chain(cookies(headers, &prefix));
    let access = app.tokens.access(given).map_err(|denied| match denied {
        Denied::Wrong => (
            StatusCode::UNAUTHORIZED,
            "`watari up --json` and `watari screen NAME` tell the address with its token\n",
        ),
        Denied::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens: try again in a minute\n"),
    })?;
    let is_page = !uri.path().starts_with("/api/");
    if !access.is_full() && !is_page && !is_screen(request.method(), uri) {
        return Err((StatusCode::FORBIDDEN, "this address is for watching a screen alone\n"));
    }
    let cookie = in_address.filter(|_| is_page).map(|token| {
        // One for each machine that may only be watched, so that they do not push each other out.
        let whose = token.split_once('-').map_or("", |(machine, _)| machine);
        let secure = if app.origin.starts_with("https:") { "; Secure" } else { "" };
        format!("{prefix}{whose}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={KEPT}{secure}")
    });
    request.extensions_mut().insert(access);
    Ok(cookie)
}

/// Whether a request's `Host` is one that leads here without anybody else's doing: what another site can make lead here is a name
/// of its own. Any port: it may come through a tunnel.
fn is_ours(host: &str, names: &[String]) -> bool {
    let Ok(host) = host.parse::<http::uri::Authority>() else { return false };
    let host = host.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost"
        || address.parse::<IpAddr>().is_ok()
        || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// Whether a request is for some machine's screen, and for nothing else of it: a machine may be called `screen` itself.
fn is_screen(method: &Method, uri: &Uri) -> bool {
    *method == Method::GET && of_machine(uri).is_some_and(|(_, what)| what == "screen")
}

/// The machine that is named in an address, and what of it is asked for.
pub(super) fn of_machine(uri: &Uri) -> Option<(&str, &str)> {
    uri.path().strip_prefix("/api/v1/machines/")?.split_once('/')
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

fn query_token(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|part| part.strip_prefix("token="))
}

/// Cookies do not know of ports: another node on this computer has others.
fn cookie_prefix(app: &App) -> String {
    format!("watari-{:.8}-", app.info.node_id.to_string())
}

fn cookies<'a>(headers: &'a HeaderMap, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|cookies| cookies.split("; "))
        .filter_map(move |cookie| cookie.strip_prefix(prefix)?.split_once('=').map(|(_, token)| token))
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// On the unix socket everything may be done: only who may open it gets that far.
pub(super) async fn own(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Access::Owner);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_have_are_ours() {
        let names = ["watari.example".to_owned()];
        for host in
            ["127.0.0.1:7777", "localhost", "localhost:1", "[::1]:80", "10.0.0.1", "Watari.example:8443"]
        {
            assert!(is_ours(host, &names), "{host}");
        }
        for host in ["", "evil.example", "127.0.0.1.evil.example:80", "localhost.evil", "x.watari.example"] {
            assert!(!is_ours(host, &names), "{host}");
        }
    }

    #[test]
    fn a_screen_is_told_from_everything_else_of_a_machine() {
        let is = |method, path: &str| is_screen(&method, &Uri::try_from(path).unwrap());
        assert!(
            is(Method::GET, "/api/v1/machines/web/screen")
                && is(Method::GET, "/api/v1/machines/screen/screen")
        );
        assert!(!is(Method::DELETE, "/api/v1/machines/web/screen"));
        for path in [
            "/api/v1/machines/screen",
            "/api/v1/machines/web/x/screen",
            "/api/v1/machines/web/screen/links",
            "/api/v1/node/screen",
            "/screen",
        ] {
            assert!(!is(Method::GET, path), "{path}");
        }
    }

    #[test]
    fn tokens_are_found_among_cookies() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; watari-1234-=one; watari-9999-=no"));
        headers.append(header::COOKIE, HeaderValue::from_static("watari-1234-ff=ff-two"));
        assert_eq!(cookies(&headers, "watari-1234-").collect::<Vec<_>>(), ["one", "ff-two"]);
    }
}
