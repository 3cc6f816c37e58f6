//! The program inside the demo machine. Standard library only; one of
//!
//! ```text
//! watari-guest counter                    counts on the serial line, the screen and the disk
//! watari-guest stamp   [key=value …]      stamps its memory and disk and checks all stamps, for ever
//! watari-guest load    [key=value …]      dirties memory and disk at given rates and counts beside it
//! watari-guest agent                      answers QEMU's guest agent protocol
//! watari-guest power                      powers off when the power button is pressed
//! watari-guest identity                   prints who the machine is
//! ```

mod agent;
mod counter;
mod disk;
mod identity;
mod json;
mod load;
mod options;
mod pace;
mod page;
mod power;
mod stamp;

use std::process::ExitCode;

use options::Options;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let outcome = Options::parse(arguments).and_then(|options| match what.as_str() {
        "counter" => counter::run(),
        "stamp" => stamp::run(&options),
        "load" => load::run(&options),
        "agent" => agent::run(),
        "power" => power::run(),
        "identity" => {
            println!("{}", identity::read().unwrap_or_default());
            Ok(())
        }
        other => Err(format!("{other:?}: expected counter, stamp, load, agent, power or identity")),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("watari-guest {what}: {reason}");
            ExitCode::FAILURE
        }
    }
}
