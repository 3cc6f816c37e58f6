//! A guest that one can log into, and download from: the demo, with a server for SSH and one for HTTP.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::BRIDGE;
use crate::lab::programs::{program, run};
use crate::lab::{Lab, text};

/// Where its web server has numbers, one a line, without end.
pub const LINES: &str = "/cgi-bin/lines";

const SSH_SERVER: &str = "/usr/sbin/dropbear";
/// Also goes on with the demo's own.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox httpd -p 80 -h /www
/usr/sbin/dropbear -R -s
exec /init
";
const NUMBERS: &str = "#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
exec seq 1000000000
";

/// What opens it.
pub struct Key {
    folder: TempDir,
}

impl Key {
    fn new() -> Key {
        let key = Key { folder: tempfile::tempdir().unwrap() };
        run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", path(&key.file())]);
        key
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("key")
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Creates it, with what the demo is to do.
pub fn create(lab: &Lab, name: &str, what: &str) -> Key {
    let key = Key::new();
    lab.ok(&["create", "boot", "--demo"]);
    let boot = lab.home().join("machines/boot/boot");
    let initrd = key.folder.path().join("initrd");
    let mut archive = servers(&key);
    archive.extend(fs::read(boot.join("initrd")).unwrap());
    fs::write(&initrd, archive).unwrap();
    let append = format!("console=ttyS0 quiet rdinit=/with-servers {what}");
    let kernel = boot.join("kernel");
    let boot = ["--kernel", path(&kernel), "--initrd", path(&initrd), "--append", &append];
    lab.ok(&[&["create", name, "--memory", "128M", "--disk", "16M", "--bridge", BRIDGE], &boot[..]].concat());
    key
}

/// An archive with the servers, and all they need, that a kernel unpacks before the next one.
fn servers(key: &Key) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, mode: u32, content: &[u8]| {
        let path = folder.path().join(name.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    file("with-servers", 0o755, INIT.as_bytes());
    file("bin/busybox", 0o755, &fs::read("/bin/busybox").unwrap());
    file(&format!("www{LINES}"), 0o755, NUMBERS.as_bytes());
    file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    file("root/.ssh/authorized_keys", 0o600, &fs::read(key.file().with_extension("pub")).unwrap());
    file("etc/dropbear/none", 0o600, b"");
    let libraries = run("ldd", [SSH_SERVER]);
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for program in libraries.chain([SSH_SERVER]) {
        file(program, 0o755, &fs::read(program).unwrap());
    }
    let script =
        "cd \"$1\" && chmod 700 root root/.ssh && find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0";
    let archive = program("sh", ["-c", script, "sh", path(folder.path())]).output().unwrap();
    assert!(archive.status.success(), "{}", text(&archive.stderr));
    archive.stdout
}
