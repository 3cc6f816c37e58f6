//! `watari doctor`

use std::fs;

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

#[test]
fn an_accelerator_that_a_person_set_is_not_tried() {
    for (setting, status) in [("tcg", "degraded"), ("kvm", "ok")] {
        let bench = Bench::new();
        let node = bench.home().join("node");
        fs::create_dir_all(&node).unwrap();
        fs::write(node.join("settings.toml"), format!("accelerator = \"{setting}\"\n")).unwrap();
        let found: serde_json::Value = serde_json::from_str(&bench.json("doctor").stdout).unwrap();
        let checks = found["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "accelerator").unwrap();
        let detail = check["detail"].as_str().unwrap();
        assert!(detail.starts_with(setting) && detail.contains("settings.toml decides"), "{check}");
        assert_eq!(check["status"], status, "{check}");
        assert!(!node.join("accel.json").exists(), "it was tried nevertheless");
    }
}
