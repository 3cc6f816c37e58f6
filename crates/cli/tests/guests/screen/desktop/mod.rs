//! A text goes from a person's clipboard to a machine's and back: Debian's own desktop agent, in a guest that has an X server.

use std::path::Path;
use std::process::Command;

use crate::lab::{Lab, text, wait};

use super::browser::{Page, View, address};

/// Makes a machine whose guest is `init`, and starts it.
fn start(lab: &Lab) {
    let kernel = watari_demo::find_kernel().unwrap();
    let (root, initrd) = (lab.home().join("desktop"), lab.home().join("desktop.cpio"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("init"), include_str!("init")).unwrap();
    let pack = Command::new("sh")
        .args(["-ec", include_str!("pack.sh"), "sh"])
        .args([&root, Path::new(&kernel.version), &initrd])
        .output()
        .unwrap();
    assert!(pack.status.success(), "{}", text(&pack.stderr));
    std::fs::remove_dir_all(&root).unwrap();
    let (kernel, initrd) = (kernel.image.to_str().unwrap(), initrd.to_str().unwrap());
    let append = "console=ttyS0 quiet panic=-1 rdinit=/init";
    lab.ok(&[
        "create", "m", "--kernel", kernel, "--initrd", initrd, "--append", append, "--memory", "256M",
        "--disk", "1M",
    ]);
    let console = lab.listen("m");
    lab.ok(&["start", "m"]);
    console.wait_for("ready");
}

/// Waits until the guest's programs would paste this.
fn until_pasted(lab: &Lab, what: &str) {
    let wanted = format!("pasted {what}\n");
    wait(&format!("{what:?} to be pasted"), || {
        let console = lab.listen("m");
        lab.type_into("m", "paste\n");
        console.wait_for("pasted").ends_with(&wanted).then_some(())
    });
}

const BUTTON: &str = "[...document.querySelectorAll('dialog button')].find(button => button.textContent === ";
const AREA: &str = "document.querySelector('dialog textarea').value";

fn put(page: &Page, what: &str) {
    page.wait_for("an agent", &format!("!{BUTTON}\"Put on the machine's clipboard\").disabled"));
    page.evaluate(&format!("{AREA} = '{what}'"));
    page.evaluate(&format!("{BUTTON}\"Put on the machine's clipboard\").click()"));
}

fn until_copied(page: &Page, what: &str) {
    wait(&format!("{what:?} from the machine"), || {
        page.click_button("Copy what the machine has copied");
        (page.text(AREA) == what).then_some(())
    });
}

#[test]
fn what_is_copied_here_is_pasted_there_and_the_other_way_round() {
    let lab = Lab::new();
    start(&lab);
    let page = Page::open(&address(&lab, "m", &[]));
    page.wait_for("control", "!document.querySelector('select').disabled");
    page.click_button("Text…");
    put(&page, "from here: ä € 😀");
    until_pasted(&lab, "from here: ä € 😀");
    lab.type_into("m", "copy from there: ß ¥\n");
    until_copied(&page, "from there: ß ¥");

    // A machine that is rolled back has an agent that knows nothing of what came after.
    lab.ok(&["checkpoint", "m"]);
    lab.type_into("m", "copy to be forgotten\n");
    until_copied(&page, "to be forgotten");
    lab.ok(&["restore", "m", "--discard"]);
    until_pasted(&lab, "from there: ß ¥");
    put(&page, "and after it");
    until_pasted(&lab, "and after it");
    lab.type_into("m", "copy once more\n");
    until_copied(&page, "once more");
}
