//! The tickets that are out: each lets one node in, once, until it expires.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// More are not out at a time.
const MOST: usize = 256;

/// Which tickets are out. What they say is not in it: who reads this file cannot make one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Invitations {
    /// When each expires, in seconds since 1970, by the BLAKE3 hash of its secret. What is looked up is the hash, so how long
    /// that takes says nothing of secrets.
    open: BTreeMap<String, u64>,
}

/// Why a ticket lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It never was, or was used, or has been forgotten.
    #[error("it was used already, or never made")]
    Unknown,
    /// It is too late.
    #[error("it has expired")]
    Expired,
}

/// Too many tickets are out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{MOST} tickets are out already; wait until some expire")]
pub struct TooMany;

fn name_of(secret: &[u8; 16]) -> String {
    blake3::hash(secret).to_hex().to_string()
}

impl Invitations {
    /// One more, until then. Times are in seconds since 1970.
    ///
    /// # Errors
    /// There are too many.
    pub fn open(&mut self, secret: &[u8; 16], expires: u64, now: u64) -> Result<(), TooMany> {
        self.open.retain(|_, expires| *expires > now);
        if self.open.len() >= MOST {
            return Err(TooMany);
        }
        self.open.insert(name_of(secret), expires);
        Ok(())
    }

    /// Uses one up.
    ///
    /// # Errors
    /// It lets nobody in. An expired one is forgotten.
    pub fn take(&mut self, secret: &[u8; 16], now: u64) -> Result<(), Refusal> {
        match self.open.remove(&name_of(secret)) {
            None => Err(Refusal::Unknown),
            Some(expires) if expires <= now => Err(Refusal::Expired),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_works_once_and_until_it_expires() {
        let mut invitations = Invitations::default();
        invitations.open(&[1; 16], 100, 0).unwrap();
        invitations.open(&[2; 16], 50, 0).unwrap();
        assert_eq!(invitations.take(&[3; 16], 10), Err(Refusal::Unknown));
        assert_eq!(invitations.take(&[1; 16], 99), Ok(()));
        assert_eq!(invitations.take(&[1; 16], 99), Err(Refusal::Unknown));
        assert_eq!(invitations.take(&[2; 16], 50), Err(Refusal::Expired));
        let kept = serde_json::to_string(&invitations).unwrap();
        assert!(!kept.contains(&hex::encode([1; 16])));
    }

    #[test]
    fn expired_ones_make_room() {
        let mut invitations = Invitations::default();
        for number in 0..MOST as u32 {
            let mut secret = [0; 16];
            secret[..4].copy_from_slice(&number.to_le_bytes());
            invitations.open(&secret, 10, 0).unwrap();
        }
        assert_eq!(invitations.open(&[9; 16], 20, 5), Err(TooMany));
        assert_eq!(invitations.open(&[9; 16], 20, 10), Ok(()));
    }
}
