//! `watari doctor`

use crate::common::Bench;

#[test]
fn a_host_without_qemu_is_broken_and_told_what_to_install() {
    let nothing = tempfile::tempdir().unwrap();
    let bench = Bench::new();
    let output = bench.command(["doctor", "--json"]).env("PATH", nothing.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = found["checks"].as_array().unwrap();
    for check in checks {
        let status = check["status"].as_str().unwrap();
        assert!(["ok", "degraded", "broken"].contains(&status), "{check}");
        assert_eq!(check["fix"].as_str().unwrap().is_empty(), status == "ok", "{check}");
        assert!(!check["detail"].as_str().unwrap().is_empty(), "{check}");
    }
    let status = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap()["status"].clone();
    assert_eq!(status("qemu"), "broken");
    assert_eq!(status("qemu-img"), "degraded");
    assert_eq!(status("shared-memory"), "ok");
}
