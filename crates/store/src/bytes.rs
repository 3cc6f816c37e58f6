//! Taking numbers off the front of a slice that may be too short.

use crate::error::Defect;

/// The rest of some bytes that are being parsed.
pub(crate) struct Parser<'a>(pub(crate) &'a [u8]);

impl<'a> Parser<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Defect> {
        let (front, rest) = self.0.split_first_chunk().ok_or_else(|| Defect::new("it ends early"))?;
        self.0 = rest;
        Ok(*front)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Defect> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Defect> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn slice(&mut self, bytes: u64) -> Result<&'a [u8], Defect> {
        let taken = usize::try_from(bytes).ok().and_then(|bytes| self.0.split_at_checked(bytes));
        let (front, rest) = taken.ok_or_else(|| Defect::new("it ends early"))?;
        self.0 = rest;
        Ok(front)
    }
}
