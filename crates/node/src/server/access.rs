//! Who may do what over the web page's port, and how they prove it.
//!
//! Every user of the computer can reach 127.0.0.1, and so can every page in a browser. A token keeps both out: whoever opens the
//! address that holds it gets it as a cookie, which no script can read and no other site's page makes the browser send. What other
//! sites can still do, once their name leads to 127.0.0.1, or with a WebSocket, is refused by the names that browsers send along.
//!
//! | token | lets |
//! | --- | --- |
//! | the node's, 64 hex digits in `node/web-token` | do everything |
//! | `MACHINE-HASH`: the machine's id, and a hash of that and the node's token | watch that machine's screen |
//!
//! Removing `node/web-token` and starting the daemon again makes all of them worthless.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use watari_types::MachineId;

use crate::create::fill_random;
use crate::node::hold;
use crate::{Error, Result};

/// So many wrong tokens in [`WINDOW`] are answered each, all others at once with [`Denied::TooMany`].
const MOST_WRONG: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// What a hash is for is a part of it.
const VIEW_ONLY: &str = "org.watari 2026 view-only";

/// What somebody may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything, and know the node's token: whoever can open the unix socket.
    Owner,
    /// Everything: who has the node's token.
    Person,
    /// Watch these machines' screens.
    Watcher(Vec<MachineId>),
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No token was given, or a wrong one.
    Wrong,
    /// Too many wrong ones were.
    TooMany,
}

impl Access {
    /// Whether everything may be done.
    pub(crate) fn is_full(&self) -> bool {
        !matches!(self, Access::Watcher(_))
    }

    pub(crate) fn may_watch(&self, machine: MachineId) -> bool {
        match self {
            Access::Owner | Access::Person => true,
            Access::Watcher(machines) => machines.contains(&machine),
        }
    }
}

/// The node's token, and how often others were tried.
pub(crate) struct Tokens {
    node: String,
    wrong: Mutex<Wrong>,
}

struct Wrong {
    since: Instant,
    count: u32,
}

impl Tokens {
    /// Reads the node's token, or makes one and keeps it, so that a bookmark stays good.
    pub(super) fn open(path: &Path) -> Result<Tokens> {
        Ok(Tokens::new(token(path)?))
    }

    fn new(node: String) -> Tokens {
        Tokens { node, wrong: Mutex::new(Wrong { since: Instant::now(), count: 0 }) }
    }

    /// The one that lets do everything.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// The one that lets watch a machine.
    pub(super) fn view_only(&self, machine: MachineId) -> String {
        let key = blake3::derive_key(VIEW_ONLY, self.node.as_bytes());
        format!("{machine}-{}", blake3::keyed_hash(&key, &machine.0).to_hex())
    }

    /// What these tokens let one do together.
    pub(super) fn access<'a>(&self, given: impl Iterator<Item = &'a str>) -> Result<Access, Denied> {
        let (mut machines, mut is_any_wrong) = (Vec::new(), false);
        for token in given {
            if is_same(token, &self.node) {
                return Ok(Access::Person);
            }
            let machine = token.split_once('-').and_then(|(machine, _)| machine.parse().ok());
            match machine.filter(|machine| is_same(token, &self.view_only(*machine))) {
                Some(machine) => machines.push(machine),
                None => is_any_wrong = true,
            }
        }
        if !machines.is_empty() {
            return Ok(Access::Watcher(machines));
        }
        if is_any_wrong && self.is_one_too_many() { Err(Denied::TooMany) } else { Err(Denied::Wrong) }
    }

    fn is_one_too_many(&self) -> bool {
        let mut wrong = hold(&self.wrong);
        if wrong.since.elapsed() > WINDOW {
            *wrong = Wrong { since: Instant::now(), count: 0 };
        }
        wrong.count = wrong.count.saturating_add(1);
        if wrong.count == MOST_WRONG {
            tracing::warn!("somebody tries tokens on the web page's port");
        }
        wrong.count > MOST_WRONG
    }
}

/// Compares in a time that does not depend on where the texts differ: so does the comparison of hashes.
fn is_same(a: &str, b: &str) -> bool {
    blake3::hash(a.as_bytes()) == blake3::hash(b.as_bytes())
}

fn token(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(token) if token.len() == 64 && token.bytes().all(|b| b.is_ascii_hexdigit()) => return Ok(token),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("read", path)(e)),
    }
    let mut bytes = [0; 32];
    fill_random(&mut bytes)?;
    let token = hex::encode(bytes);
    fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(token.as_bytes()))
        .map_err(Error::io("write", path))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_is_secret_kept_and_replaced_when_it_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web-token");
        let first = token(&path).unwrap();
        assert_eq!(token(&path).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "").unwrap();
        let second = token(&path).unwrap();
        assert!(second != first && second.len() == 64);
        assert!(is_same(&first, &first.clone()) && !is_same(&first, &second) && !is_same("", &first));
    }

    #[test]
    fn a_token_for_one_machine_is_good_for_that_alone() {
        let (tokens, others) = (Tokens::new("a".repeat(64)), Tokens::new("b".repeat(64)));
        let (one, two) = (MachineId([1; 16]), MachineId([2; 16]));
        let (for_one, for_two) = (tokens.view_only(one), tokens.view_only(two));
        let access = |given: &[&str]| tokens.access(given.iter().copied());
        assert_eq!(access(&[&for_one]), Ok(Access::Watcher(vec![one])));
        assert_eq!(access(&[&for_one, "", &for_two]), Ok(Access::Watcher(vec![one, two])));
        assert_eq!(access(&[&for_one, tokens.node()]), Ok(Access::Person));
        let forged = for_one.replace(&one.to_string(), &two.to_string());
        for wrong in [forged.as_str(), &others.view_only(one), others.node(), "", "-", &one.to_string()] {
            assert_eq!(access(&[wrong]), Err(Denied::Wrong), "{wrong}");
        }
        assert!(Access::Watcher(vec![one]).may_watch(one) && !Access::Watcher(vec![one]).may_watch(two));
    }

    #[test]
    fn whoever_tries_many_tokens_is_told_to_stop_and_the_right_one_is_still_good() {
        let tokens = Tokens::new("a".repeat(64));
        let tries = |token: &str| tokens.access([token].into_iter());
        for _ in 0..MOST_WRONG {
            assert_eq!(tries("wrong"), Err(Denied::Wrong));
        }
        assert_eq!(tries("wrong"), Err(Denied::TooMany));
        assert_eq!(tokens.access([].into_iter()), Err(Denied::Wrong), "none is not a wrong one");
        assert_eq!(tries(tokens.node()), Ok(Access::Person));
    }
}
