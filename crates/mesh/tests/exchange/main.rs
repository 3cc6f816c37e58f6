//! Snapshots from one real store into another, through streams that may be cut, from givers that may lie.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "a part of it is needed")]
#[path = "../../../store/tests/store/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use fastrand::Rng;
use support::{MACHINE, commit, contents, damage, hash, page, store};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, duplex};
use tokio::runtime::Runtime;
use watari_mesh::Error;
use watari_mesh::exchange::{Given, Link, Message, Offer, Taken, give, take};
use watari_store::{PageFrame, Parcel, Store};
use watari_types::{ErrorKind, ErrorReport, Generation, RegionName, SnapshotId};

/// A stream that ends after so many bytes.
struct Cut<R>(R, usize);

impl<R: AsyncRead + Unpin> AsyncRead for Cut<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut piece = vec![0; into.remaining().min(self.1)];
        let mut part = ReadBuf::new(&mut piece);
        let polled = Pin::new(&mut self.0).poll_read(cx, &mut part);
        self.1 -= part.filled().len();
        into.put_slice(part.filled());
        polled
    }
}

fn links<A, B>(runtime: &Runtime, a: A, b: B) -> (Link, Link)
where
    A: FnOnce(Box<dyn AsyncRead + Unpin + Send>) -> Box<dyn AsyncRead + Unpin + Send>,
    B: FnOnce(Box<dyn AsyncRead + Unpin + Send>) -> Box<dyn AsyncRead + Unpin + Send>,
{
    let (one, other) = duplex(64 << 10);
    let split = |stream| {
        let (read, write) = tokio::io::split(stream);
        (
            Box::new(read) as Box<dyn AsyncRead + Unpin + Send>,
            Box::new(write) as Box<dyn AsyncWrite + Unpin + Send>,
        )
    };
    let ((read_one, write_one), (read_other, write_other)) = (split(one), split(other));
    let giver = Link::over(runtime.handle(), a(read_one), write_one, None);
    (giver, Link::over(runtime.handle(), b(read_other), write_other, None))
}

type Outcome = (Result<Given, Error>, Result<Taken, Error>);

/// Gives a snapshot, over a stream that is cut after so many bytes.
fn send(from: &Store, generation: u64, id: SnapshotId, to: &Store, cut: usize) -> Outcome {
    let runtime = Runtime::new().unwrap();
    let (mut giver, mut taker) = links(&runtime, |read| read, |read| Box::new(Cut(read, cut)));
    let parcel =
        Parcel { machine: MACHINE, generation: Generation(generation), id, tags: &["good".to_owned()] };
    let outcome = std::thread::scope(|scope| {
        let taken = scope.spawn(move || take(&mut taker, to, &|_| Ok(())));
        let given = give(&mut giver, from, &parcel, &"web".parse().unwrap(), &|_| ());
        drop(giver);
        (given, taken.join().unwrap())
    });
    runtime.shutdown_background();
    outcome
}

fn disk(store: &Store, id: SnapshotId) -> BTreeMap<u32, Vec<u8>> {
    contents(store, &store.page_tables(id).unwrap()[&RegionName::disk(0)])
}

/// A history in which pages come, change a little, change much, and go.
fn history(store: &Store, snapshots: u64, random: &mut Rng) -> Vec<SnapshotId> {
    let mut line: Vec<SnapshotId> = Vec::new();
    for generation in 1..=snapshots {
        let changes = if generation == 1 { 1500 } else { random.u32(1..200) };
        let change: BTreeMap<u32, u32> =
            (0..changes).map(|_| (random.u32(0..4096), random.u32(0..3000))).collect();
        line.push(commit(store, generation, line.last().copied(), &change.into_iter().collect::<Vec<_>>()));
    }
    line
}

