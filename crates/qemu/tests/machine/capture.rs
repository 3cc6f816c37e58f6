//! A machine is copied, and the copy goes on where the original was.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use watari_qemu::{Error, RAM_BLOCK_MAIN, RunState, STATE_PATH};

use crate::rig::{Captured, Home, Instance, LIMIT, ORIGINAL_ID, Variant, memory_file};

const COPY_ID: [u8; 16] = *b"another machine!";

/// Linux reports free pages only while it has more than 64 MiB of them.
const ENOUGH_TO_REPORT: u64 = 256 << 20;

/// Boots, counts to ten, stops.
fn stopped_machine(home: &Home) -> (Instance, u64) {
    let mut machine = Instance::start(home, Variant::fresh(home));
    machine.monitor.cont().unwrap();
    machine.serial.await_line("tick 9");
    let tick = machine.serial.tick();
    machine.monitor.stop().unwrap();
    (machine, tick)
}

fn clone_of<'a>(
    home: &Home,
    captured: &Captured,
    name: &'a str,
    identity: &'a str,
    private: bool,
) -> Instance {
    let memory = memory_file(home.config.memory_bytes);
    if private {
        memory.write_all_at(captured.main(), 0).unwrap();
    }
    let variant = Variant { name, identity, vmgenid: COPY_ID, memory, private, incoming: true };
    let machine = Instance::start(home, variant);
    assert_eq!(machine.monitor.status().unwrap(), RunState::Incoming);
    machine.fill(captured, !private);
    assert_eq!(machine.monitor.status().unwrap(), RunState::Paused);
    machine
}

/// Whether a guid is in memory, in the byte order in which guests see it.
fn holds(memory: &[u8], guid: [u8; 16]) -> bool {
    let mut seen = guid;
    seen[..4].reverse();
    seen[4..6].reverse();
    seen[6..8].reverse();
    memory.windows(16).any(|window| window == seen)
}

#[test]
fn a_copied_machine_goes_on_counting_as_somebody_else_and_so_does_the_original() {
    let home = Home::new(None, &[]);
    let (mut original, tick) = stopped_machine(&home);
    let captured = original.capture();
    assert!(holds(captured.main(), ORIGINAL_ID) && !holds(captured.main(), COPY_ID));

    for (name, private) in [("shared", false), ("private", true)] {
        let identity = format!("name={name} original=first, epoch=2");
        let mut copy = clone_of(&home, &captured, name, &identity, private);
        assert!(holds(copy.capture().main(), COPY_ID), "the guest can see its new generation id");
        copy.monitor.cont().unwrap();
        assert_eq!(copy.serial.tick(), tick + 1);
        assert_eq!(copy.serial.await_line("IDENTITY "), identity);
    }
    original.monitor.cont().unwrap();
    assert_eq!(original.serial.tick(), tick + 1);
}

#[test]
fn a_copy_of_a_copy_of_a_copy_goes_on() {
    let home = Home::new(None, &[]);
    let (original, mut tick) = stopped_machine(&home);
    let mut captured = original.capture();
    for name in ["second", "third"] {
        let mut copy = clone_of(&home, &captured, name, "name=copy", false);
        copy.monitor.cont().unwrap();
        assert_eq!(copy.serial.tick(), tick + 1);
        tick = copy.serial.tick();
        copy.monitor.stop().unwrap();
        captured = copy.capture();
    }
}

