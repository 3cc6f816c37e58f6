//! Which accelerator works on this host: found by booting a kernel, once, and remembered.
//!
//! A device node is no proof that a guest runs under it, so the demo machine's kernel is booted with a time
//! limit. The answer holds until QEMU or that kernel changes. Keepers read it from `node/accel.json`. Nothing is
//! booted where the node's settings decide.

use std::fs;

use watari_demo::Kernel;
use watari_keeper::Settings;
use watari_keeper::home::Home;
use watari_keeper::protocol::Progress;
use watari_keeper::record::{load_json, save_json};

use watari_qemu::{Accel, AccelProbe, Qemu, probe_accel};

use crate::node::{Node, OnProgress, hold};
use crate::{Error, Result};

/// The accelerator to use.
pub(crate) enum Choice {
    /// A person wrote it into `node/settings.toml`.
    Set(Accel),
    /// It was found by trying.
    Found(AccelProbe),
}

impl Node {
    /// Sees to it that the accelerator is known before a keeper asks.
    pub(crate) fn ensure_accelerator(&self, qemu: &Qemu, progress: OnProgress) -> Result<Choice> {
        let _probing = hold(&self.probing);
        ensure_accelerator(&self.home, qemu, progress)
    }
}

/// The accelerator to use: as the settings say, or as remembered, or as probed now.
///
/// # Errors
/// When the settings cannot be read, there is nothing to boot the kernel with, or the answer cannot be written
/// down.
pub(crate) fn ensure_accelerator(home: &Home, qemu: &Qemu, progress: OnProgress) -> Result<Choice> {
    match Settings::load(home)?.accelerator {
        Some(accel) => Ok(Choice::Set(accel)),
        None => find_accelerator(home, qemu, progress).map(Choice::Found),
    }
}

fn find_accelerator(home: &Home, qemu: &Qemu, progress: OnProgress) -> Result<AccelProbe> {
    let file = home.node_file("accel.json");
    let kernel = watari_demo::find_kernel();
    let image = kernel.as_ref().map(|kernel| kernel.image.clone()).unwrap_or_default();
    if let Ok(known) = load_json::<AccelProbe>(&file)
        && known.qemu_version == qemu.version
        && known.kernel == image
    {
        return Ok(known);
    }
    progress(Progress { step: "finding out which accelerator works".to_owned(), done: 0, total: 0 });
    let probe = match kernel {
        Ok(kernel) => probe_with(home, qemu, &kernel)?,
        Err(missing) => AccelProbe {
            accel: Accel::Tcg,
            reason: format!("KVM cannot be tried: {missing}"),
            qemu_version: qemu.version,
            kernel: image,
        },
    };
    save_json(&file, &probe)?;
    tracing::info!(accel = %probe.accel, reason = probe.reason, "accelerator probed");
    Ok(probe)
}

fn probe_with(home: &Home, qemu: &Qemu, kernel: &Kernel) -> Result<AccelProbe> {
    let scratch = home.node_file("probe");
    fs::create_dir_all(&scratch).map_err(Error::io("create", &scratch))?;
    let initrd = scratch.join("initrd");
    let probe = watari_demo::initramfs(kernel)
        .map_err(Error::from)
        .and_then(|archive| fs::write(&initrd, archive).map_err(Error::io("write", &initrd)))
        .map(|()| probe_accel(qemu, &kernel.image, &initrd, &scratch));
    fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))?;
    probe
}
