//! One client's socket: the handshake, then several threads that each read a request, perform it and reply.
//!
//! Reading takes turns, replies too, and what is in between runs side by side. A thread that has read a
//! request goes on with it itself, so a client with one request at a time waits for no handover.
//!
//! What takes less time than to wake another thread is performed within the turn: small requests for what is at hand, as
//! long as they are answered from memory. Their replies leave together once the client has nothing more to say, or, if
//! that turns out to be better, has said nothing for a little while: it spares the client, and a guest behind it, being
//! woken for each.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::Shutdown;
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_send_buffer_size;

use crate::nbd::gather::Gathering;
use crate::nbd::negotiation::{Negotiation, Next, append_reply, greeting};
use crate::nbd::server::Exports;
use crate::nbd::session::{Reply, Session};
use crate::nbd::turn::Turns;
use crate::nbd::wire::{IHAVEOPT, MAX_OPTION, MAX_PAYLOAD, Request, command, option_reply};

/// Requests of one connection performed at a time.
const WORKERS: usize = 8;
/// Bytes of payloads of one connection in memory at a time,
const PAYLOADS: usize = 64 << 20;
/// and of those that wait for nothing from elsewhere: so few that they are in the processor's caches until they have
/// gone on. With 64 MiB a guest reads and writes megabytes a tenth slower. A request may be larger.
const PAYLOADS_AT_HAND: usize = 2 << 20;
/// Bytes of memory taken for a payload of which nothing has arrived yet.
const AHEAD: usize = 256 << 10;
/// Bytes of memory that a thread keeps from one payload to the next.
const KEPT: usize = 1 << 20;
/// A request that takes longer than this waits for a device, and others should not wait for it.
const QUICK: Duration = Duration::from_micros(50);
/// After one that did, so many have to be quick before another may keep the turn.
const IN_A_ROW: u32 = 16;
/// Bytes of the largest request that can be quick.
const SMALL: u32 = 64 << 10;
/// Replies that leave together at most.
const BATCH: usize = 16;
/// A reply waits so long for others to leave with it, where that is of use.
const A_LITTLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 40_000 };
/// Bytes on their way to a client. The usual 208 KiB would have a large reply wait for the client several times.
const SEND_BUFFER: usize = 2 << 20;
/// A client that says nothing for so long during the handshake is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves one client until it leaves, breaks the protocol, or the socket is shut down.
pub(crate) fn serve(stream: &UnixStream, exports: &Exports) -> io::Result<()> {
    let _close = CloseIfPanicking(stream);
    stream.set_read_timeout(Some(PATIENCE))?;
    // The host may allow less, and then it is slower.
    let _ = set_socket_send_buffer_size(stream, SEND_BUFFER);
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let Some(session) = negotiate(&mut reader, stream, exports)? else {
        return Ok(());
    };
    stream.set_read_timeout(None)?;
    let connection = Connection {
        stream,
        session,
        incoming: Turns::new(Incoming { reader, open: true, gathering: Gathering::new(Instant::now()) }),
        quick_in_a_row: AtomicU32::new(0),
        outgoing: Mutex::new(()),
        at_hand: Memory::of(PAYLOADS_AT_HAND),
        elsewhere: Memory::of(PAYLOADS),
    };
    thread::scope(|scope| {
        for _ in 1..WORKERS {
            // With fewer threads, or with this one alone, it works as well.
            let spawned =
                thread::Builder::new().name("disk-nbd".into()).spawn_scoped(scope, || connection.work());
            if spawned.is_err() {
                break;
            }
        }
        connection.work();
    });
    Ok(())
}

/// Goes through the handshake; `None` if the client left it.
fn negotiate(
    reader: &mut BufReader<&UnixStream>,
    mut writer: &UnixStream,
    exports: &Exports,
) -> io::Result<Option<Session>> {
    writer.write_all(&greeting())?;
    let Some(mut negotiation) = Negotiation::new(exports, u32::from_be_bytes(read_array(reader)?)) else {
        return Ok(None);
    };
    loop {
        if read_array(reader)? != *IHAVEOPT {
            return Ok(None);
        }
        let option = u32::from_be_bytes(read_array(reader)?);
        let len = u32::from_be_bytes(read_array(reader)?);
        let mut out = Vec::new();
        if len > MAX_OPTION {
            append_reply(&mut out, option, option_reply::ERR_TOO_BIG, &[]);
            writer.write_all(&out)?;
            return Ok(None);
        }
        let mut data = vec![0; len as usize];
        reader.read_exact(&mut data)?;
        let next = negotiation.option(option, &data, &mut out);
        writer.write_all(&out)?;
        match next {
            Next::Option => {}
            Next::Serve(session) => return Ok(Some(session)),
            Next::Close => return Ok(None),
        }
    }
}

