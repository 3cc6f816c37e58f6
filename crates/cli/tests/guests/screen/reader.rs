//! The pages as a screen reader has them: what is said of each thing, not how it looks.

use crate::lab::Lab;

use super::browser::{Page, View, start_guest};
use super::{wait_until_told, watched};

/// What does something, and so needs a name to be said.
const USED: [&str; 9] =
    ["button", "link", "textbox", "combobox", "checkbox", "radio", "slider", "dialog", "image"];

/// Everything that is used has a name, no two buttons have the same, and what is `wanted` is there.
fn is_readable(page: &Page, title: &str, wanted: &[(&str, &str)]) {
    let read = page.read();
    let names = |role: &str| -> Vec<&str> {
        read.iter().filter(|(is, _)| is == role).map(|(_, name)| name.as_str()).collect()
    };
    assert_eq!(names("RootWebArea"), [title]);
    for role in USED {
        assert!(!names(role).iter().any(|name| name.trim().is_empty()), "a {role} without a name: {read:#?}");
    }
    let mut buttons = names("button");
    buttons.sort_unstable();
    let all = buttons.len();
    buttons.dedup();
    assert_eq!(buttons.len(), all, "two buttons have the same name: {read:#?}");
    for (role, name) in wanted {
        assert!(names(role).contains(name), "{role} {name:?} in {read:#?}");
    }
}

#[test]
fn the_pages_can_be_read() {
    let lab = Lab::new();
    start_guest(&lab, "m");
    lab.ok(&["checkpoint", "m", "-m", "before the move"]);
    let page = Page::open(lab.ok(&["up"])["web_url"].as_str().unwrap());
    page.wait_for("its small picture", "[...document.images].some(image => image.naturalWidth > 100)");
    let everywhere = [("main", ""), ("status", ""), ("navigation", "Main"), ("link", "Node")];
    is_readable(&page, "Machines – Watari", &everywhere);
    is_readable(&page, "Machines – Watari", &[("link", "m"), ("button", "Create a machine")]);

    page.evaluate("location.hash = '#/machines/m'");
    page.wait_for("its history", "document.body.textContent.includes('before the move')");
    page.wait_for("its screen", "document.querySelector('.screen-note')?.textContent === ''");
    let of_machine = [
        ("heading", "m"),
        ("button", "Checkpoint"),
        ("tab", "Console"),
        ("button", "Snapshot 1 : before the move , head"),
        (
            "textbox",
            "Screen of m: keys go to the machine while this has the focus. Ctrl+Alt leaves the screen",
        ),
    ];
    is_readable(&page, "m – Watari", &everywhere);
    is_readable(&page, "m – Watari", &of_machine);

    page.evaluate("location.hash = '#/node'");
    page.wait_for("what the host lacks", "document.body.textContent.includes('userfaultfd')");
    is_readable(&page, "Node – Watari", &everywhere);
    is_readable(&page, "Node – Watari", &[("button", "Test again"), ("heading", "userfaultfd")]);
}

#[test]
fn who_has_no_pointer_gets_into_a_screen_and_out_of_it() {
    let (lab, page) = watched();
    is_readable(&page, "m – Watari", &[("main", ""), ("status", ""), ("toolbar", "Screen")]);
    assert_eq!(page.evaluate("document.querySelector('.screen-input').tabIndex"), -1, "Tab passes it by");
    page.press(&["KeyA", "Tab", "KeyB"]);
    wait_until_told(&lab, "a\tb");
    for code in ["ControlLeft", "AltLeft", "F1"] {
        page.key(code, true);
    }
    for code in ["F1", "AltLeft", "ControlLeft"] {
        page.key(code, false);
    }
    let is_in = page.evaluate("document.activeElement.closest('.screen-stage') !== null");
    assert_eq!(is_in, true, "Ctrl+Alt+F1 is the machine's");
    page.key("ControlLeft", true);
    page.key("AltLeft", true);
    page.key("AltLeft", false);
    page.key("ControlLeft", false);
    assert_eq!(page.text("document.activeElement.textContent"), "Keyboard", "Ctrl+Alt leaves it");
    page.click_button("Keyboard");
    page.press(&["KeyC"]);
    wait_until_told(&lab, "c");

    page.click_button("Text…");
    page.wait_for("the dialog", "document.querySelector('dialog[open]') !== null");
    let in_dialog = [("dialog", "Text for the machine"), ("textbox", "Text"), ("button", "Type it")];
    is_readable(&page, "m – Watari", &in_dialog);
    is_readable(&page, "m – Watari", &[("combobox", "The machine's keyboard"), ("status", "")]);
}
