//! Whatever finds the written pages and whatever runs the guest: a snapshot of a held guest is its memory and
//! its disk, page for page.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use watari_store::Store;
use watari_types::{MachineId, PAGE_SIZE, Page, PageHash, PageTable};

use crate::lab::Lab;

/// Real-mode code that writes to random pages between 64 KiB and 576 KiB for ever, as a bootable disk: the one
/// kind of guest that runs under KVM on hosts whose KVM cannot run a 64-bit kernel.
fn boot_sector() -> Vec<u8> {
    let mut code = vec![
        0xBA, 0xF8, 0x03, // mov dx, 0x3f8
        0xB0, b'K', 0xEE, // mov al, 'K'; out dx, al
        0xB0, b'\n', 0xEE, // mov al, '\n'; out dx, al
        0xB8, 0x01, 0x00, // mov ax, 1
    ];
    let again = code.len();
    code.extend([
        0xBA, 0x55, 0x62, // mov dx, 25173
        0xF7, 0xE2, // mul dx
        0x05, 0x19, 0x36, // add ax, 13849
        0x89, 0xC3, // mov bx, ax
        0x89, 0xC7, // mov di, ax
        0x81, 0xE7, 0xFE, 0x0F, // and di, 0xffe
        0xC1, 0xEB, 0x09, // shr bx, 9
        0xC1, 0xE3, 0x08, // shl bx, 8
        0x81, 0xC3, 0x00, 0x10, // add bx, 0x1000
        0x8E, 0xC3, // mov es, bx
        0x26, 0xFF, 0x05, // inc word [es:di]
    ]);
    let back = again as i64 - (code.len() as i64 + 2);
    code.extend([0xEB, back as i8 as u8]); // jmp again
    code.resize(510, 0);
    code.extend([0x55, 0xAA]);
    code.resize(1 << 20, 0);
    code
}

/// Compares what a snapshot holds of a region with a file, page for page. Returns how many are not zero.
fn compare(what: &str, table: &PageTable, file: &File, bytes: u64) -> u64 {
    let mut content: Page = [0; PAGE_SIZE];
    let mut data = 0;
    for page in 0..(bytes / PAGE_SIZE as u64) as u32 {
        file.read_exact_at(&mut content, u64::from(page) * PAGE_SIZE as u64).unwrap();
        let (is, captured) = (PageHash::of(&content), table.get(page));
        assert_eq!(is, captured, "{what}: page {page}");
        data += u64::from(!is.is_zero_page());
    }
    data
}

/// Checkpoints a running machine some times, then holds it, and compares a last checkpoint with it.
fn a_held_guest_is_what_its_snapshot_says(lab: &Lab, name: &str, tracker: &str) {
    for _ in 0..5 {
        assert_eq!(lab.ok(&["checkpoint", name])["tracker"], tracker);
    }
    lab.ok(&["pause", name]);
    let last = lab.ok(&["checkpoint", name]);
    let machine = lab.machine(name);
    let id: MachineId = machine["id"].as_str().unwrap().parse().unwrap();
    let store = Store::open(&lab.home().join("store")).unwrap();
    let snapshot = store.refs(id).head().unwrap().unwrap().id;
    assert_eq!(last["id"], snapshot.to_string());
    let tables = store.page_tables(snapshot).unwrap();

    let pid = machine["instance"]["qemu_pid"].as_u64().unwrap();
    // The descriptor QEMU inherited for its main memory.
    let memory = File::open(format!("/proc/{pid}/fd/60")).unwrap();
    let size = machine["memory_bytes"].as_u64().unwrap();
    let table = &tables[&"ram/m0".parse().unwrap()];
    assert!(compare("ram/m0", table, &memory, size) > 100);

    let disk = File::open(lab.folder(name).join("disk0.raw")).unwrap();
    compare("disk/0", &tables[&"disk/0".parse().unwrap()], &disk, disk.metadata().unwrap().len());
    lab.ok(&["resume", name]);
}

fn with_settings(settings: &str) -> Lab {
    let lab = Lab::without_daemon();
    fs::create_dir_all(lab.home().join("node")).unwrap();
    fs::write(lab.home().join("node/settings.toml"), settings).unwrap();
    lab.ok(&["up"]);
    lab
}

const STAMPS: &str = "watari.run=stamp watari.args=mem=32M,mem-rate=20,disk-rate=2";

#[test]
fn write_protection_finds_every_page_under_emulation() {
    let lab = with_settings("accelerator = \"tcg\"\n");
    lab.start_demo("m", "128M", "16M", STAMPS, "STAMP ready");
    a_held_guest_is_what_its_snapshot_says(&lab, "m", "write-protect");
}

#[test]
fn comparing_finds_every_page_under_emulation() {
    let lab = with_settings("accelerator = \"tcg\"\ntracker = \"compare\"\n");
    lab.start_demo("m", "128M", "16M", STAMPS, "STAMP ready");
    a_held_guest_is_what_its_snapshot_says(&lab, "m", "compare");
}

#[test]
fn both_trackers_find_every_page_under_kvm() {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        eprintln!("no /dev/kvm on this host: nothing to test");
        return;
    }
    for (settings, tracker) in [("", "write-protect"), ("tracker = \"compare\"\n", "compare")] {
        let lab = with_settings(&format!("accelerator = \"kvm\"\n{settings}"));
        let image = lab.home().join("boot.img");
        fs::write(&image, boot_sector()).unwrap();
        lab.ok(&["create", "k", "--image", image.to_str().unwrap(), "--memory", "64M"]);
        let console = lab.listen("k");
        lab.ok(&["start", "k"]);
        console.wait_for("K\n");
        assert_eq!(lab.machine("k")["instance"]["accelerator"], "kvm");
        a_held_guest_is_what_its_snapshot_says(&lab, "k", tracker);
    }
}