fn read_array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

struct Connection<'a> {
    stream: &'a UnixStream,
    session: Session,
    incoming: Turns<Incoming<'a>>,
    /// How many small requests have been quick since one was not.
    quick_in_a_row: AtomicU32,
    outgoing: Mutex<()>,
    /// For the payloads of requests that wait for nothing from elsewhere, and for those of the others.
    at_hand: Memory,
    elsewhere: Memory,
}

/// A request, and the memory that is set aside for it.
type Taken<'a> = (Request, Room<'a>);

struct Incoming<'a> {
    reader: BufReader<&'a UnixStream>,
    open: bool,
    gathering: Gathering,
}

impl Incoming<'_> {
    /// The next request, its payload put into `payload`; `None`, and nothing after it, once there will be no more.
    fn next<'a>(&mut self, connection: &'a Connection<'_>, payload: &mut Payload) -> Option<Taken<'a>> {
        // Closed unless this goes well.
        if !std::mem::replace(&mut self.open, false) {
            return None;
        }
        let request = Request::parse(&read_array(&mut self.reader).ok()?)?;
        if request.command == command::DISCONNECT || request.payload() > MAX_PAYLOAD {
            return None;
        }
        let room = connection.room_for(&request);
        payload.read(&mut self.reader, request.payload()).ok()?;
        self.open = true;
        Some((request, room))
    }

    /// Whether another small request is there, or comes within a little while if it is of use to wait.
    fn has_another(&mut self) -> bool {
        if self.gathering.is_on() && self.reader.buffer().is_empty() {
            let mut socket = [PollFd::new(*self.reader.get_ref(), PollFlags::IN)];
            let more_came = matches!(poll(&mut socket, Some(&A_LITTLE)), Ok(1));
            self.gathering.waited(more_came, Instant::now());
            if more_came {
                // Its end, and errors, are found by whoever reads on.
                let _ = self.reader.fill_buf();
            }
        }
        self.has_small()
    }

    /// Whether the next request is a small one, and reading it needs nothing more from the client.
    fn has_small(&self) -> bool {
        let Some((header, rest)) = self.reader.buffer().split_first_chunk() else { return false };
        Request::parse(header)
            .is_some_and(|request| request.len <= SMALL && request.payload() as usize <= rest.len())
    }
}

impl Connection<'_> {
    fn work(&self) {
        let _close = CloseIfPanicking(self.stream);
        let mut payload = Payload::default();
        while let Some((request, room)) = self.turn(&mut payload) {
            let reply = self.answer(&request, &payload);
            if self.send(&mut vec![(reply, room)]).is_err() {
                return;
            }
        }
    }

    /// Reads requests and performs those that are quick, up to one that may not be. `None` once there will be no more.
    fn turn(&self, payload: &mut Payload) -> Option<Taken<'_>> {
        let mut incoming = self.incoming.wait();
        let mut replies = Vec::new();
        loop {
            if replies.len() == BATCH || !replies.is_empty() && !incoming.has_another() {
                self.send(&mut replies).ok()?;
            }
            match incoming.next(self, payload) {
                Some((request, room)) if self.is_quick(&request) => {
                    incoming.gathering.request(Instant::now());
                    replies.push((self.answer(&request, payload), room));
                }
                taken => {
                    self.send(&mut replies).ok()?;
                    return taken;
                }
            }
        }
    }

    /// Whether the request is likely to be answered from memory, as those before it were.
    fn is_quick(&self, request: &Request) -> bool {
        request.len <= SMALL
            && self.quick_in_a_row.load(Ordering::Relaxed) >= IN_A_ROW
            && self.session.is_at_hand(request)
    }

    fn answer(&self, request: &Request, payload: &[u8]) -> Reply {
        let begun = Instant::now();
        let reply = self.session.answer(request, payload);
        if request.len <= SMALL {
            let before = self.quick_in_a_row.load(Ordering::Relaxed);
            let now = if begun.elapsed() < QUICK { before.saturating_add(1) } else { 0 };
            self.quick_in_a_row.store(now, Ordering::Relaxed);
        }
        reply
    }

    /// Waits until there is room for the memory that the request needs. Small requests whose replies wait to leave together
    /// never fill it.
    fn room_for(&self, request: &Request) -> Room<'_> {
        let memory = if self.session.is_at_hand(request) { &self.at_hand } else { &self.elsewhere };
        memory.take(self.session.memory(request))
    }

    /// Sends the replies, all together, and gives the memory of their requests back. After an error the client is gone,
    /// which the other threads notice too.
    fn send(&self, replies: &mut Vec<(Reply, Room<'_>)>) -> io::Result<()> {
        if replies.is_empty() {
            return Ok(());
        }
        let sent = {
            let _turn = self.outgoing.lock();
            let parts = replies.iter().flat_map(|(reply, _)| [&reply.head, &reply.data]);
            let mut slices: Vec<_> =
                parts.filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
            write_all(self.stream, &mut slices)
        };
        if sent.is_err() {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        replies.clear();
        sent
    }
}

/// Memory that requests share.
struct Memory {
    most: usize,
    taken: Mutex<usize>,
    given_back: Condvar,
}

/// Some of it, until this is dropped.
struct Room<'a> {
    memory: &'a Memory,
    bytes: usize,
}

