//! The page and the API on 127.0.0.1.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::Bench;

/// Sends a request for `path` and returns status and body.
fn get(address: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn nobody_gets_in_without_the_token() {
    let mut bench = Bench::new();
    let url = bench.start()["web_url"].as_str().unwrap().to_owned();
    let (address, token) = url.strip_prefix("http://").unwrap().split_once("/?token=").unwrap();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    for path in ["/", "/api/v1/node", "/api/v1/machines", "/api/v1/openapi.json", "/nothing"] {
        assert_eq!(get(address, path, "").0, 401, "{path}");
        assert_eq!(get(address, &format!("{path}?token={}", "0".repeat(64)), "").0, 401, "{path}");
    }
    assert_eq!(get(address, &format!("/?token={token}"), "").0, 200);
    assert_eq!(get(address, "/api/v1/machines", &bearer), (200, r#"{"machines":[]}"#.to_owned()));
    assert_eq!(get(address, "/nothing", &bearer).0, 400);
}

#[test]
fn the_description_names_every_route() {
    let mut bench = Bench::new();
    let url = bench.start()["web_url"].as_str().unwrap().to_owned();
    let (address, token) = url.strip_prefix("http://").unwrap().split_once("/?token=").unwrap();
    let (status, body) = get(address, &format!("/api/v1/openapi.json?token={token}"), "");
    assert_eq!(status, 200);
    let description: serde_json::Value = serde_json::from_str(&body).unwrap();
    let routes: Vec<String> = description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    insta::assert_snapshot!("routes", routes.join("\n"));
}
