//! Numbers out of bytes. What lies beyond the end reads as 0, so that no offset can make a reader fail.

/// The `N` bytes from `at` on.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    if let Some(found) = bytes.get(at..).and_then(|rest| rest.get(..N)) {
        array.copy_from_slice(found);
    }
    array
}

/// A little-endian number of 16 bits.
pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

/// A little-endian number of 32 bits.
pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

/// A little-endian number of 64 bits.
pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// A big-endian number of 16 bits.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

/// A big-endian number of 32 bits.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

/// The `N` bytes from `at` on.
pub(crate) fn copy<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    array(bytes, at)
}
