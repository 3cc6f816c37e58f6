//! Nodes that find each other, over real connections on loopback.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use watari_mesh::exchange::{Link, give, take};
use watari_mesh::handover::{Arriving, Call, Footing, Reply};
use watari_mesh::{Error, Holdings, Host, Listen, Mesh, Options, Presence};
use watari_store::{NodeKey, Parcel, Store};
use watari_types::{
    Epoch, ErrorKind, ErrorReport, Generation, MachineId, MachineName, NodeId, NodeName, Retention,
    SnapshotId,
};

#[allow(dead_code, reason = "a part of it is needed")]
#[path = "../../store/tests/store/support.rs"]
mod support;

/// A daemon that has a store and takes whatever comes.
struct Daemon(Store);

impl Host for Daemon {
    fn holdings(&self) -> Holdings {
        Holdings { machines: Vec::new(), store_bytes: self.0.bytes().unwrap() }
    }

    fn take(&self, _: NodeId, link: &mut Link) {
        let _ = take(link, &self.0, &|_| Ok(()));
    }

    fn handover(&self, _: NodeId, _: MachineId, _: Call) -> Reply {
        Reply::default()
    }

    fn receive(
        &self,
        _: NodeId,
        machine: MachineId,
        arriving: Arriving,
    ) -> Result<(UnixStream, Footing), ErrorReport> {
        if machine != support::MACHINE {
            return Err(ErrorReport::new(ErrorKind::WrongState, "it was not to come", ""));
        }
        let (ours, keepers) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut said = Vec::new();
            (&keepers).read_to_end(&mut said).unwrap();
            said.reverse();
            (&keepers).write_all(&said).unwrap();
        });
        Ok((ours, Footing { base: arriving.lineage.first().copied(), lacks_boot: false }))
    }

    fn lend(&self, _: NodeId, machine: MachineId) -> Result<UnixStream, ErrorReport> {
        Err(ErrorReport::new(ErrorKind::WrongState, format!("{machine} was not lent"), ""))
    }

    fn watch(&self, machine: MachineId, may_control: bool) -> Result<(UnixStream, MachineName), ErrorReport> {
        Err(ErrorReport::new(ErrorKind::WrongState, format!("{machine} is not here, {may_control}"), ""))
    }

    fn give(&self, _: NodeId, _: &str, link: &mut Link) {
        let (generation, id) = *self.0.refs(support::MACHINE).list().unwrap().last().unwrap();
        let parcel = Parcel { machine: support::MACHINE, generation, id, tags: &[] };
        let _ = give(link, &self.0, &parcel, &"web".parse().unwrap(), &|_| ());
    }
}

struct Place {
    folder: TempDir,
    key: NodeKey,
    name: &'static str,
    store: Store,
}

impl Place {
    fn new(name: &'static str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let seed = *blake3::hash(name.as_bytes()).as_bytes();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Place { folder, key: NodeKey::from_seed(seed), name, store }
    }

    fn id(&self) -> NodeId {
        self.key.id()
    }

    fn options(&self) -> Options {
        Options {
            key: self.key.clone(),
            folder: self.folder.path().join("mesh"),
            name: NodeName::from_host(self.name),
            program: "0.1.0".to_owned(),
            listen: Listen { addresses: vec!["127.0.0.1:0".parse().unwrap()], relay: None },
        }
    }

    fn host(&self) -> Arc<Daemon> {
        Arc::new(Daemon(self.store.clone()))
    }

