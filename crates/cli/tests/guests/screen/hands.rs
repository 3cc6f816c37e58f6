//! What a person does to a machine with more than keys and a pointer on its picture.

use crate::lab::wait;

use super::browser::View;
use super::{is_exact, wait_until_told, watched};

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