impl Memory {
    fn of(most: usize) -> Memory {
        Memory { most, taken: Mutex::new(0), given_back: Condvar::new() }
    }

    /// Waits until there is so much left, or all of it if it is less.
    fn take(&self, bytes: usize) -> Room<'_> {
        let mut taken = self.taken.lock();
        while *taken > 0 && *taken + bytes > self.most {
            self.given_back.wait(&mut taken);
        }
        *taken += bytes;
        Room { memory: self, bytes }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        *self.memory.taken.lock() -= self.bytes;
        // Only the thread that has the turn to read waits.
        self.memory.given_back.notify_one();
    }
}

fn write_all(mut stream: &UnixStream, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match stream.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => IoSlice::advance_slices(&mut slices, sent),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// What came with a request, in memory that is kept from one to the next.
#[derive(Default)]
struct Payload {
    /// Beyond `len` is what is left of others: it need not be zeroed again, and is never looked at.
    bytes: Vec<u8>,
    len: usize,
}

impl Payload {
    /// Reads so many bytes, taking memory as they arrive: a client may announce what it never sends.
    fn read(&mut self, reader: &mut impl Read, len: u32) -> io::Result<()> {
        self.bytes.truncate(KEPT);
        self.bytes.shrink_to(KEPT);
        self.len = 0;
        let len = len as usize;
        while self.len < len {
            // As much again as has arrived, and never more than there will be: it is counted with `len` bytes.
            let there = self.bytes.len().saturating_sub(self.len);
            let end = self.len + there.max(self.len).max(AHEAD).min(len - self.len);
            if end > self.bytes.len() {
                self.bytes.reserve_exact(end - self.bytes.len());
                self.bytes.resize(end, 0);
            }
            reader.read_exact(&mut self.bytes[self.len..end])?;
            self.len = end;
        }
        Ok(())
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A thread that dies owes a client an answer; better that the client hears that there will be none.
struct CloseIfPanicking<'a>(&'a UnixStream);

impl Drop for CloseIfPanicking<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_takes_memory_for_its_bytes_once_and_hardly_before_they_arrive() {
        let sent = vec![7; 3 << 20];
        for len in [0, 1, AHEAD, AHEAD + 1, 1 << 20, (2 << 20) + 5, 3 << 20] {
            let mut payload = Payload::default();
            payload.read(&mut &sent[..], len as u32).unwrap();
            assert_eq!((payload.len(), payload.bytes.capacity()), (len, len));
        }
        let announced = Payload::default().read(&mut &sent[..], MAX_PAYLOAD);
        assert!(announced.is_err(), "less was sent than announced");
    }

    #[test]
    fn a_payload_is_what_was_sent_with_it_whatever_came_before() {
        let mut payload = Payload::default();
        for (number, len) in (1..).zip([3 << 20, 10, 1 << 20, 0, AHEAD + 7, 2 << 20]) {
            let sent = vec![number; len];
            payload.read(&mut &sent[..], len as u32).unwrap();
            assert!(*payload == sent[..], "{number}");
            assert!(payload.bytes.capacity() <= len.max(KEPT));
        }
    }
}
