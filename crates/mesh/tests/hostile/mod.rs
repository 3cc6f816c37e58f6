//! What other nodes send, whatever it is: one input, and what must hold.
//!
//! `frames` are what a giver says to a taker that has a store. Nothing may panic; and whatever was kept of it, the store is
//! sound, and holds a snapshot of the machine only if that was offered, whole and signed. `tickets` are texts, and `rolls` what
//! members say of who belongs to the mesh: nobody belongs to it then whom no member has signed for.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use tokio::runtime::Runtime;
use watari_mesh::exchange::{Link, Message, Offer, take};
use watari_mesh::roll::{Records, Roll};
use watari_mesh::ticket::Ticket;
use watari_store::NodeKey;
use watari_types::{Generation, MeshId, NodeId};

#[allow(dead_code, reason = "a part of it is needed")]
#[path = "../../../store/tests/store/support.rs"]
mod support;

use support::{MACHINE, commit, damage, store};

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    Frames,
    Tickets,
    Rolls,
}

impl Subject {
    #[allow(dead_code, reason = "a fuzzer has one")]
    pub(crate) const ALL: [Subject; 3] = [Subject::Frames, Subject::Tickets, Subject::Rolls];

    /// What it is called on the command line, and its corpus's folder.
    #[allow(dead_code, reason = "a fuzzer has one")]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Subject::Frames => "frames",
            Subject::Tickets => "tickets",
            Subject::Rolls => "rolls",
        }
    }
}

/// Panics unless all holds that must.
pub(crate) fn face(subject: Subject, input: &[u8]) {
    match subject {
        Subject::Frames => frames(input),
        Subject::Tickets => tickets(input),
        Subject::Rolls => rolls(input),
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

fn frames(input: &[u8]) {
    let (_folder, to) = store();
    let input = std::io::Cursor::new(input.to_vec());
    let mut link = Link::over(RUNTIME.handle(), input, tokio::io::sink(), None);
    let taken = take(&mut link, &to, &|_| Ok(()));
    assert_eq!(damage(&to), [""; 0]);
    let machines = to.machines().unwrap();
    match taken {
        Ok(taken) => {
            let Offer { machine, generation, line, .. } = taken.offer;
            assert_eq!(to.refs(machine).get(generation).unwrap(), Some(line[0]));
            to.page_tables(line[0]).unwrap();
            to.signer(line[0]).unwrap();
        }
        Err(_) => assert_eq!(machines, []),
    }
}

fn tickets(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string(), text.trim().to_lowercase());
        assert!(ticket.addresses.len() <= Ticket::MOST_ADDRESSES);
    }
}

const MESH: MeshId = MeshId([9; 16]);

fn key(number: u8) -> NodeKey {
    NodeKey::from_seed([number; 32])
}

/// Who may belong to the mesh: those whose keys are known.
fn everybody() -> BTreeSet<NodeId> {
    (1..=4).map(|number| key(number).id()).collect()
}

fn rolls(input: &[u8]) {
    let Ok(records) = serde_json::from_slice::<Records>(input) else { return };
    let mut roll = Roll::found(MESH, &key(1));
    roll.admit(&key(1), key(2).id()).unwrap();
    for _ in 0..2 {
        let _ = roll.merge(key(2).id(), &records);
        assert!(roll.members().all(|(node, _)| everybody().contains(&node)));
        let kept = roll.records();
        if roll.is_member(key(1).id()) {
            assert_eq!(Roll::load(key(1).id(), kept).unwrap().digest(), roll.digest());
        }
    }
}

/// Inputs to begin with.
#[allow(dead_code, reason = "a fuzzer has its corpus")]
pub(crate) fn seeds(subject: Subject) -> Vec<(&'static str, Vec<u8>)> {
    match subject {
        Subject::Frames => vec![("a-conversation", conversation()), ("nothing", Vec::new())],
        Subject::Tickets => {
            let ticket = Ticket {
                mesh: MESH,
                host: key(1).id(),
                addresses: vec!["10.0.0.1:9".parse().unwrap(), "[fe80::1]:9".parse().unwrap()],
                relay: Some("https://r".to_owned()),
                secret: [3; 16],
                expires_unix_s: 1_800_000_000,
            };
            vec![("a-ticket", ticket.to_string().into_bytes()), ("of-later", b"watari2aaaa".to_vec())]
        }
        Subject::Rolls => {
            let mut roll = Roll::found(MESH, &key(1));
            [2, 3, 4].iter().for_each(|number| roll.admit(&key(1), key(*number).id()).unwrap());
            let before = serde_json::to_vec(&roll.records()).unwrap();
            roll.remove(&key(2), key(1).id()).unwrap();
            vec![("four-nodes", before), ("one-removed", serde_json::to_vec(&roll.records()).unwrap())]
        }
    }
}

/// What a giver says to somebody who has nothing.
fn conversation() -> Vec<u8> {
    let (_folder, from) = store();
    let first = commit(&from, 1, None, &[(0, 3), (1, 5), (9, 6)]);
    let id = commit(&from, 2, Some(first), &[(1, 4), (700, 9)]);
    let goods = from.goods(id, None).unwrap();
    let line = from.ancestry(id, 10).unwrap();
    let (name, generation) = ("web".parse().unwrap(), Generation(2));
    let offer = Offer { machine: MACHINE, name, generation, tags: vec!["good".to_owned()], line };
    let mut said = Message::Offer(offer).encode();
    for numbers in [0..goods.whole(), goods.whole()..goods.len()] {
        let numbers: Vec<u32> = numbers.collect();
        if numbers.is_empty() {
            continue;
        }
        let names = numbers.iter().filter_map(|number| goods.page(*number)).collect();
        said.extend(Message::Names(names).encode());
        let mut say = |frame| -> Result<(), watari_store::Error> {
            said.extend(Message::Pages(frame).encode());
            Ok(())
        };
        goods.frames(&numbers, &|_| true, &mut say).unwrap();
        said.extend(Message::Settle.encode());
    }
    said.extend(Message::Manifest(goods.manifest().to_vec()).encode());
    said
}
