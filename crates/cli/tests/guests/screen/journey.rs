//! A page that shows a machine goes on showing it when that walks to another node, which no browser here can reach.

use crate::lab::{joined, wait};

use super::browser::{Page, Pixels, View, address, start_guest};
use super::{NOTE, is_exact, wait_for_picture};

#[test]
fn the_picture_follows_a_machine_to_another_node_and_back() {
    let labs = joined(&["alpha", "beta"]);
    let (alpha, beta) = (&labs[0], &labs[1]);
    start_guest(alpha, "m");
    let page = Page::open(&address(alpha, "m", &[]));
    wait_for_picture(&page);
    let watcher = Page::open(&address(alpha, "m", &["--view-only"]));
    for (here, there, name, key, said) in
        [(alpha, beta, "beta", "KeyB", 'b'), (beta, alpha, "alpha", "KeyA", 'a')]
    {
        let before = there.serial("m").len();
        here.ok(&["teleport", "m", name]);
        wait("the picture from there", || {
            page.press(&[key]);
            there.serial("m")[before..].contains(said).then_some(())
        });
        page.wait_for("no trouble", &format!("{NOTE} === ''"));
        is_exact(there, &page);
        wait("the same for who only watches", || {
            there.ok(&["pause", "m"]);
            let is_same = watcher.canvas() == Pixels::of_machine(there, "m");
            there.ok(&["resume", "m"]);
            is_same.then_some(())
        });
    }
    // Who only watches may do so there and no more.
    let before = alpha.serial("m").len();
    alpha.ok(&["teleport", "m", "beta"]);
    wait_for_picture(&watcher);
    let (told, small) = ("/api/v1/machines/m/screen", "/api/v1/machines/m/thumbnail");
    assert_eq!(page.evaluate(&status(small)), 200, "a small picture comes from there");
    for path in [small, "/api/v1/machines/m/console", "/api/v1/machines/m/log"] {
        assert_eq!(watcher.evaluate(&status(path)), 403, "{path}");
    }
    watcher.evaluate(&format!(
        "new Promise(done => {{ const socket = new WebSocket('{told}'); socket.onopen = () => {{ \
         for (const what of [{{ type: 'take' }}, {{ type: 'key', code: 'KeyZ', down: true }}]) socket.send(JSON.stringify(what)); \
         setTimeout(done, 1000); }}; }})"
    ));
    assert!(!beta.serial("m").contains('z') && alpha.serial("m").len() == before);
    // While that node does not answer, it is said where the machine is.
    super::kill(beta.ok(&["up"])["pid"].as_u64().unwrap() as u32);
    page.wait_for("it is said", &format!("{NOTE}.includes('node')"));
    beta.ok(&["up"]);
    page.wait_for("no trouble", &format!("{NOTE} === ''"));
    is_exact(beta, &page);
}

/// An expression for the status of the answer to a request.
fn status(path: &str) -> String {
    format!("fetch('{path}').then(answer => answer.status)")
}
