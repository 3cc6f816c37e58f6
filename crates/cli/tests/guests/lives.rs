//! What a machine survives, and what its clones are: on real guests.

use std::fs::File;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::lab::{Lab, kill, machine, numbers, wait};

const COUNTER: &str = "watari.run=counter";

#[test]
fn a_checkpoint_is_resumed_where_it_was_taken_and_the_machine_counts_on() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    let before = *numbers(&lab.serial("m"), "tick ").last().unwrap();
    let done = lab.ok(&["checkpoint", "m", "-m", "first", "--tag", "good"]);
    for field in
        ["id", "generation", "pause_ms", "total_ms", "ram_pages", "disk_pages", "stored_bytes", "tracker"]
    {
        assert!(!done[field].is_null(), "{field} missing in {done}");
    }
    let console = lab.listen("m");
    console.wait_until("to count on", |text| numbers(text, "tick ").iter().any(|n| *n > before + 15));

    kill(lab.pid("m", "qemu_pid"));
    let dead = lab.wait_for_state("m", "crashed");
    assert!(dead["reason"].as_str().unwrap().contains("signal 9"), "{dead}");

    let console = lab.listen("m");
    let restored = lab.ok(&["restore", "m@good", "--discard"]);
    assert!(restored["ready_ms"].as_f64().unwrap() > 0.0, "{restored}");
    let first = console.next_number("tick ");
    assert!((before..before + 15).contains(&first), "captured at {before}, goes on at {first}");
    let log = lab.ok(&["log", "m"]);
    assert_eq!(log["snapshots"].as_array().unwrap().len(), 1, "{log}");
    assert_eq!(log["snapshots"][0]["message"], "first", "{log}");
    assert_eq!(lab.ok(&["tag", "m", "better"])["id"], log["snapshots"][0]["id"]);
    assert_eq!(lab.ok(&["show", "m@better"])["tags"].as_array().unwrap().len(), 2);
    assert_eq!(lab.ok(&["tag", "--remove", "m@better"])["generation"], 1);
    assert_eq!(lab.ok(&["show", "m@good"])["tags"].as_array().unwrap().len(), 1);
}

#[test]
fn a_daemon_that_is_killed_finds_its_machines_and_the_guests_never_notice() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    let qemu = lab.pid("m", "qemu_pid");
    let keeper = lab.pid("m", "keeper_pid");
    let node = lab.ok(&["up"]);
    kill(node["pid"].as_u64().unwrap() as u32);
    let console = lab.listen("m");
    console.next_number("tick ");
    lab.ok(&["up"]);
    lab.wait_for_state("m", "running");
    assert_eq!((lab.pid("m", "qemu_pid"), lab.pid("m", "keeper_pid")), (qemu, keeper));
    lab.ok(&["checkpoint", "m"]);
    let ticks = numbers(&console.text(), "tick ");
    assert!(ticks.windows(2).all(|w| w[1] == w[0] + 1), "{ticks:?}");
}

#[test]
fn a_keeper_that_is_killed_is_replaced_and_the_next_checkpoint_is_complete() {
    let lab = Lab::new();
    lab.start_demo(
        "m",
        "160M",
        "32M",
        "watari.run=stamp watari.args=mem=48M,mem-rate=10,disk-rate=2",
        "STAMP pass=1",
    );
    lab.ok(&["checkpoint", "m"]);
    let qemu = lab.pid("m", "qemu_pid");
    for _ in 0..3 {
        let keeper = lab.pid("m", "keeper_pid");
        // In the middle of a capture as often as not.
        let mut capture = lab.watari(&["checkpoint", "m", "--json"]);
        let mut capture = capture.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        kill(keeper);
        capture.wait().unwrap();
        lab.wait_for_another_keeper("m", keeper);
        assert_eq!(lab.pid("m", "qemu_pid"), qemu);
    }
    let console = lab.listen("m");
    let last = lab.ok(&["checkpoint", "m"]);
    console.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    let console_after = lab.listen("m");
    lab.ok(&["restore", &format!("m@{}", last["generation"])]);
    console_after.wait_until("two passes", |text| numbers(text, "STAMP pass=").len() >= 2);
    assert!(!lab.serial("m").contains("STAMP ERROR"));
    assert_eq!(lab.ok(&["verify"])["damaged"].as_array().unwrap().len(), 0);
}

