//! The drivers of the demo machine, in the order in which they must be loaded.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use crate::{Error, Kernel};

/// What the machine cannot do without, and what makes it nicer.
const NEEDED: [&str; 3] = ["virtio_pci", "virtio_blk", "virtio_console"];
const WELCOME: [&str; 6] = ["virtio_net", "virtio_balloon", "virtio-rng", "qemu_fw_cfg", "button", "evdev"];
/// Only some kernels have it as a module, others have it built in or not at all.
const VMGENID: &str = "vmgenid";

/// One kernel module, unpacked.
pub(crate) struct Module {
    /// The name of its file, ending in `.ko`.
    pub(crate) file: String,
    /// What the kernel loads.
    pub(crate) bytes: Vec<u8>,
}

/// All modules the demo machine loads, each after those it depends on.
pub(crate) fn load_order(kernel: &Kernel) -> Result<Vec<Module>, Error> {
    let dependencies = Dependencies::read(&kernel.modules.join("modules.dep"))?;
    let built_in = read_text(&kernel.modules.join("modules.builtin")).unwrap_or_default();
    let mut order: Vec<String> = Vec::new();
    for name in NEEDED {
        let built_in = built_in.lines().any(|path| stem(path) == canonical(name));
        if !dependencies.add(name, &mut order) && !built_in {
            return Err(Error::NoModule { version: kernel.version.clone(), module: name });
        }
    }
    for name in WELCOME.into_iter().chain([VMGENID]) {
        dependencies.add(name, &mut order);
    }
    order.iter().map(|path| read_module(&kernel.modules.join(path))).collect()
}

/// `modules.dep`: for each module's path the paths of all it needs, the last to be loaded first.
struct Dependencies {
    by_name: HashMap<String, Vec<String>>,
}

impl Dependencies {
    fn read(path: &Path) -> Result<Self, Error> {
        Ok(Self::parse(&read_text(path)?))
    }

    fn parse(text: &str) -> Self {
        let by_name = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, needs)| {
                let needs = needs.split_whitespace().rev().map(str::to_owned);
                (stem(path), needs.chain([path.to_owned()]).collect())
            })
            .collect();
        Dependencies { by_name }
    }

    /// Appends the module and what it needs, as far as it is not there yet. Says whether there is such a module.
    fn add(&self, name: &str, order: &mut Vec<String>) -> bool {
        let Some(chain) = self.by_name.get(&canonical(name)) else { return false };
        for path in chain {
            if !order.contains(path) {
                order.push(path.clone());
            }
        }
        true
    }
}

/// The kernel takes `-` and `_` in a module's name for the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn stem(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    canonical(file.split(".ko").next().unwrap_or(file))
}

fn read_module(path: &Path) -> Result<Module, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let unpacked = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => liblzma::read::XzDecoder::new(file).read_to_end(&mut bytes),
        Some("zst") => zstd::Decoder::new(file).and_then(|mut decoder| decoder.read_to_end(&mut bytes)),
        Some("gz") => flate2::read::GzDecoder::new(file).read_to_end(&mut bytes),
        _ => std::io::BufReader::new(file).read_to_end(&mut bytes),
    };
    unpacked.map_err(failed)?;
    let file = format!("{}.ko", stem(&path.to_string_lossy()));
    Ok(Module { file, bytes })
}

fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_comes_after_those_it_needs_and_only_once() {
        let dependencies = Dependencies::parse(
            "k/virtio_blk.ko.xz: k/virtio.ko.xz k/virtio_ring.ko.xz\n\
             k/virtio-rng.ko.xz: k/virtio.ko.xz k/virtio_ring.ko.xz\n\
             k/virtio_ring.ko.xz:\nk/virtio.ko.xz: k/virtio_ring.ko.xz\n",
        );
        let mut order = Vec::new();
        assert!(dependencies.add("virtio_blk", &mut order) && dependencies.add("virtio_rng", &mut order));
        assert!(!dependencies.add("floppy", &mut order));
        let names: Vec<String> = order.iter().map(|path| stem(path)).collect();
        assert_eq!(names, ["virtio_ring", "virtio", "virtio_blk", "virtio_rng"]);
    }

    #[test]
    fn modules_are_unpacked_whatever_their_distribution_packs_them_with() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let content = b"\x7fELF module".repeat(100);
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&content).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(&content).unwrap();
        let packed = [
            ("a.ko", content.clone()),
            ("a.ko.xz", xz.finish().unwrap()),
            ("a.ko.gz", gz.finish().unwrap()),
            ("a.ko.zst", zstd::encode_all(&content[..], 3).unwrap()),
        ];
        for (name, bytes) in packed {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let module = read_module(&path).unwrap();
            assert_eq!((module.file.as_str(), &module.bytes), ("a.ko", &content), "{name}");
        }
        std::fs::write(folder.path().join("b.ko.xz"), b"not xz").unwrap();
        assert!(matches!(read_module(&folder.path().join("b.ko.xz")), Err(Error::Read { .. })));
    }
}
