//! A real QEMU under TCG with the demo guest, and what a test needs to watch, copy and fill it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use watari_qemu::{
    Accel, BootFiles, CPU_MODEL, DEVICE_LAYOUT, Display, Launch, MemoryBacking, Monitor, QMP_SOCKET, Qemu,
    RAM_BLOCK_MAIN, RamBlock, SERIAL_SOCKET, STATE_PATH,
};
use watari_types::{Boot, DiskConfig, MachineConfig, MachineId, NicConfig, Region};

/// What nothing in these tests may take, even on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const ORIGINAL_ID: [u8; 16] = *b"the first of all";
const DISK_BYTES: u64 = 16 * MIB;

pub(crate) fn soon() -> Instant {
    Instant::now() + LIMIT
}

pub(crate) fn qemu() -> Qemu {
    Qemu::find_in(&std::env::var_os("PATH").unwrap()).unwrap()
}

/// The demo guest's kernel and initial ramdisk, packed once for all tests.
pub(crate) fn boot_files() -> (&'static Path, &'static Path) {
    static FILES: OnceLock<(PathBuf, tempfile::NamedTempFile)> = OnceLock::new();
    let (kernel, initrd) = FILES.get_or_init(|| {
        let kernel = watari_demo::find_kernel().unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &watari_demo::initramfs(&kernel).unwrap()).unwrap();
        (kernel.image, file)
    });
    (kernel, initrd.path())
}

/// A process that a test started, ended with the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder with a disk and its server: what stays while the machine's processes come and go.
pub(crate) struct Home {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) config: MachineConfig,
    _disk: Process,
}

impl Home {
    pub(crate) fn new(run: Option<&str>, args: &[&str]) -> Home {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.raw");
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        let socket = folder.path().join("nbd");
        let disk = Command::new("qemu-nbd")
            .args(["-t", "-e", "4", "-x", "0", "-f", "raw", "--discard=unmap", "-k"])
            .args([&socket, &image])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let disk = Process(disk);
        let deadline = soon();
        while !socket.exists() {
            assert!(Instant::now() < deadline, "qemu-nbd does not listen");
            std::thread::yield_now();
        }
        let bytes = |path: &Path| fs::metadata(path).unwrap().len();
        let region = |name: &str, path| Region { name: name.parse().unwrap(), bytes: bytes(path) };
        let (kernel, initrd) = boot_files();
        let config = MachineConfig {
            id: MachineId([7; 16]),
            memory_bytes: 128 * MIB,
            cpus: 1,
            machine_type: qemu().default_machine_type().unwrap(),
            cpu_model: CPU_MODEL.into(),
            device_layout: DEVICE_LAYOUT,
            boot: Boot::Kernel {
                kernel: region("boot/kernel", kernel),
                initrd: Some(region("boot/initrd", initrd)),
                append: watari_demo::append(run, args),
            },
            disks: vec![DiskConfig { bytes: DISK_BYTES }],
            nics: vec![NicConfig { mac: "52:54:00:00:00:01".into() }],
        };
        Home { folder, config, _disk: disk }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// One QEMU process of a [`Home`].
pub(crate) struct Instance {
    pub(crate) monitor: Monitor,
    pub(crate) run_dir: PathBuf,
    pub(crate) serial: Serial,
    state: File,
    process: Process,
}

/// What differs between one instance and another.
pub(crate) struct Variant<'a> {
    pub(crate) name: &'a str,
    pub(crate) identity: &'a str,
    pub(crate) vmgenid: [u8; 16],
    pub(crate) memory: File,
    pub(crate) private: bool,
    pub(crate) incoming: bool,
}

impl<'a> Variant<'a> {
    pub(crate) fn fresh(home: &Home) -> Variant<'a> {
        Variant {
            name: "first",
            identity: "name=first",
            vmgenid: ORIGINAL_ID,
            memory: memory_file(home.config.memory_bytes),
            private: false,
            incoming: false,
        }
    }
}

/// An unnamed file on tmpfs.
pub(crate) fn memory_file(bytes: u64) -> File {
    let fd = rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = File::from(fd);
    file.set_len(bytes).unwrap();
    file
}