/// The kernel takes a while to end a process that was killed; it has its locks until then, and answers no more. So it
/// is here, for longer than usual.
#[test]
fn a_daemon_and_a_keeper_that_are_just_dying_are_replaced_and_the_guest_lives_on() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    let [qemu, keeper] = ["qemu_pid", "keeper_pid"].map(|which| lab.pid("m", which));
    kill(lab.ok(&["up"])["pid"].as_u64().unwrap() as u32);
    kill(keeper);
    let held = ["node/lock", "machines/m/lock"].map(|path| File::open(lab.home().join(path)).unwrap());
    held.iter().for_each(|file| flock(file, FlockOperation::LockExclusive).unwrap());
    std::thread::spawn(move || {
        for file in held {
            std::thread::sleep(Duration::from_millis(500));
            drop(file);
        }
    });
    lab.ok(&["up"]);
    lab.wait_for_another_keeper("m", keeper);
    assert_eq!(lab.pid("m", "qemu_pid"), qemu);
    lab.listen("m").next_number("tick ");
    lab.ok(&["checkpoint", "m"]);
}

#[test]
fn clones_run_beside_the_original_unplugged_and_know_who_they_are() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    lab.ok(&["checkpoint", "m"]);
    let original = lab.ok(&["show", "m"]);
    for name in ["a", "b"] {
        let clone = lab.ok(&["clone", "m", name, "--start"]);
        assert_eq!(clone["name"], name);
        assert!(clone["ready_ms"].as_f64().unwrap() > 0.0);
        let console = lab.listen(name);
        let said = console.wait_for("IDENTITY");
        let line = said.lines().find(|line| line.contains("IDENTITY")).unwrap();
        assert!(line.contains("clone") && line.contains(name), "{line}");
    }
    let (a, b) = (lab.machine("a"), lab.machine("b"));
    let ids = [&a["id"], &b["id"], &machine(&original)["id"]];
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
    // Each goes its own way: histories and disks are separate from here on.
    for name in ["a", "m", "b"] {
        lab.ok(&["checkpoint", name]);
    }
    // Their disks are fetched in the background, and the progress reaches whoever asks.
    for name in ["a", "b"] {
        let is_here = || (lab.machine(name)["instance"]["absent_disk_pages"] == 0).then_some(());
        wait("the clone's disk", is_here);
    }
    lab.ok(&["restore", "a"]);
    let console = lab.listen("m");
    console.next_number("tick ");
    assert_eq!(lab.ok(&["verify"])["damaged"].as_array().unwrap().len(), 0);
}

#[test]
fn a_clone_keeps_or_changes_its_address_as_its_user_says() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    let mac = lab.machine("m")["macs"][0].as_str().unwrap().to_owned();
    lab.listen_from_start("m").wait_for(&format!("NET add eth0 {mac}"));
    lab.ok(&["checkpoint", "m"]);
    lab.ok(&["clone", "m", "same", "--network", "same", "--start"]);
    assert_eq!(lab.machine("same")["macs"][0], mac.as_str());

    lab.ok(&["clone", "m", "fresh", "--network", "fresh", "--start"]);
    let fresh = lab.machine("fresh")["macs"][0].as_str().unwrap().to_owned();
    assert_ne!(fresh, mac);
    lab.listen_from_start("fresh").wait_for(&format!("NET add eth0 {fresh}"));
    // What the clone has now is what its own snapshots have.
    lab.ok(&["checkpoint", "fresh"]);
    lab.ok(&["restore", "fresh"]);
    lab.listen("fresh").next_number("tick ");
    assert_eq!(lab.machine("fresh")["macs"][0], fresh.as_str());

    lab.ok(&["clone", "m", "later", "--start"]);
    lab.ok(&["network", "later", "fresh"]);
    let later = lab.machine("later")["macs"][0].as_str().unwrap().to_owned();
    assert!(later != mac && later != fresh);
    lab.listen_from_start("later").wait_for(&format!("NET add eth0 {later}"));
}

