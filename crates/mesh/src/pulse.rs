//! Who of the mesh is there: the SWIM protocol (foca), its messages as datagrams over the nodes' connections.
//!
//! A node that does not answer is probed through others, then suspected, then held to be down, and each of them is told to
//! all. Whoever is down goes on being called now and then, until it returns. foca decides; one task owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foca::{Codec, Config, Foca, Identity, Notification, PostcardCodec, Runtime, State, Timer};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use watari_types::NodeId;

/// What fits into a datagram whatever the network.
const MOST_BYTES: NonZeroUsize = NonZeroUsize::new(1000).unwrap();
/// What a mesh is taken to be at most, for how long news are passed on.
const NODES: NonZeroU32 = NonZeroU32::new(64).unwrap();
/// How often members that are not there are called.
const CALLING: Duration = Duration::from_secs(5);
/// Datagrams that wait for their turn.
const WAITING: usize = 256;

/// One run of a node's daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    node: [u8; 32],
    /// When it began, in milliseconds since 1970. A later one counts.
    began: u64,
}

impl Identity for Run {
    type Addr = [u8; 32];

    fn renew(&self) -> Option<Self> {
        Some(Run { began: self.began + 1, ..*self })
    }

    fn addr(&self) -> [u8; 32] {
        self.node
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.began > other.began
    }
}

/// What is known of whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is this one.
    Here,
    /// It answers, or somebody says so.
    Alive,
    /// It did not answer lately.
    Suspect,
    /// It does not answer.
    Down,
    /// It has not been heard of since this daemon began.
    Unknown,
}

/// What the task that owns foca is told.
enum Event {
    Heard {
        from: NodeId,
        bytes: Bytes,
    },
    Due(Timer<Run>),
    /// These are the members, but for this node.
    Members(BTreeSet<NodeId>),
}

/// How it goes, and a way to tell it of what happens. Ends when the last of these is dropped.
#[derive(Clone)]
pub(crate) struct Pulse {
    events: mpsc::Sender<Event>,
    seen: Arc<Mutex<BTreeMap<NodeId, Presence>>>,
}

/// Sends a datagram, or gives up.
pub(crate) type SendTo = Arc<dyn Fn(NodeId, Bytes) + Send + Sync>;

impl Pulse {
    /// Begins to tell others that this node is there, and to listen for them.
    pub(crate) fn start(me: NodeId, began: u64, send: SendTo) -> Pulse {
        let (events, incoming) = mpsc::channel(WAITING);
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let config = Config { max_packet_size: MOST_BYTES, ..Config::new_lan(NODES) };
        let run = Run { node: me.0, began };
        let random = SmallRng::seed_from_u64(u64::from_le_bytes(first_bytes(&me.0)) ^ began);
        let foca = Foca::new(run, config, random, PostcardCodec);
        let heart = Heart {
            foca,
            me,
            members: BTreeSet::new(),
            send,
            timers: JoinSet::new(),
            seen: Arc::clone(&seen),
        };
        tokio::spawn(heart.beat(incoming));
        Pulse { events, seen }
    }

    /// A datagram came from a node.
    pub(crate) fn heard(&self, from: NodeId, bytes: Bytes) {
        // When there are too many, what is lost comes again.
        let _ = self.events.try_send(Event::Heard { from, bytes });
    }

    /// Says who the members are, but for this node.
    pub(crate) async fn set_members(&self, members: BTreeSet<NodeId>) {
        let _ = self.events.send(Event::Members(members)).await;
    }

    /// Whether a node is there.
    pub(crate) fn presence(&self, node: NodeId) -> Presence {
        self.seen.lock().get(&node).copied().unwrap_or(Presence::Unknown)
    }
}

fn first_bytes(bytes: &[u8; 32]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *bytes;
    [a, b, c, d, e, f, g, h]
}

struct Heart {
    foca: Foca<Run, PostcardCodec, SmallRng, foca::NoCustomBroadcast>,
    me: NodeId,
    members: BTreeSet<NodeId>,
    send: SendTo,
    timers: JoinSet<Timer<Run>>,
    seen: Arc<Mutex<BTreeMap<NodeId, Presence>>>,
}

/// What foca wants done.
#[derive(Default)]
struct Wishes {
    to_send: Vec<(Run, Bytes)>,
    timers: Vec<(Timer<Run>, Duration)>,
}

impl Runtime<Run> for &mut Wishes {
    fn notify(&mut self, _: Notification<'_, Run>) {}

    fn send_to(&mut self, to: Run, data: &[u8]) {
        self.to_send.push((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Run>, after: Duration) {
        self.timers.push((event, after));
    }
}

impl Heart {
    async fn beat(mut self, mut events: mpsc::Receiver<Event>) {
        let mut calling = tokio::time::interval(CALLING);
        loop {
            let event = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => event,
                    None => return,
                },
                Some(Ok(timer)) = self.timers.join_next(), if !self.timers.is_empty() => Event::Due(timer),
                _ = calling.tick() => {
                    self.call();
                    continue;
                }
            };
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        let mut wishes = Wishes::default();
        let done = match event {
            Event::Heard { from, bytes } if self.is_from(from, &bytes) => {
                self.foca.handle_data(&bytes, &mut wishes)
            }
            Event::Heard { .. } => Ok(()),
            Event::Due(timer) => self.foca.handle_timer(timer, &mut wishes),
            Event::Members(members) => {
                self.members = members;
                self.call();
                Ok(())
            }
        };
        if let Err(error) = done {
            tracing::debug!("a message about who is there: {error}");
        }
        self.fulfil(wishes);
    }

    /// Whether a datagram says that it is from the node that it is from, and that one belongs to the mesh.
    fn is_from(&self, from: NodeId, bytes: &[u8]) -> bool {
        let header: Result<foca::Header<Run>, _> = PostcardCodec.decode_header(bytes);
        self.members.contains(&from) && header.is_ok_and(|header| header.src.node == from.0)
    }

    /// Calls the members that are not known to be there.
    fn call(&mut self) {
        let there: BTreeSet<[u8; 32]> = self.foca.iter_members().map(|member| member.id().node).collect();
        let mut wishes = Wishes::default();
        for member in self.members.iter().filter(|member| !there.contains(&member.0)) {
            // Which run it is in, it says itself.
            let _ = self.foca.announce(Run { node: member.0, began: 0 }, &mut wishes);
        }
        self.fulfil(wishes);
    }

    fn fulfil(&mut self, wishes: Wishes) {
        for (to, bytes) in wishes.to_send {
            let to = NodeId(to.node);
            if self.members.contains(&to) {
                (self.send)(to, bytes);
            }
        }
        for (timer, after) in wishes.timers {
            self.timers.spawn(async move {
                tokio::time::sleep(after).await;
                timer
            });
        }
        let mut seen: BTreeMap<NodeId, Presence> = BTreeMap::from([(self.me, Presence::Here)]);
        for member in self.foca.iter_membership_state() {
            let presence = match member.state() {
                State::Alive => Presence::Alive,
                State::Suspect => Presence::Suspect,
                State::Down => Presence::Down,
            };
            seen.insert(NodeId(member.id().node), presence);
        }
        *self.seen.lock() = seen;
    }
}