impl Instance {
    pub(crate) fn start(home: &Home, variant: Variant<'_>) -> Instance {
        let run_dir = home.path(variant.name);
        fs::create_dir(&run_dir).unwrap();
        let state = memory_file(0);
        let (kernel, initrd) = boot_files();
        let (log, serial_log) = (run_dir.join("log"), run_dir.join("serial.log"));
        let launch = Launch {
            taps: &[],
            config: &home.config,
            name: variant.name,
            accel: Accel::Tcg,
            memory: MemoryBacking { file: variant.memory.as_fd(), private: variant.private },
            state: state.as_fd(),
            disks: &[home.path("nbd")],
            boot: Some(BootFiles { kernel, initrd: Some(initrd) }),
            run_dir: &run_dir,
            log: &log,
            serial_log: &serial_log,
            identity: variant.identity,
            vmgenid: variant.vmgenid,
            incoming: variant.incoming,
            display: Display::Vnc,
            gdb: false,
        };
        let process = Process(launch.command(&qemu().binary).unwrap().spawn().unwrap());
        let monitor = Monitor::connect(&run_dir.join(QMP_SOCKET), soon())
            .unwrap_or_else(|error| panic!("{error}: {}", fs::read_to_string(&log).unwrap()));
        let serial = Serial::connect(&run_dir.join(SERIAL_SOCKET));
        Instance { monitor, run_dir, serial, state, process }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.run_dir.join("log")).unwrap()
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn await_exit(mut self) {
        assert!(self.process.0.wait().unwrap().success(), "{}", self.log());
    }

    fn memory_of_process(&self) -> File {
        let path = format!("/proc/{}/mem", self.pid());
        File::options().read(true).write(true).open(path).unwrap()
    }

    /// All of a stopped machine: RAM blocks and device state.
    pub(crate) fn capture(&self) -> Captured {
        self.monitor.save_devices(Path::new(STATE_PATH)).unwrap();
        let mut devices = Vec::new();
        (&self.state).seek(SeekFrom::Start(0)).unwrap();
        (&self.state).read_to_end(&mut devices).unwrap();
        let memory = self.memory_of_process();
        let content = |block: &RamBlock| {
            let mut bytes = vec![0; usize::try_from(block.used).unwrap()];
            memory.read_exact_at(&mut bytes, block.host_address).unwrap();
            bytes
        };
        let blocks = self.monitor.ram_blocks().unwrap();
        Captured {
            blocks: blocks.iter().map(|block| (block.name.clone(), content(block))).collect(),
            devices,
        }
    }

    /// Makes an incoming machine the captured one. Where the main memory is mapped from a file that holds it
    /// already, it is left alone.
    pub(crate) fn fill(&self, captured: &Captured, main_too: bool) {
        let memory = self.memory_of_process();
        let blocks = self.monitor.ram_blocks().unwrap();
        let names = |blocks: Vec<&String>| {
            let mut names: Vec<String> = blocks.into_iter().cloned().collect();
            names.sort();
            names
        };
        assert_eq!(
            names(blocks.iter().map(|block| &block.name).collect()),
            names(captured.blocks.iter().map(|(name, _)| name).collect())
        );
        for (name, content) in captured.blocks.iter().filter(|(name, _)| main_too || name != RAM_BLOCK_MAIN) {
            let block = blocks.iter().find(|block| &block.name == name).unwrap();
            assert!(content.len() as u64 <= block.max, "{name}");
            for (at, page) in
                content.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|&b| b != 0))
            {
                memory.write_all_at(page, block.host_address + at as u64 * 4096).unwrap();
            }
        }
        self.state.set_len(0).unwrap();
        self.state.write_all_at(&captured.devices, 0).unwrap();
        self.monitor.load_devices(Path::new(STATE_PATH), LIMIT).unwrap();
    }
}

/// A stopped machine, copied.
pub(crate) struct Captured {
    pub(crate) blocks: Vec<(String, Vec<u8>)>,
    pub(crate) devices: Vec<u8>,
}

impl Captured {
    pub(crate) fn main(&self) -> &[u8] {
        &self.blocks.iter().find(|(name, _)| name == RAM_BLOCK_MAIN).unwrap().1
    }
}

/// The guest's serial line.
pub(crate) struct Serial {
    stream: UnixStream,
    unread: String,
    /// Everything read, for the message of a test that fails.
    seen: String,
}

impl Serial {
    fn connect(path: &Path) -> Serial {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Serial { stream, unread: String::new(), seen: String::new() }
    }

    /// The next whole line.
    pub(crate) fn line(&mut self) -> String {
        loop {
            if let Some((line, rest)) = self.unread.split_once('\n') {
                let line = line.trim().to_owned();
                self.unread = rest.to_owned();
                self.seen.push_str(&line);
                self.seen.push('\n');
                return line;
            }
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).unwrap_or_else(|e| panic!("{e}; {}", self.seen));
            assert!(count > 0, "the machine ended");
            self.unread.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    /// The rest of the next line that starts so.
    pub(crate) fn await_line(&mut self, start: &str) -> String {
        let deadline = soon();
        loop {
            if let Some(rest) = self.line().strip_prefix(start) {
                return rest.to_owned();
            }
            assert!(Instant::now() < deadline, "no {start:?} in {}", self.seen);
        }
    }

    /// The number in the next `tick N`.
    pub(crate) fn tick(&mut self) -> u64 {
        self.await_line("tick ").parse().unwrap()
    }

    pub(crate) fn type_text(&mut self, text: &str) {
        std::io::Write::write_all(&mut self.stream, text.as_bytes()).unwrap();
    }
}