    async fn join(&self, of: &Mesh) -> Result<Mesh, Error> {
        let ticket = of.invite(Duration::from_secs(60)).unwrap();
        Mesh::join(self.options(), &ticket, self.host()).await
    }
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn presence(mesh: &Mesh, node: NodeId) -> Option<Presence> {
    mesh.nodes().into_iter().find(|info| info.id == node).map(|info| info.presence)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_see_each_other_and_who_is_removed_is_out() {
    let places = ["one", "two", "three"].map(Place::new);
    let one = Mesh::found(places[0].options(), places[0].host()).await.unwrap();
    let two = places[1].join(&one).await.unwrap();
    let three = places[2].join(&two).await.unwrap();
    for mesh in [&one, &two, &three] {
        until("all see all", || {
            places
                .iter()
                .all(|place| matches!(presence(mesh, place.id()), Some(Presence::Alive | Presence::Here)))
        })
        .await;
        until("all know what the others call themselves", || {
            mesh.nodes().iter().all(|info| info.name.is_some() && info.program == "0.1.0")
        })
        .await;
    }
    assert_eq!(one.find("THREE").unwrap(), places[2].id());
    assert_eq!(one.find(&places[2].id().to_string()[..8]).unwrap(), places[2].id());
    assert!(matches!(one.find("four"), Err(Error::UnknownNode(_))));
    assert!(one.holdings(places[2].id()).await.is_ok());
    until("a way there", || one.nodes().iter().all(|n| n.id == places[0].id() || n.round_trip.is_some()))
        .await;
    // A daemon that starts again is found again.
    two.close().await;
    drop(two);
    until("it is missed", || presence(&one, places[1].id()) != Some(Presence::Alive)).await;
    let two = Mesh::open(places[1].options(), places[1].host()).await.unwrap().unwrap();
    until("it is back", || presence(&one, places[1].id()) == Some(Presence::Alive)).await;
    until("it sees the others", || presence(&two, places[2].id()) == Some(Presence::Alive)).await;
    one.remove(places[2].id()).await.unwrap();
    until("the others hear it", || !two.is_member(places[2].id())).await;
    let refused = three.holdings(places[0].id()).await.unwrap_err();
    assert!(matches!(&refused, Error::Refused(_) | Error::Cut(_) | Error::Unreachable { .. }), "{refused:?}");
    assert!(one.holdings(places[2].id()).await.is_err());
    // Two leaves, and one is told.
    assert!(two.leave().await.unwrap());
    assert!(!one.is_member(places[1].id()));
    assert!(Mesh::open(places[1].options(), places[1].host()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_was_used_has_expired_or_is_made_up_lets_nobody_in() {
    let places = ["host", "guest", "other"].map(Place::new);
    let host = Mesh::found(places[0].options(), places[0].host()).await.unwrap();
    let ticket = host.invite(Duration::from_secs(60)).unwrap();
    let expired = host.invite(Duration::ZERO).unwrap();
    let mut made_up = ticket.clone();
    made_up.secret[0] ^= 1;
    let _guest = Mesh::join(places[1].options(), &ticket, places[1].host()).await.unwrap();
    for (what, ticket) in [("used", &ticket), ("expired", &expired), ("made up", &made_up)] {
        let refused = Mesh::join(places[2].options(), ticket, places[2].host()).await.map(drop).unwrap_err();
        assert_eq!(refused.report().kind, ErrorKind::BadTicket, "{what}: {refused}");
        assert!(!places[2].options().folder.exists(), "{what}");
    }
    assert_eq!(host.nodes().len(), 2);
    // A ticket outlives the daemon that made it.
    let ticket = host.invite(Duration::from_secs(60)).unwrap();
    host.close().await;
    drop(host);
    let host = Mesh::open(places[0].options(), places[0].host()).await.unwrap().unwrap();
    let address = |path: &Path| std::fs::read_to_string(path.join("addresses.json")).unwrap();
    assert!(address(&places[0].options().folder).contains("127.0.0.1:"));
    let mut ticket = ticket;
    ticket.addresses = host.invite(Duration::from_secs(1)).unwrap().addresses;
    Mesh::join(places[2].options(), &ticket, places[2].host()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_go_from_one_node_to_another_and_back() {
    let places = ["from", "to"].map(Place::new);
    let from = Mesh::found(places[0].options(), places[0].host()).await.unwrap();
    let _to = places[1].join(&from).await.unwrap();
    let changes: Vec<(u32, u32)> = (0..2000).map(|page| (page, page + 1)).collect();
    let id = support::commit(&places[0].store, 1, None, &changes);
    let mut link = from.begin_giving(places[1].id(), None).await.unwrap();
    let store = places[0].store.clone();
    let given = tokio::task::spawn_blocking(move || {
        let parcel =
            Parcel { machine: support::MACHINE, generation: watari_types::Generation(1), id, tags: &[] };
        give(&mut link, &store, &parcel, &"web".parse().unwrap(), &|_| ())
    });
    assert_eq!(given.await.unwrap().unwrap().pages, 2000 + 17, "each page and the nodes of the tree");
    assert!(places[1].store.page_tables(id).is_ok());
    let next = support::commit(&places[1].store, 2, Some(id), &[(7, 0), (8, 5000)]);
    let mut link = from.begin_taking(places[1].id(), "web").await.unwrap();
    let store = places[0].store.clone();
    let taken =
        tokio::task::spawn_blocking(move || take(&mut link, &store, &|_| Ok(()))).await.unwrap().unwrap();
    assert_eq!((taken.sent.pages, taken.offer.line[0]), (1, next));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_is_no_faster_than_its_limit() {
    const LIMIT: u64 = 1_000_000;
    let places = ["slow", "slower"].map(Place::new);
    let from = Mesh::found(places[0].options(), places[0].host()).await.unwrap();
    let _to = places[1].join(&from).await.unwrap();
    let changes: Vec<(u32, u32)> = (0..4000).map(|page| (page, page + 1)).collect();
    let id = support::commit(&places[0].store, 1, None, &changes);
    let mut link = from.begin_giving(places[1].id(), Some(LIMIT)).await.unwrap();
    let store = places[0].store.clone();
    let began = Instant::now();
    let given = tokio::task::spawn_blocking(move || {
        let parcel = Parcel { machine: support::MACHINE, generation: Generation(1), id, tags: &[] };
        give(&mut link, &store, &parcel, &"web".parse().unwrap(), &|_| ())
    });
    let bytes = given.await.unwrap().unwrap().bytes;
    // The last message waits for those before it, and nobody for the last one.
    let least = bytes.saturating_sub(256 << 10) as f64 / LIMIT as f64;
    assert!(least > 1.0 && began.elapsed().as_secs_f64() >= least, "{bytes} bytes in {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn keepers_hear_each_other_until_one_of_them_says_no_more() {
    let places = ["here", "there"].map(Place::new);
    let here = Mesh::found(places[0].options(), places[0].host()).await.unwrap();
    let _there = places[1].join(&here).await.unwrap();
    let arriving = Arriving {
        epoch: Epoch(7),
        name: "web".parse().unwrap(),
        config: Box::new(support::config()),
        lineage: vec![SnapshotId([1; 32])],
        lazy: false,
        retention: Retention::default(),
        bridge: None,
    };
    let (way, footing) =
        here.begin_migrating(places[1].id(), support::MACHINE, arriving.clone()).await.unwrap();
    assert_eq!(footing.base, Some(SnapshotId([1; 32])));
    let (keeper, passed_on) = UnixStream::pair().unwrap();
    let passing = tokio::spawn(way.pass_on(passed_on));
    let said: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let words = said.clone();
    let heard = tokio::task::spawn_blocking(move || {
        (&keeper).write_all(&words).unwrap();
        keeper.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        (&keeper).read_to_end(&mut heard).unwrap();
        heard
    });
    assert!(heard.await.unwrap().into_iter().rev().eq(said));
    passing.await.unwrap().unwrap();
    let refused = here.begin_borrowing(places[1].id(), support::MACHINE).await;
    assert!(matches!(refused, Err(Error::Refused(report)) if report.kind == ErrorKind::WrongState));
    let refused = here.begin_migrating(places[1].id(), MachineId([9; 16]), arriving).await;
    assert!(matches!(refused, Err(Error::Refused(report)) if report.kind == ErrorKind::WrongState));
}
