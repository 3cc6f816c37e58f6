//! What a person does to a machine with more than keys and a pointer on its picture.

use headless_chrome::protocol::cdp::Input::MouseButton;

use crate::lab::wait;

use super::browser::{Page, View};
use super::{HELLO, NOTE, is_exact, wait_until_told, watched};

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

/// Whether each pixel, but for the guest's counter, is a square of so many of the person's screen, all of its colour.
fn is_sharp(page: &Page, side: usize, density: f64) -> bool {
    let edge = |which: &str| {
        let edge = format!("document.querySelector('canvas').getBoundingClientRect().{which}");
        page.evaluate(&edge).as_f64().unwrap() * density
    };
    let (left, top) = (edge("left").round() as usize, edge("top"));
    let (seen, canvas) = (page.seen(), page.canvas());
    let (width, row) = (canvas.width as usize, 3 * seen.width as usize);
    let is_counter = |place: usize| place / width < 16 && place % width >= width - 9;
    let pixels = || canvas.bytes.chunks_exact(3).enumerate().filter(|(place, _)| !is_counter(*place));
    // Five letters have more.
    assert!(pixels().filter(|(_, colour)| *colour != [0; 3]).count() > 100);
    let begins_at = |top: usize| {
        pixels().all(|(place, colour)| {
            let corner = (top + place / width * side) * row + 3 * (left + place % width * side);
            let mut spots =
                (0..side).flat_map(|down| (0..side).map(move |right| corner + down * row + 3 * right));
            spots.all(|at| &seen.bytes[at..at + 3] == colour)
        })
    };
    // A browser has no edge within a pixel, and moves it up or down.
    begins_at(top.floor() as usize) || begins_at(top.ceil() as usize)
}

#[test]
fn a_picture_is_sharp_on_whatever_screen_and_fits_into_whatever_window() {
    let (lab, page) = watched();
    page.press(&HELLO);
    wait_until_told(&lab, "hello");
    page.click_on_button("1:1");
    for (width, density, side) in
        [(1100, 1.0, 1), (1101, 2.0, 2), (1100, 1.5, 2), (1101, 1.25, 1), (1100, 3.0, 3)]
    {
        // Chromium's own tools tell a page of another density when its window is another as well.
        page.resize(width, 700, density);
        let width =
            format!("Math.abs(document.querySelector('canvas').clientWidth * {density} - 720 * {side}) < 2");
        page.wait_for("the size", &width);
        // A cursor may have blinked between the two that are compared.
        wait("each pixel", || is_sharp(&page, side, density).then_some(()));
    }
    page.photograph("three-for-one");
    page.evaluate("document.querySelector('canvas').style.imageRendering = 'smooth'");
    wait("smoothed pixels to be seen for what they are", || (!is_sharp(&page, 3, 3.0)).then_some(()));
    page.click_on_button("Fit");
    let fits = "(({clientWidth: width, clientHeight: height}, stage) => width <= stage.clientWidth && height <= stage.clientHeight
        && Math.abs(width / height - 720 / 400) < 0.02 && (width > stage.clientWidth - 2 || height > stage.clientHeight - 2))
        (document.querySelector('canvas'), document.querySelector('.screen-stage'))";
    for (width, height) in [(1100, 300), (400, 900), (1000, 600)] {
        page.resize(width, height, 2.0);
        page.wait_for("all of it, as large as there is room", fits);
    }
    page.click(500.0, 300.0, MouseButton::Left);
    wait_until_told(&lab, "hello10");
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
