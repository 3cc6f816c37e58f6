//! The page and the API on 127.0.0.1.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use crate::common::Bench;

/// Sends a request for `path` and returns status and body.
fn get(address: &str, path: &str, headers: &str) -> (u16, String) {
    request(address, "GET", path, headers)
}

fn request(address: &str, method: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n")
        .unwrap();
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
    assert_eq!(get(address, "/nothing", &bearer).0, 404);
}

#[test]
fn who_may_watch_one_machine_can_do_nothing_to_any() {
    let mut bench = Bench::new();
    let address = bench.start()["web_url"].as_str().unwrap().to_owned();
    let address = address.strip_prefix("http://").unwrap().split_once('/').unwrap().0.to_owned();
    for name in ["screen", "web"] {
        bench.run(["create", name, "--demo", "--disk", "1M", "--json"]).well();
    }
    let url = bench.run(["screen", "web", "--view-only", "--json"]).well().json()["url"].clone();
    let token = url.as_str().unwrap().split_once("token=").unwrap().1.to_owned();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    // One is called as what may be seen is.
    for path in ["machines", "machines/screen", "machines/web", "machines/web/log", "node"] {
        assert_eq!(get(&address, &format!("/api/v1/{path}"), &bearer).0, 403, "{path}");
        assert_eq!(request(&address, "DELETE", &format!("/api/v1/{path}"), &bearer).0, 403, "{path}");
    }
    assert_eq!(bench.run(["list", "--json"]).well().json()["machines"].as_array().unwrap().len(), 2);
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

/// A home whose settings say this of the web page.
fn with_page(settings: &str) -> Bench {
    let bench = Bench::new();
    fs::create_dir_all(bench.home().join("node")).unwrap();
    fs::write(bench.home().join("node/settings.toml"), format!("[web]\n{settings}\n")).unwrap();
    bench
}

/// What curl gets: the status, and the header `Set-Cookie`.
fn curl(arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--output", "/dev/null", "--max-time", "60", "--write-out"]);
    let output = curl.arg("%{http_code} %header{set-cookie}").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn beyond_this_computer_the_page_has_a_certificate_or_is_not_there() {
    for settings in
        ["listen = \"0.0.0.0:0\"", "certificate = \"nowhere.pem\"", "certificate = \"a\"\nkey = \"b\""]
    {
        let bench = with_page(settings);
        assert_eq!(bench.run(["up", "--json"]).error_kind(), "bad_request", "{settings}");
    }
    let own = rcgen::generate_simple_self_signed(["watari.test".to_owned()]).unwrap();
    let files = Bench::new();
    let certificate = files.file("certificate.pem", own.cert.pem().as_bytes());
    let key = files.file("key.pem", own.signing_key.serialize_pem().as_bytes());
    let mut bench = with_page(&format!(
        "listen = \"127.0.0.1:0\"\nnames = [\"watari.test\"]\ncertificate = {certificate:?}\nkey = {key:?}"
    ));
    let url = bench.start()["web_url"].as_str().unwrap().to_owned();
    let host = url.strip_prefix("https://").unwrap().split_once('/').unwrap().0;
    let (name, port) = host.split_once(':').unwrap();
    assert_eq!(name, "watari.test");
    let there =
        ["--cacert", certificate.to_str().unwrap(), "--resolve", &format!("watari.test:{port}:127.0.0.1")];
    let answer = curl(&[&there[..], &[&url]].concat());
    assert!(answer.starts_with("200 watari-") && answer.contains("HttpOnly; SameSite=Strict"), "{answer}");
    assert!(answer.ends_with("; Secure"), "{answer}");
    assert_eq!(curl(&[&there[..], &["-H", "Host: evil.example", &url]].concat()), "421 ");
    assert_eq!(curl(&[&there[..], &[&format!("https://{host}/")]].concat()), "401 ");
}

#[test]
fn the_page_is_found_again_where_it_was() {
    let mut bench = Bench::new();
    let first = bench.start()["web_url"].clone();
    bench.kill_daemon();
    assert_eq!(bench.start()["web_url"], first);
    bench.kill_daemon();
    let address =
        first.as_str().unwrap().strip_prefix("http://").unwrap().split_once('/').unwrap().0.to_owned();
    let _taken = TcpListener::bind(&address).unwrap();
    assert_ne!(bench.start()["web_url"], first, "somebody else is there");
}
