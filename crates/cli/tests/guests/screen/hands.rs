//! What a person does to a machine with more than keys and a pointer on its picture.

use crate::lab::wait;

use super::browser::View;
use super::{NOTE, is_exact, wait_until_told, watched};

#[test]
fn a_wheel_turns() {
    let (lab, page) = watched();
    // As many turns as come in one of its packets are one letter.
    let turned = |what: &str, way: char, other: char| {
        let said = wait(what, || Some(lab.serial("m")).filter(|said| said.ends_with(way)));
        assert!(!said.contains(other), "{what}: {said:?}");
    };
    page.wheel(640.0, 450.0, -100.0);
    turned("a turn up", 'u', 'd');
    page.swipe(600.0, 350.0, 80.0, 300.0);
    let turns = lab.serial("m").len();
    turned("two fingers down, as if the picture went with them", 'u', 'd');
    page.press(&["KeyX"]);
    wait_until_told(&lab, "x");
    assert!(lab.serial("m").len() > turns, "the fingers turned something");
    page.wheel(640.0, 450.0, 300.0);
    wait_until_told(&lab, "d");
}

#[test]
fn a_pointer_is_captured() {
    let (lab, page) = watched();
    page.press(&["Escape"]);
    wait_until_told(&lab, "\x1b");
    let (x, y) = page.click_on_button("Capture pointer");
    page.wait_for("the pointer to be captured", "document.pointerLockElement !== null");
    // Wherever the person's pointer is: it is that it moves which counts.
    for step in 1..=5 {
        page.point(x + 10.0 * f64::from(step), y);
    }
    wait_until_told(&lab, "r");
    page.evaluate("document.exitPointerLock()");
    page.wait_for("the pointer to be free", "document.pointerLockElement === null");
    page.press(&["Escape"]);
    wait_until_told(&lab, "r\x1b");
    let moved = lab.serial("m");
    assert!(
        moved.trim_matches('\x1b').chars().all(|way| way == 'r'),
        "it went to the right alone: {moved:?}"
    );
}

#[test]
fn a_screen_fills_the_persons() {
    let (lab, page) = watched();
    let fills = "document.fullscreenElement?.clientHeight === innerHeight";
    page.click_on_button("Full screen");
    page.wait_for("the whole screen", fills);
    page.press(&["KeyA"]);
    wait_until_told(&lab, "a");
    is_exact(&lab, &page);
    page.photograph("full-screen");
    page.evaluate("document.exitFullscreen()");
    page.wait_for("the page around it", &format!("!({fills})"));
    page.press(&["KeyB"]);
    wait_until_told(&lab, "ab");
}

#[test]
fn what_is_typed_while_snapshots_are_taken_arrives() {
    let (lab, page) = watched();
    let text = ["Whoever Types goes on, (Snapshot) or not: 0123456789. "; 8].concat();
    page.insert(&text);
    let snapshots = wait("all of it", || {
        lab.ok(&["checkpoint", "m"]);
        // QEMU's log of a serial line repeats a few bytes now and then.
        let said = lab.serial("m");
        let mut said = said.chars();
        text.chars().all(|wanted| said.any(|found| found == wanted)).then(|| lab.generations("m").len())
    });
    assert!(snapshots > 5, "it was typed between {snapshots} snapshots");
}

#[test]
fn what_was_held_when_a_machine_was_is_not_held_for_ever() {
    let (lab, page) = watched();
    let press = |key: &str, said: &str| {
        page.press(&[key]);
        wait_until_told(&lab, said);
    };
    page.key("ShiftLeft", true);
    press("KeyA", "A");
    lab.ok(&["pause", "m"]);
    page.wait_for("it is said", &format!("{NOTE}.includes('paused')"));
    page.key("ShiftLeft", false);
    lab.ok(&["resume", "m"]);
    page.wait_for("it goes on", &format!("{NOTE} === ''"));
    press("KeyA", "Aa");

    page.key("ShiftLeft", true);
    press("KeyB", "B");
    lab.ok(&["checkpoint", "m"]);
    press("KeyB", "BB");
    page.key("ShiftLeft", false);
    press("KeyB", "BBb");
    lab.ok(&["restore", "m", "--discard"]);
    let said = wait("the restored machine", || {
        page.press(&["KeyC"]);
        Some(lab.serial("m")).filter(|said| said.contains(['c', 'C']))
    });
    assert!(said.ends_with('c'), "{said:?}");
}
