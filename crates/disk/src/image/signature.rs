//! What the beginning of a raw disk looks like.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use watari_types::is_zero;

use crate::Error;
use crate::medium::Medium;
use crate::raw::RawFile;

/// Enough to see all signatures below.
const HEAD: usize = 0x1_0048;

/// What disks and file systems have at which offset.
const SIGNATURES: &[(usize, &[u8])] = &[
    (510, b"\x55\xaa"),          // partition table (MBR, and GPT's protective one), FAT, NTFS
    (512, b"EFI PART"),          // GPT, 512-byte sectors
    (4096, b"EFI PART"),         // GPT, 4096-byte sectors
    (1080, b"\x53\xef"),         // ext2, ext3, ext4
    (0, b"XFSB"),                // XFS
    (0x1_0040, b"_BHRfS_M"),     // btrfs
    (1024, b"\x10\x20\xf5\xf2"), // F2FS
    (0, b"hsqs"),                // squashfs
    (1024, b"\xe2\xe1\xf5\xe0"), // EROFS
    (0x8001, b"CD001"),          // ISO 9660
    (0, b"LUKS\xba\xbe"),        // LUKS
    (0, b"LABELONE"),            // LVM: in one of the first four sectors
    (512, b"LABELONE"),
    (1024, b"LABELONE"),
    (1536, b"LABELONE"),
    (4086, b"SWAPSPACE2"), // swap
];

/// Kernels of x86 carry a boot sector's signature and are no disks.
const KERNEL: (usize, &[u8]) = (0x202, b"HdrS");

/// Accepts a file that can be a raw disk image.
pub(super) fn check_raw(path: &Path) -> Result<(), Error> {
    let not_an_image = |why: &str| Error::NotAnImage { path: path.to_owned(), why: why.to_owned() };
    let file = File::open(path).map_err(Error::io("open", path))?;
    let len = file.metadata().map_err(Error::io("examine", path))?.len();
    if len == 0 || !len.is_multiple_of(512) {
        return Err(not_an_image("it is neither qcow2 nor a multiple of 512 bytes long"));
    }
    let mut head = vec![0; HEAD.min(len as usize)];
    file.read_exact_at(&mut head, 0).map_err(Error::io("read", path))?;
    let has = |(at, magic): &(usize, &[u8])| head.get(*at..*at + magic.len()) == Some(*magic);
    if has(&KERNEL) {
        return Err(not_an_image("it is a Linux kernel"));
    }
    if SIGNATURES.iter().any(has) || all_zero(file, len).map_err(Error::io("read", path))? {
        return Ok(());
    }
    Err(not_an_image("it is not qcow2, and has no partition table or file system that Watari knows"))
}

fn all_zero(file: File, len: u64) -> std::io::Result<bool> {
    let raw = RawFile::from(file);
    let mut buffer = vec![0; 1 << 20];
    for data in (&raw as &dyn Medium).data(0..len) {
        let data = data?;
        let mut at = data.start;
        while at < data.end {
            let part = &mut buffer[..(data.end - at).min(1 << 20) as usize];
            raw.read(at, part)?;
            if !is_zero(part) {
                return Ok(false);
            }
            at += part.len() as u64;
        }
    }
    Ok(true)
}