#[test]
fn what_arrives_is_what_was_sent_and_only_what_was_not_there_travels() {
    let ((_a, from), (_b, to)) = (store(), store());
    let mut random = Rng::with_seed(1);
    let line = history(&from, 40, &mut random);
    let mut bytes = Vec::new();
    // The first, the next, one much later, one before it, one that is there.
    for generation in [1, 2, 30, 29, 40, 40] {
        let id = line[generation - 1];
        let (given, taken) = send(&from, generation as u64, id, &to, usize::MAX);
        let (given, taken) = (given.unwrap(), taken.unwrap());
        assert_eq!((taken.sent.pages, taken.offer.line[0]), (given.pages, id));
        assert_eq!(disk(&to, id), disk(&from, id), "{generation}");
        bytes.push(given.bytes);
    }
    assert!(bytes[1] * 4 < bytes[0] && bytes[5] < 8 << 10, "{bytes:?}");
    let refs = to.refs(MACHINE);
    assert_eq!(refs.list().unwrap().len(), 5);
    assert_eq!(refs.tagged("good").unwrap(), Some(line[39]));
    assert_eq!(damage(&to), [""; 0]);
    // And on from there, to a third.
    let (_c, third) = store();
    let (given, _) = send(&to, 40, line[39], &third, usize::MAX);
    given.unwrap();
    assert_eq!(disk(&third, line[39]), disk(&from, line[39]));
    assert_eq!(damage(&third), [""; 0]);
}

#[test]
fn wherever_it_is_cut_the_next_try_goes_on() {
    let ((_a, from), (_b, to)) = (store(), store());
    let mut random = Rng::with_seed(2);
    let line = history(&from, 6, &mut random);
    let (_c, whole) = store();
    let all = send(&from, 6, line[5], &whole, usize::MAX).0.unwrap();
    let (mut cut, mut tries, mut pages) = (100, 0, 0);
    loop {
        tries += 1;
        let (given, taken) = send(&from, 6, line[5], &to, cut);
        assert_eq!(damage(&to), [""; 0]);
        if let (Ok(given), Ok(_)) = (&given, &taken) {
            pages += given.pages;
            break;
        }
        assert!(matches!(taken, Err(Error::Cut(_))), "{taken:?}");
        assert_eq!(to.refs(MACHINE).list().unwrap(), []);
        cut += random.usize(1..60_000);
    }
    assert!(tries > 5, "{tries}");
    assert!(pages < all.pages / 2, "{pages} of {} pages were sent by the last try", all.pages);
    assert_eq!(disk(&to, line[5]), disk(&from, line[5]));
}

/// Says these things to a taker, reading as many messages as it answers in between; how it ended.
fn tell(to: &Store, messages: Vec<Message>) -> (Result<Taken, Error>, Option<ErrorReport>) {
    let runtime = Runtime::new().unwrap();
    let (one, other) = duplex(64 << 10);
    let (read, write) = tokio::io::split(one);
    let mut taker = Link::over(runtime.handle(), read, write, None);
    let told = runtime.spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut read, mut write) = tokio::io::split(other);
        for message in messages {
            let _ = write.write_all(&message.encode()).await;
        }
        let mut answers = Vec::new();
        let _ = read.read_to_end(&mut answers).await;
        // The last message is the refusal.
        let begins = answers.windows(8).rposition(|window| window == b"{\"kind\":");
        begins.and_then(|begins| serde_json::from_slice::<ErrorReport>(&answers[begins..]).ok())
    });
    let taken = take(&mut taker, to, &|offer| match offer.name.as_str() {
        "unwelcome" => Err(ErrorReport::new(ErrorKind::NoSpace, "no room for it", "")),
        _ => Ok(()),
    });
    drop(taker);
    let refusal = runtime.block_on(told).unwrap();
    (taken, refusal)
}

