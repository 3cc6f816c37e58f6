//! Which kernel the demo machine boots: one of the host's own.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use crate::Error;

const BOOT: &str = "/boot";
const MODULES: &str = "/lib/modules";

/// A kernel with its modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The file to boot.
    pub image: PathBuf,
    /// Its version, as in `uname -r`.
    pub version: String,
    /// The folder with its modules and `modules.dep`.
    pub modules: PathBuf,
}

/// The kernel to boot: the newest in `/boot` whose modules are installed, one made for clouds (smaller, and
/// with every driver that a virtual machine needs) before all others.
///
/// # Errors
/// [`Error::NoKernel`] if there is none.
pub fn find_kernel() -> Result<Kernel, Error> {
    find_in(Path::new(BOOT), Path::new(MODULES))
}

fn find_in(boot: &Path, modules: &Path) -> Result<Kernel, Error> {
    let names = std::fs::read_dir(boot)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| {
            let version = name.strip_prefix("vmlinuz-")?.to_owned();
            let modules = modules.join(&version);
            let complete = modules.join("modules.dep").is_file();
            complete.then(|| Kernel { image: boot.join(&name), version, modules })
        })
        .max_by(|a, b| compare(&a.version, &b.version))
        .ok_or_else(|| Error::NoKernel { boot: boot.to_owned(), modules: modules.to_owned() })
}

fn compare(a: &str, b: &str) -> Ordering {
    let is_cloud = |version: &str| version.contains("cloud");
    is_cloud(a).cmp(&is_cloud(b)).then_with(|| numbers(a).cmp(&numbers(b))).then_with(|| a.cmp(b))
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(versions: &[&str], without_modules: &[&str]) -> Result<Kernel, Error> {
        let root = tempfile::tempdir().unwrap();
        for version in versions {
            std::fs::write(root.path().join(format!("vmlinuz-{version}")), "").unwrap();
            if !without_modules.contains(version) {
                std::fs::create_dir(root.path().join(version)).unwrap();
                std::fs::write(root.path().join(version).join("modules.dep"), "").unwrap();
            }
        }
        find_in(root.path(), root.path())
    }

    #[test]
    fn the_newest_cloud_kernel_with_modules_is_taken() {
        let versions = ["6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "6.12.1-amd64", "6.2.0-1-cloud-amd64"];
        let found = installed(&versions, &["6.2.0-1-cloud-amd64"]).unwrap();
        assert_eq!(found.version, "6.1.0-10-cloud-amd64");
        assert_eq!(installed(&versions[2..3], &[]).unwrap().version, "6.12.1-amd64");
    }

    #[test]
    fn a_host_without_kernels_is_told_which_package_to_install() {
        let error = installed(&["6.1.0"], &["6.1.0"]).unwrap_err();
        assert!(error.report().hint.contains("linux-image-cloud-amd64"), "{error}");
    }
}
