//! Whole machines: real QEMU processes under TCG with the demo guest.

mod rig;

use rig::{Home, Instance, Variant};

#[test]
fn the_demo_guest_boots_to_its_first_tick_and_knows_who_it_is() {
    let home = Home::new(None, &[]);
    let t = std::time::Instant::now();
    let mut machine = Instance::start(&home, Variant::fresh(&home));
    eprintln!("spawned {:?}", t.elapsed());
    machine.monitor.cont().unwrap();
    machine.serial.await_line("tick 1");
    eprintln!("tick {:?}", t.elapsed());
    assert_eq!(machine.serial.await_line("IDENTITY "), "name=first");
    machine.serial.await_line("tick 50");
}
