//! Compiles the program that runs inside the demo machine: static, and small.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=guest");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("watari-guest");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let status = Command::new(rustc)
        .args(["--edition", "2024", "--crate-name", "watari_guest", "guest/main.rs", "-o"])
        .arg(&out)
        .args(["-C", "target-feature=+crt-static", "-C", "opt-level=2"])
        .args(["-C", "panic=abort", "-C", "strip=symbols", "-D", "warnings"])
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("rustc ended with {status}")),
        Err(error) => fail(&format!("rustc cannot be run: {error}")),
    }
}

/// A build script speaks to cargo on its standard output and to people on the other one.
#[allow(clippy::print_stderr)]
fn fail(reason: &str) -> ! {
    eprintln!("the demo machine's program cannot be built: {reason}");
    std::process::exit(1)
}
