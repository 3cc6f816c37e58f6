//! What can be served.

use std::io;
use std::sync::Arc;

use crate::engine::{Engine, pages_touched};
use crate::extents::Extents;
use crate::{Disk, Extent, Source, Zeroes};

/// A block device to serve. The server has checked that requests lie within [`size`](Export::size) and that
/// none but reads reach a device that is [`read_only`](Export::read_only).
///
/// An [`io::Error`] is told to the client as the errno that fits it best.
pub trait Export: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;
    /// Whether it refuses every change.
    fn read_only(&self) -> bool;
    /// Whether these bytes can be read, or written, without waiting for what is elsewhere. They may lie beyond the end.
    fn is_at_hand(&self, offset: u64, len: u64, to_write: bool) -> bool;
    /// Fills `into` from `offset` on.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes; with `fua` it is on the medium afterwards.
    fn write(&self, offset: u64, data: &[u8], fua: bool) -> io::Result<()>;
    /// Everything acknowledged so far is on the medium afterwards.
    fn flush(&self) -> io::Result<()>;
    /// Gives space back; what the bytes are afterwards is up to the device.
    fn trim(&self, offset: u64, len: u64, fua: bool) -> io::Result<()>;
    /// Makes bytes zero; [`io::ErrorKind::Unsupported`] if it was to be `only_if_fast` and is not.
    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        how: Zeroes,
        only_if_fast: bool,
        fua: bool,
    ) -> io::Result<()>;
    /// What the bytes from `offset` on are: at least one extent, at most `len` bytes in all, possibly less.
    fn extents(&self, offset: u64, len: u64) -> io::Result<Vec<Extent>>;
    /// The client is going to read these bytes.
    fn cache(&self, offset: u64, len: u64) -> io::Result<()>;
}

impl Export for Disk {
    fn size(&self) -> u64 {
        self.bytes()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn is_at_hand(&self, offset: u64, len: u64, to_write: bool) -> bool {
        self.engine().is_at_hand(offset, len, to_write)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, into)
    }

    fn write(&self, offset: u64, data: &[u8], fua: bool) -> io::Result<()> {
        self.write_at(offset, data)?;
        if fua { self.flush() } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        Disk::flush(self)
    }

    fn trim(&self, offset: u64, len: u64, fua: bool) -> io::Result<()> {
        Disk::trim(self, offset, len)?;
        if fua { self.flush() } else { Ok(()) }
    }

    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        how: Zeroes,
        only_if_fast: bool,
        fua: bool,
    ) -> io::Result<()> {
        self.engine().admit(offset, len)?;
        self.engine().zero(offset..offset + len, how, only_if_fast)?;
        if fua { self.flush() } else { Ok(()) }
    }

    fn extents(&self, offset: u64, len: u64) -> io::Result<Vec<Extent>> {
        self.engine().admit(offset, len)?;
        self.engine().extents(offset..offset + len)
    }

    /// Brings absent pages from the source.
    fn cache(&self, offset: u64, len: u64) -> io::Result<()> {
        self.engine().admit(offset, len)?;
        self.engine().hydrate(pages_touched(offset..offset + len), |_| false).map(drop)
    }
}

/// A source served as it is, for looking into a snapshot's disk.
pub struct ReadOnly {
    source: Arc<dyn Source>,
    bytes: u64,
}

impl ReadOnly {
    /// Serves the first `bytes` bytes of `source`.
    pub fn new(source: Arc<dyn Source>, bytes: u64) -> ReadOnly {
        ReadOnly { source, bytes }
    }
}

fn refused() -> io::Error {
    rustix::io::Errno::PERM.into()
}

impl Export for ReadOnly {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_only(&self) -> bool {
        true
    }

    fn is_at_hand(&self, _offset: u64, _len: u64, _to_write: bool) -> bool {
        false
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        Engine::read_source(&*self.source, offset, into)
    }

    fn write(&self, _offset: u64, _data: &[u8], _fua: bool) -> io::Result<()> {
        Err(refused())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn trim(&self, _offset: u64, _len: u64, _fua: bool) -> io::Result<()> {
        Err(refused())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: Zeroes, _: bool, _: bool) -> io::Result<()> {
        Err(refused())
    }

    fn extents(&self, offset: u64, len: u64) -> io::Result<Vec<Extent>> {
        let mut extents = Extents::new(offset..offset + len);
        // Whether that was all of it or as much as fits, the client asks on from there.
        let _ = extents.tell_source(&*self.source, pages_touched(offset..offset + len));
        Ok(extents.into_vec())
    }

    fn cache(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}