#[test]
fn who_lies_is_refused_and_nothing_is_changed() {
    let ((_a, from), (_b, to)) = (store(), store());
    let id = commit(&from, 1, None, &[(0, 1), (1, 2)]);
    let manifest = from.goods(id, None).unwrap().manifest().to_vec();
    let mut goods = Vec::new();
    let number = from.goods(id, None).unwrap().whole();
    let all: Vec<u32> = (0..number).collect();
    let mut keep = |frame| -> Result<(), watari_store::Error> {
        goods.push(frame);
        Ok(())
    };
    from.goods(id, None).unwrap().frames(&all, &|_| false, &mut keep).unwrap();
    let offer = |name: &str| {
        let (machine, generation, tags) = (MACHINE, Generation(1), Vec::new());
        Message::Offer(Offer { machine, name: name.parse().unwrap(), generation, tags, line: vec![id] })
    };
    let names = |pages: &[u32]| Message::Names(pages.iter().map(|number| (hash(*number), None)).collect());
    let frame = |named: u32, content: u32| {
        let compressed = zstd::bulk::compress(&page(content), 3).unwrap();
        Message::Pages(PageFrame { names: vec![hash(named)], bases: Vec::new(), compressed })
    };
    let bomb = PageFrame {
        names: vec![hash(1)],
        bases: Vec::new(),
        compressed: zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap(),
    };
    let cases = [
        ("another page", vec![offer("web"), names(&[1]), frame(1, 2)], ErrorKind::Damaged),
        ("a bomb", vec![offer("web"), names(&[1]), Message::Pages(bomb)], ErrorKind::Damaged),
        ("unasked", vec![offer("web"), frame(1, 1)], ErrorKind::Forbidden),
        ("twice", vec![offer("web"), names(&[1]), frame(1, 1), frame(1, 1)], ErrorKind::Forbidden),
        (
            "too late",
            vec![offer("web"), names(&[7]), Message::Manifest(manifest.clone()), names(&[8])],
            ErrorKind::Forbidden,
        ),
        ("pages missing", vec![offer("web"), Message::Manifest(manifest.clone())], ErrorKind::Damaged),
        ("other manifest", vec![offer("web"), Message::Manifest(vec![1; 500])], ErrorKind::Damaged),
        ("unwelcome", vec![offer("unwelcome")], ErrorKind::NoSpace),
        ("no line", vec![Message::Settle], ErrorKind::Forbidden),
    ];
    for (what, messages, kind) in cases {
        let (taken, refusal) = tell(&to, messages);
        assert!(taken.is_err(), "{what}");
        assert_eq!(refusal.map(|report| report.kind), Some(kind), "{what}: {taken:?}");
        assert_eq!(to.refs(MACHINE).list().unwrap(), [], "{what}");
        assert_eq!(damage(&to), [""; 0], "{what}");
    }
    let (_c, fresh) = store();
    let flipped = manifest.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at + 5 == manifest.len()));
    let mut messages = vec![
        offer("web"),
        Message::Names(goods.iter().flat_map(|f| f.names.iter().map(|n| (*n, None))).collect()),
    ];
    messages.extend(goods.iter().cloned().map(Message::Pages));
    messages.push(Message::Settle);
    let mut forged = messages.clone();
    forged.push(Message::Manifest(flipped.collect()));
    let (_, refusal) = tell(&fresh, forged);
    let said = refusal.map(|report| report.message).unwrap_or_default();
    assert!(said.contains("not signed by"), "a flipped bit of the signature: {said:?}");
    messages.truncate(1);
    messages.push(Message::Manifest(manifest));
    tell(&fresh, messages).0.unwrap();
    assert_eq!(disk(&fresh, id), disk(&from, id));
}

#[test]
fn another_snapshot_of_that_generation_is_refused_with_the_reason() {
    let ((_a, from), (_b, to)) = (store(), store());
    let id = commit(&from, 1, None, &[(0, 1)]);
    commit(&to, 1, None, &[(0, 2)]);
    let (given, _) = send(&from, 1, id, &to, usize::MAX);
    assert!(given.unwrap_err().to_string().contains("already has another snapshot of generation 1"));
}
