//! A monitor that hangs, dies or talks nonsense.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use watari_qemu::{Accel, Error, Monitor, probe_accel};

use crate::rig::{Home, Instance, Variant, boot_files, qemu};

#[test]
fn a_stopped_process_costs_a_command_its_time_limit_and_no_more() {
    let home = Home::new(None, &[]);
    let machine = Instance::start(&home, Variant::fresh(&home));
    let pid = Pid::from_raw(machine.pid().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let error = machine.monitor.execute("query-status", json!({}), Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    kill_process(pid, Signal::CONT).unwrap();
    machine.monitor.status().unwrap();
}

#[test]
fn a_process_that_is_killed_ends_its_events_and_refuses_commands() {
    let home = Home::new(None, &[]);
    let machine = Instance::start(&home, Variant::fresh(&home));
    let events = machine.monitor.events();
    let pid = Pid::from_raw(machine.pid().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(events.iter().count(), 0);
    assert!(matches!(machine.monitor.cont(), Err(Error::Closed { .. })));
    assert_eq!(machine.monitor.events().iter().count(), 0);
}

#[test]
fn answers_find_whoever_asked_also_with_many_threads() {
    let home = Home::new(None, &[]);
    let machine = Instance::start(&home, Variant::fresh(&home));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert!(machine.monitor.ram_blocks().unwrap().len() > 3);
                    assert!(machine.monitor.execute("no-such-thing", json!({}), crate::rig::LIMIT).is_err());
                }
            });
        }
    });
}

/// A server that sends these bytes to its one client, waits for a line if asked to, and hangs up.
fn connect_to(bytes: &'static [u8], then: &'static [u8]) -> Result<Monitor, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qmp");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(then);
    });
    let monitor = Monitor::connect(&path, Instant::now() + Duration::from_secs(10));
    server.join().unwrap();
    monitor
}

#[test]
fn nonsense_from_a_monitor_is_an_error_and_nothing_worse() {
    const GREETING: &[u8] =
        b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}}, \"capabilities\": []}}\n";
    let refused: [(&[u8], &[u8]); 8] = [
        (b"", b""),
        (b"\n", b""),
        (b"hello\n", b""),
        (b"{}\n", b""),
        (b"{\"QMP\": {\"version\": {\"qemu\": {\"major\": -1}}}}\n", b""),
        (b"\xff\xfe\x00", b""),
        (GREETING, b"[[[[[[[[\n"),
        (GREETING, b"{\"error\": 7, \"id\": 1}\n"),
    ];
    for (bytes, then) in refused {
        let outcome = connect_to(bytes, then);
        assert!(outcome.is_err(), "{:?} {:?}", String::from_utf8_lossy(bytes), String::from_utf8_lossy(then));
    }
    let strange_but_fine =
        b"{\"event\": 5}\n7\n{\"return\": 1, \"id\": \"x\"}\n{\"event\": \"E\"}\n{\"return\": {}, \"id\": 1}\n";
    let monitor = connect_to(GREETING, strange_but_fine).unwrap();
    assert_eq!(monitor.version().to_string(), "10.0.2");
}

#[test]
fn a_socket_that_never_appears_is_waited_for_until_the_deadline() {
    let nowhere = std::path::Path::new("/nonexistent/qmp");
    let error = Monitor::connect(nowhere, Instant::now() + Duration::from_millis(10)).err().unwrap();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}

#[test]
fn the_probe_says_which_accelerator_works_and_why() {
    let (kernel, initrd) = boot_files();
    let scratch = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let probe = probe_accel(&qemu(), kernel, initrd, scratch.path());
    println!("{} after {:?}: {}", probe.accel, begun.elapsed(), probe.reason);
    assert!(!probe.reason.is_empty());
    let text = serde_json::to_string(&probe).unwrap();
    assert_eq!(serde_json::from_str::<watari_qemu::AccelProbe>(&text).unwrap(), probe);
    assert!(probe.accel == Accel::Tcg || probe.reason.contains("booted under KVM in"), "{}", probe.reason);
}
