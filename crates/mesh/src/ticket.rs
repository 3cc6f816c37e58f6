//! The text that lets a node in: whom to call, by its key, and a secret that works once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, Encoding};
use thiserror::Error;
use watari_types::{MeshId, NodeId};

const PREFIX: &str = "watari";
const VERSION: &str = "1";
const MOST_CHARACTERS: usize = 2048;
const MOST_RELAY_BYTES: usize = 255;
const SUM_BYTES: usize = 4;

/// An invitation into a mesh.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Which mesh.
    pub mesh: MeshId,
    /// Who made it, and lets the bearer in.
    pub host: NodeId,
    /// Where that is.
    pub addresses: Vec<SocketAddr>,
    /// The relay it is reached through, by its URL.
    pub relay: Option<String>,
    /// What is to be shown there.
    pub secret: [u8; 16],
    /// Until when, in seconds since 1970.
    pub expires_unix_s: u64,
}

/// A text that is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadTicket {
    /// It does not look like one.
    #[error("that is no ticket: one begins with {PREFIX}{VERSION}")]
    NotOne,
    /// It is of a later version.
    #[error("the ticket was made by a newer version of Watari")]
    Newer,
    /// It does not add up.
    #[error("the ticket was not copied whole, or not right")]
    Mistyped,
}

impl Ticket {
    /// A ticket has at most so many addresses.
    pub const MOST_ADDRESSES: usize = 16;

    /// Its bytes: mesh, host, secret, expiry, a count and the addresses, a length and the relay.
    fn encode(&self) -> Vec<u8> {
        let mut bytes =
            [&self.mesh.0[..], &self.host.0, &self.secret, &self.expires_unix_s.to_le_bytes()].concat();
        let addresses = &self.addresses[..self.addresses.len().min(Ticket::MOST_ADDRESSES)];
        bytes.push(addresses.len() as u8);
        for address in addresses {
            match address.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend(ip.octets());
                }
            }
            bytes.extend(address.port().to_le_bytes());
        }
        let relay = self.relay.as_deref().filter(|relay| relay.len() <= MOST_RELAY_BYTES).unwrap_or_default();
        bytes.push(relay.len() as u8);
        bytes.extend(relay.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Ticket> {
        let mut rest = bytes;
        let mesh = MeshId(take(&mut rest)?);
        let (host, secret) = (NodeId(take(&mut rest)?), take(&mut rest)?);
        let expires_unix_s = u64::from_le_bytes(take(&mut rest)?);
        let [count] = take(&mut rest)?;
        let address = |rest: &mut &[u8]| {
            let ip = match take(rest)? {
                [4] => IpAddr::from(take::<4>(rest)?),
                [6] => IpAddr::from(take::<16>(rest)?),
                _ => return None,
            };
            Some(SocketAddr::new(ip, u16::from_le_bytes(take(rest)?)))
        };
        let is_fine = usize::from(count) <= Ticket::MOST_ADDRESSES;
        let addresses =
            (0..count).map(|_| address(&mut rest)).collect::<Option<Vec<_>>>().filter(|_| is_fine)?;
        let [relay_bytes] = take(&mut rest)?;
        let relay = std::str::from_utf8(rest).ok().filter(|relay| relay.len() == usize::from(relay_bytes))?;
        let relay = (!relay.is_empty()).then(|| relay.to_owned());
        Some(Ticket { mesh, host, addresses, relay, secret, expires_unix_s })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn sum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    let [a, b, c, d, ..] = *blake3::hash(bytes).as_bytes();
    [a, b, c, d]
}

const LETTERS: &Encoding = &BASE32_NOPAD;

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.encode();
        bytes.extend(sum(&bytes));
        write!(f, "{PREFIX}{VERSION}{}", LETTERS.encode(&bytes).to_ascii_lowercase())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({} by {}, secret)", self.mesh, self.host)
    }
}

impl FromStr for Ticket {
    type Err = BadTicket;

    fn from_str(text: &str) -> Result<Self, BadTicket> {
        let text = text.trim().to_ascii_lowercase();
        if text.len() > MOST_CHARACTERS {
            return Err(BadTicket::NotOne);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(BadTicket::NotOne)?;
        let Some(letters) = rest.strip_prefix(VERSION) else {
            let is_later = rest.starts_with(|c: char| ('2'..='9').contains(&c));
            return Err(if is_later { BadTicket::Newer } else { BadTicket::NotOne });
        };
        let bytes =
            LETTERS.decode(letters.to_ascii_uppercase().as_bytes()).map_err(|_| BadTicket::Mistyped)?;
        let (bytes, found) = bytes.split_last_chunk().ok_or(BadTicket::Mistyped)?;
        Some(bytes).filter(|bytes| sum(bytes) == *found).and_then(Ticket::decode).ok_or(BadTicket::Mistyped)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            mesh: MeshId([1; 16]),
            host: NodeId([2; 32]),
            addresses: vec!["10.0.0.1:4917".parse().unwrap(), "[fe80::1]:9".parse().unwrap()],
            relay: Some("https://relay.example.org".to_owned()),
            secret: [3; 16],
            expires_unix_s: 1_800_000_000,
        }
    }

    #[test]
    fn a_ticket_stays_what_it_is_and_hides_its_secret() {
        let text = ticket().to_string();
        assert_eq!(text.parse(), Ok(ticket()));
        assert_eq!(format!("  {}\n", text.to_uppercase()).parse(), Ok(ticket()));
        let plain = Ticket { addresses: vec![], relay: None, ..ticket() };
        assert_eq!(
            plain.to_string(),
            "watari1aeaqcaibaeaqcaibaeaqcaibaebaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaydambqgay\
             dambqgaydambqgaya2jewwaaaaaaaaad3yatv2"
        );
        assert!(!format!("{:?}", ticket()).contains("03"));
    }

    #[test]
    fn every_character_counts() {
        let text = ticket().to_string();
        for at in 0..text.len() {
            for other in ["a", "7", "!"].iter().filter(|other| text[at..=at] != ***other) {
                let mistyped = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                assert_ne!(mistyped.parse(), Ok(ticket()), "{at}");
                assert!(mistyped.parse::<Ticket>().is_err(), "{at}");
            }
            assert!(text[..at].parse::<Ticket>().is_err());
        }
        assert_eq!("watari2abc".parse::<Ticket>(), Err(BadTicket::Newer));
        assert_eq!("hello".parse::<Ticket>(), Err(BadTicket::NotOne));
    }

    proptest! {
        #[test]
        fn any_text_is_a_ticket_or_refused(text in "(watari1)?[a-z2-7]{0,300}", any in any::<String>()) {
            for text in [text, any] {
                if let Ok(ticket) = text.parse::<Ticket>() {
                    prop_assert_eq!(ticket.to_string(), text.trim().to_lowercase());
                }
            }
        }

        #[test]
        fn any_bytes_are_decoded_to_what_they_are(bytes in prop::collection::vec(any::<u8>(), 70..140)) {
            if let Some(ticket) = Ticket::decode(&bytes) {
                prop_assert_eq!(ticket.encode(), bytes);
            }
        }
    }
}