/// Waits until the guest says that its cable is plugged in, or is not.
fn wait_for_cable(lab: &Lab, name: &str, plugged: bool) {
    let wanted = format!("carrier={}=", i32::from(plugged));
    wait(&format!("{wanted} from {name}"), || {
        let console = lab.listen(name);
        // A shell opens on the first line, and reads the second.
        lab.type_into(name, "\n");
        lab.type_into(name, "echo carrier=$(cat /sys/class/net/eth0/carrier)=\n");
        let said = console.wait_until("carrier", |text| {
            ["carrier=0=", "carrier=1=", "carrier=="].iter().any(|answer| text.contains(answer))
        });
        said.contains(&wanted).then_some(())
    });
}

#[test]
fn a_restore_and_a_power_cycle_leave_the_network_cable_as_a_person_left_it() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    lab.ok(&["checkpoint", "m"]);

    // A clone is unplugged, so its own snapshot is, too.
    lab.ok(&["clone", "m", "c", "--start"]);
    wait_for_cable(&lab, "c", false);
    lab.ok(&["checkpoint", "c"]);
    lab.ok(&["restore", "c@1"]);
    wait_for_cable(&lab, "c", false);
    lab.ok(&["network", "c", "plug"]);
    for rev in ["c@1", "c@2"] {
        lab.ok(&["restore", rev]);
        wait_for_cable(&lab, "c", true);
    }
    lab.ok(&["network", "c", "unplug"]);
    lab.ok(&["restore", "c@1"]);
    wait_for_cable(&lab, "c", false);
    let console = lab.listen("c");
    lab.ok(&["kill", "c"]);
    lab.ok(&["start", "c"]);
    console.wait_for("tick 2");
    wait_for_cable(&lab, "c", false);
    lab.ok(&["kill", "c"]);

    // What was plugged in when the snapshot was taken, and then pulled.
    lab.ok(&["network", "m", "unplug"]);
    lab.ok(&["restore", "m"]);
    wait_for_cable(&lab, "m", false);
}

#[test]
fn a_clone_with_a_network_has_it_after_going_back_to_its_origin() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    lab.ok(&["checkpoint", "m"]);
    lab.ok(&["kill", "m"]);
    lab.ok(&["clone", "m", "same", "--network", "same", "--start"]);
    lab.ok(&["restore", "same@1"]);
    wait_for_cable(&lab, "same", true);
    lab.ok(&["kill", "same"]);

    lab.ok(&["clone", "m", "fresh", "--network", "fresh", "--start"]);
    let mac = lab.machine("fresh")["macs"][0].as_str().unwrap().to_owned();
    let added = format!("NET add eth0 {mac}");
    for plugged in [true, false] {
        let console = lab.listen("fresh");
        lab.ok(&["restore", "fresh@1"]);
        console.wait_for(&added);
        wait_for_cable(&lab, "fresh", plugged);
        assert_eq!(lab.machine("fresh")["macs"][0], mac.as_str());
        lab.ok(&["network", "fresh", "unplug"]);
    }
}

#[test]
fn the_clock_is_right_after_a_restore() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    lab.ok(&["checkpoint", "m"]);
    std::thread::sleep(std::time::Duration::from_secs(8));
    lab.ok(&["restore", "m"]);
    // A shell opens on the first line, and reads the second.
    let console = lab.listen("m");
    lab.type_into("m", "\n");
    lab.type_into("m", "echo now=$(date +%s)=\n");
    let guest = console.wait_until("the time", |text| text.contains("now=1"));
    let guest: i64 = guest.rsplit("now=").find_map(|rest| rest.split('=').next()?.parse().ok()).unwrap();
    let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!((guest - host).abs() <= 4, "the guest says {guest}, it is {host}");
}

#[test]
fn a_guest_that_is_asked_to_powers_off_and_boots_again_from_its_disk() {
    let lab = Lab::new();
    lab.start_demo("m", "128M", "16M", COUNTER, "tick 5");
    lab.ok(&["checkpoint", "m"]);
    assert_eq!(machine(&lab.ok(&["stop", "m"]))["state"], "stopped");
    assert!(lab.machine("m")["reason"].as_str().unwrap().contains("powered off"));
    let console = lab.listen("m");
    lab.ok(&["start", "m"]);
    console.wait_for("tick 3");
    // Powered on again, nothing of the former memory is left, and the next snapshot knows.
    lab.ok(&["checkpoint", "m"]);
    lab.ok(&["restore", "m"]);
    lab.listen("m").next_number("tick ");
    assert_eq!(lab.ok(&["verify"])["damaged"].as_array().unwrap().len(), 0);
}