#[test]
fn a_private_copy_never_changes_the_file_it_shares() {
    let mut home = Home::new(None, &[]);
    home.config.memory_bytes = ENOUGH_TO_REPORT;
    let (original, _) = stopped_machine(&home);
    let captured = original.capture();
    let head = memory_file(home.config.memory_bytes);
    head.write_all_at(captured.main(), 0).unwrap();
    let blocks = rustix::fs::fstat(&head).unwrap().st_blocks;
    let variant = Variant {
        name: "private",
        identity: "",
        vmgenid: COPY_ID,
        memory: head.try_clone().unwrap(),
        private: true,
        incoming: true,
    };
    let mut copy = Instance::start(&home, variant);
    copy.fill(&captured, false);
    copy.monitor.cont().unwrap();
    // The shell allocates and frees some megabytes, so that the guest reports free pages.
    copy.serial.type_text(
        "\ndd if=/dev/zero of=/tmp/x bs=1M count=60 2>/dev/null; rm /tmp/x; sleep 8; echo do''ne; exit\n",
    );
    copy.serial.await_line("done");
    copy.monitor.stop().unwrap();
    let mut now = vec![0; captured.main().len()];
    head.read_exact_at(&mut now, 0).unwrap();
    assert!(now == captured.main(), "the shared file has changed");
    assert_eq!(rustix::fs::fstat(&head).unwrap().st_blocks, blocks, "it got holes");
    assert!(
        copy.log().contains("Discarding RAM with readonly files"),
        "no page was reported: {}",
        copy.log()
    );
}

#[test]
fn freed_memory_of_a_machine_of_its_own_goes_back_to_the_host() {
    let mut home = Home::new(None, &[]);
    home.config.memory_bytes = ENOUGH_TO_REPORT;
    let memory = memory_file(home.config.memory_bytes);
    let variant = Variant { memory: memory.try_clone().unwrap(), ..Variant::fresh(&home) };
    let mut machine = Instance::start(&home, variant);
    machine.monitor.cont().unwrap();
    machine.serial.await_line("tick 10");
    let in_use = || rustix::fs::fstat(&memory).unwrap().st_blocks * 512;
    machine.serial.type_text("\ndd if=/dev/zero of=/tmp/x bs=1M count=60 2>/dev/null; echo fu''ll; read x\n");
    machine.serial.await_line("full");
    let full = in_use();
    machine.serial.type_text("\nrm /tmp/x; exit\n");
    machine.serial.await_line("tick ");
    let deadline = Instant::now() + LIMIT;
    while in_use() + 40_000_000 > full {
        assert!(Instant::now() < deadline, "{full} bytes in use, still {}", in_use());
        machine.serial.tick();
    }
}

#[test]
fn a_damaged_device_state_is_refused_with_a_reason() {
    let home = Home::new(None, &[]);
    let (original, _) = stopped_machine(&home);
    let devices = original.capture().devices;
    let variant = Variant { name: "copy", incoming: true, ..Variant::fresh(&home) };
    let copy = Instance::start(&home, variant);
    let state = home.path("state");
    std::fs::write(&state, &devices[..devices.len() / 2]).unwrap();
    let error = copy.monitor.load_devices(&state, LIMIT).unwrap_err();
    assert!(matches!(&error, Error::Incoming { detail, .. } if !detail.is_empty()), "{error}");
}

/// Prints how long the pause is; nothing is asserted about time.
#[test]
fn stop_save_and_cont_work_a_hundred_times() {
    let home = Home::new(Some("load"), &["mem-rate=10", "disk-rate=2", "mem=16M"]);
    let mut machine = Instance::start(&home, Variant::fresh(&home));
    machine.monitor.cont().unwrap();
    machine.serial.await_line("WORK ");
    let mut times: Vec<[Duration; 4]> = (0..100)
        .map(|_| {
            let begun = Instant::now();
            machine.monitor.stop().unwrap();
            let stopped = begun.elapsed();
            machine.monitor.save_devices(Path::new(STATE_PATH)).unwrap();
            let saved = begun.elapsed();
            machine.monitor.cont().unwrap();
            let continued = begun.elapsed();
            [continued, stopped, saved - stopped, continued - saved]
        })
        .collect();
    times.sort();
    let [total, stop, save, cont] = times[times.len() / 2];
    println!("stop…cont {total:?}: stop {stop:?}, save {save:?}, cont {cont:?}; worst {:?}", times[99][0]);
    machine.serial.await_line("WORK ");
    assert!(machine.monitor.ram_blocks().unwrap().iter().any(|block| block.name == RAM_BLOCK_MAIN));
}
