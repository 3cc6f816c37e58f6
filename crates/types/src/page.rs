//! The unit of everything: 4 KiB of content, named by its BLAKE3 hash.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{ParseIdError, hex_id};

/// Bytes in a page. Guest memory, disks and boot files are all cut into pages of this size.
pub const PAGE_SIZE: usize = 4096;

/// One page of content.
pub type Page = [u8; PAGE_SIZE];

/// How many pages hold `bytes` bytes, the last one padded with zeros.
pub const fn pages_for(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_SIZE as u64)
}

/// Whether every byte of `bytes` is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Wide lanes first: the compiler turns the fold over a fixed-size chunk into vector code.
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|c| c.iter().fold(0, |acc, b| acc | b) == 0) && rest.iter().all(|b| *b == 0)
}

/// The BLAKE3 hash of a page's 4,096 bytes: the page's name in the store and on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageHash(pub [u8; 32]);

impl PageHash {
    /// The name of the page that is all zeros. Such a page is never stored.
    pub const ZERO_PAGE: PageHash = PageHash([
        0xB6, 0xFB, 0x73, 0xFC, 0x46, 0x93, 0x8C, 0x98, 0x1E, 0x2B, 0x0B, 0x4B, 0x1E, 0xF2, 0x82, 0xAD, 0xCF,
        0xC8, 0x98, 0x54, 0xD0, 0x1B, 0xFE, 0x39, 0x72, 0xFD, 0xC4, 0x78, 0x5B, 0x41, 0xB2, 0xC7,
    ]);

    /// Names a page by its content.
    pub fn of(page: &Page) -> PageHash {
        if is_zero(page) { Self::ZERO_PAGE } else { PageHash(*blake3::hash(page).as_bytes()) }
    }

    /// Whether this is the name of the all-zero page.
    pub fn is_zero_page(&self) -> bool {
        *self == Self::ZERO_PAGE
    }
}

hex_id!(PageHash, 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zero_page_constant_is_its_blake3_hash() {
        assert_eq!(PageHash::ZERO_PAGE.to_string(), blake3::hash(&[0; PAGE_SIZE]).to_hex().as_str());
        assert_eq!(PageHash::of(&[0; PAGE_SIZE]), PageHash::ZERO_PAGE);
    }

    #[test]
    fn a_single_set_bit_anywhere_makes_a_page_non_zero() {
        let mut page = [0; PAGE_SIZE];
        for at in [0, 1, 63, 64, 2048, PAGE_SIZE - 1] {
            page[at] = 1;
            assert!(!is_zero(&page));
            page[at] = 0;
        }
        assert!(is_zero(&page));
        assert!(is_zero(&page[..7]));
    }

    #[test]
    fn a_page_name_reads_back_from_its_text() {
        let hash = PageHash::of(&[7; PAGE_SIZE]);
        assert_eq!(hash.to_string().parse::<PageHash>().unwrap(), hash);
    }
}
