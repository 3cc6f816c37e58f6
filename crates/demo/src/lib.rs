//! The built-in demo machine: the host's kernel, busybox and one program go in, a kernel, an initial ramdisk
//! and a command line come out.
//!
//! The program ([`guest/main.rs`](../guest/main.rs)) counts visibly, stamps and checks its own memory and disk,
//! makes load for benchmarks, and is a small guest agent. Which of these a machine does is said on its kernel
//! command line ([`append`]). The same files and the same kernel give the same bytes, so a demo machine's boot
//! regions are kept once, however many there are.

mod archive;
mod error;
mod initramfs;
mod kernel;
mod modules;

pub use error::Error;
pub use initramfs::initramfs;
pub use kernel::{Kernel, find_kernel};

/// The kernel command line of a demo machine that does `run` (`counter` if nothing is said, `stamp` or `load`)
/// with arguments such as `mem=64M`, `disk-rate=5`. Arguments must not contain blanks or commas.
pub fn append(run: Option<&str>, args: &[&str]) -> String {
    let mut line = String::from("console=tty0 console=ttyS0 quiet panic=-1");
    if let Some(run) = run {
        line.push_str(&format!(" watari.run={run}"));
    }
    if !args.is_empty() {
        line.push_str(&format!(" watari.args={}", args.join(",")));
    }
    line
}
