//! How everything in the store is compressed.

use std::io;

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// Higher levels cost more time than the space they save is worth while a guest waits for its next capture.
const ZSTD_LEVEL: i32 = 3;

/// A compressor whose frames carry a checksum of their content.
pub(crate) fn compressor() -> io::Result<Compressor<'static>> {
    let mut zstd = Compressor::new(ZSTD_LEVEL)?;
    zstd.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(zstd)
}
