//! What host and guest do with each other while the machine runs.

use std::time::{Duration, SystemTime};

use watari_qemu::{AGENT_SOCKET, Agent};

use crate::rig::{Home, Instance, LIMIT, Variant, soon};

fn running(home: &Home) -> Instance {
    let mut machine = Instance::start(home, Variant::fresh(home));
    machine.monitor.cont().unwrap();
    machine.serial.await_line("tick 1");
    machine
}

fn agent(machine: &Instance) -> Agent {
    Agent::connect(&machine.run_dir.join(AGENT_SOCKET), soon()).unwrap()
}

#[test]
fn the_demo_guest_boots_to_its_first_tick_and_knows_who_it_is() {
    let home = Home::new(None, &[]);
    let begun = std::time::Instant::now();
    let mut machine = running(&home);
    println!("first tick after {:?}", begun.elapsed());
    assert_eq!(machine.serial.await_line("IDENTITY "), "name=first");
    let picture = home.path("screen.png");
    machine.monitor.screendump(&picture).unwrap();
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn the_agent_sets_the_guests_clock() {
    let home = Home::new(None, &[]);
    let machine = running(&home);
    let mut agent = agent(&machine);
    agent.ping(LIMIT).unwrap();
    let in_2033 = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    agent.set_time(in_2033, LIMIT).unwrap();
    let now = agent.time(LIMIT).unwrap().duration_since(in_2033).unwrap();
    assert!(now < LIMIT, "{now:?}");
    let refused = agent.execute("guest-\"x", serde_json::json!({}), LIMIT).unwrap_err();
    assert!(refused.to_string().contains("has not been found"), "{refused}");
    agent.ping(LIMIT).unwrap();
}

#[test]
fn the_guest_powers_off_when_its_agent_is_asked() {
    let home = Home::new(None, &[]);
    let machine = running(&home);
    agent(&machine).shutdown(LIMIT).unwrap();
    machine.await_exit();
}

#[test]
fn the_guest_powers_off_when_the_button_is_pressed() {
    let home = Home::new(None, &[]);
    let machine = running(&home);
    // The agent starts with the listener of the button, so when it answers that one is there.
    agent(&machine).ping(LIMIT).unwrap();
    let events = machine.monitor.events();
    machine.monitor.powerdown().unwrap();
    let seen: Vec<String> = events.iter().map(|event| event.name).collect();
    assert!(seen.iter().any(|name| name == "SHUTDOWN"), "{seen:?}");
    machine.await_exit();
}

#[test]
fn the_guest_sees_its_cable_unplugged_and_its_card_replaced() {
    let mut home = Home::new(None, &[]);
    let mut machine = running(&home);
    let carrier = |machine: &mut Instance| {
        machine.serial.type_text("\necho carr''ier $(cat /sys/class/net/eth0/carrier); exit\n");
        machine.serial.await_line("carrier ")
    };
    agent(&machine).ping(LIMIT).unwrap();
    assert_eq!(carrier(&mut machine), "1");
    machine.monitor.set_link(0, false).unwrap();
    assert_eq!(carrier(&mut machine), "0");
    assert!(machine.monitor.set_link(1, false).is_err());

    machine.monitor.replace_nic(0, "52:54:00:00:00:99", LIMIT).unwrap();
    assert_eq!(machine.serial.await_line("NET remove "), "eth0");
    let mut added = machine.serial.await_line("NET add ");
    if added.ends_with(":01") {
        added = machine.serial.await_line("NET add ");
    }
    assert_eq!(added, "eth0 52:54:00:00:00:99");
    assert_eq!(carrier(&mut machine), "1");

    machine.monitor.stop().unwrap();
    let captured = machine.capture();
    home.config.nics[0].mac = "52:54:00:00:00:99".into();
    let mut copy = Instance::start(&home, Variant { name: "copy", incoming: true, ..Variant::fresh(&home) });
    copy.fill(&captured, true);
    copy.monitor.cont().unwrap();
    copy.serial.await_line("tick ");
    assert_eq!(carrier(&mut copy), "1");
}

#[test]
fn the_stamping_guest_finds_nothing_wrong_before_and_after_a_resume() {
    let home = Home::new(Some("stamp"), &["mem=24M", "disk=4M", "mem-rate=5", "disk-rate=1"]);
    let mut machine = Instance::start(&home, Variant::fresh(&home));
    machine.monitor.cont().unwrap();
    assert_eq!(machine.serial.await_line("STAMP ready "), "memory_pages=6144 disk_pages=1024");
    machine.serial.await_line("STAMP pass=1 ");
    machine.monitor.stop().unwrap();
    let captured = machine.capture();
    drop(machine);
    let mut copy = Instance::start(&home, Variant { name: "copy", incoming: true, ..Variant::fresh(&home) });
    copy.fill(&captured, true);
    copy.monitor.cont().unwrap();
    for _ in 0..2 {
        let pass = copy.serial.await_line("STAMP ");
        assert!(pass.starts_with("pass=") && pass.contains("errors=0"), "{pass}");
    }
}

#[test]
fn the_stamping_guest_notices_a_disk_of_another_instant() {
    let home = Home::new(Some("stamp"), &["mem=4M", "disk=1M", "mem-rate=5", "disk-rate=1"]);
    let mut machine = Instance::start(&home, Variant::fresh(&home));
    machine.monitor.cont().unwrap();
    machine.serial.await_line("STAMP pass=1 ");
    machine.monitor.stop().unwrap();
    let captured = machine.capture();
    machine.monitor.cont().unwrap();
    machine.serial.await_line("STAMP pass=3 ");
    drop(machine);
    let mut copy = Instance::start(&home, Variant { name: "copy", incoming: true, ..Variant::fresh(&home) });
    copy.fill(&captured, true);
    copy.monitor.cont().unwrap();
    let error = copy.serial.await_line("STAMP ERROR ");
    assert!(error.contains("disk page=") && error.contains("a whole stamp"), "{error}");
}
