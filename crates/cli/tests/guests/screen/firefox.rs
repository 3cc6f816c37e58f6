//! The same in Firefox, as far as it could be otherwise there.

use super::browser::{Firefox, View, address, start_guest};
use super::{
    HELLO, NOTE, is_exact, is_painted_to_the_bit, is_seen_and_used, wait_for_picture, wait_until_told,
};
use crate::lab::{Lab, kill, wait};

#[test]
fn a_person_sees_a_machine_and_uses_it() {
    let lab = Lab::new();
    start_guest(&lab, "m");
    let page = Firefox::open(&address(&lab, "m", &[]));
    wait_for_picture(&page);
    is_seen_and_used(&lab, &page);
    page.insert("What? A ~{text}~");
    page.press(&["KeyA"]);
    wait_until_told(&lab, "What? A ~{text}~a");
    is_exact(&lab, &page);
    page.press(&["Tab"]);
    page.wait_for("the screen's other size", "document.querySelector('canvas').height === 480");
    is_exact(&lab, &page);

    kill(lab.ok(&["up"])["pid"].as_u64().unwrap() as u32);
    page.wait_for("it is said", &format!("{NOTE}.includes('does not answer')"));
    lab.ok(&["up"]);
    page.wait_for("the daemon's next life", &format!("{NOTE} === ''"));
    // What is pressed before the daemon has the picture again is lost.
    wait("a key's effect", || {
        page.press(&["KeyB"]);
        lab.serial("m").ends_with('b').then_some(())
    });
    is_exact(&lab, &page);
    assert_eq!(page.complaints(), [""; 0]);
}

#[test]
fn the_other_pages_show_a_machine_as_well() {
    let lab = Lab::new();
    start_guest(&lab, "m");
    let page = Firefox::open(lab.ok(&["up"])["web_url"].as_str().unwrap());
    page.wait_for(
        "the machine's small picture",
        "document.querySelector('.thumbnail img')?.naturalWidth > 100",
    );
    page.evaluate(
        "[...document.querySelectorAll('a')].find(link => link.textContent.trim() === 'm').click()",
    );
    wait_for_picture(&page);
    page.evaluate("document.querySelector('.screen-input').focus()");
    page.press(&HELLO);
    wait_until_told(&lab, "hello");
    page.evaluate("document.querySelector('#tab-console').click()");
    page.wait_for("its console", "document.querySelector('.xterm')?.textContent.includes('hello') === true");
    assert_eq!(page.complaints(), [""; 0]);
}

#[test]
fn what_was_recorded_is_painted_to_the_bit() {
    let lab = Lab::new();
    is_painted_to_the_bit(&Firefox::open(lab.ok(&["up"])["web_url"].as_str().unwrap()));
}
