//! Network namespaces, which are gone with the test.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::programs::run;

/// `ip` with these arguments, which must succeed.
pub fn ip(arguments: &str) {
    run("ip", arguments.split_whitespace());
}

/// The namespaces of a test, by what it calls them.
#[derive(Default)]
pub struct Spaces(BTreeMap<String, String>);

impl Spaces {
    /// Makes one; what it is called in this system.
    pub fn add(&mut self, name: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let full = format!("watari-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        ip(&format!("netns add {full}"));
        self.0.insert(name.to_owned(), full.clone());
        ip(&format!("-n {full} link set lo up"));
        full
    }

    /// What one is called in this system.
    pub fn get(&self, name: &str) -> &str {
        &self.0[name]
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in self.0.values() {
            let _ = Command::new("ip").args(["netns", "del", space]).output();
        }
    }
}
