//! Three nodes, a network that loses, delays and repeats, daemons and hosts that die between any two actions. A failed test
//! prints its seed; `WATARI_SEED` repeats it, `WATARI_SEEDS` says how many are tried.

use fastrand::Rng;
use watari_types::{Epoch, NodeId};

use super::*;

const NODES: usize = 3;

fn id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 32])
}

fn index(node: NodeId) -> usize {
    usize::from(node.0[0]) - 1
}

/// What a guest is doing on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Runs,
    Held,
}

impl State {
    fn guest(self) -> Guest {
        match self {
            State::Absent => Guest::Absent,
            State::Runs => Guest::Here,
            State::Held => Guest::Held,
        }
    }
}

struct Node {
    disk: Record,
    tenure: Tenure,
    state: State,
}

struct World {
    random: Rng,
    nodes: Vec<Node>,
    /// From whom, to whom, what.
    network: Vec<(usize, usize, Message)>,
    /// How many of a thousand actions are the last ones before a death.
    deaths: u32,
    /// How many of a hundred messages are lost, and how many come again.
    losses: u32,
    /// How many of a thousand machines cannot be taken.
    failures: u32,
    /// Whether a host died with the guest that it ran or held.
    guest_died: bool,
    /// Whether a person has decided: then two may run, for as long as they do not hear of each other.
    decided: bool,
    story: Vec<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let node = |number: usize| {
            let standing = if number == 0 { Standing::Mine } else { Standing::Elsewhere(None) };
            let disk = Record { epoch: Epoch(u64::from(number == 0)), standing, refused: Epoch(0) };
            let state = if number == 0 { State::Runs } else { State::Absent };
            Node { disk, tenure: Tenure::restored(id(number), disk, state.guest()).0, state }
        };
        let mut random = Rng::with_seed(seed);
        let (deaths, losses) = (random.u32(0..60), random.u32(0..40));
        World {
            nodes: (0..NODES).map(node).collect(),
            random,
            network: Vec::new(),
            deaths,
            losses,
            failures: 100,
            guest_died: false,
            decided: false,
            story: Vec::new(),
        }
    }

    fn happens(&mut self, in_thousand: u32) -> bool {
        self.random.u32(0..1000) < in_thousand
    }

    fn check(&self) {
        let mine = self.nodes.iter().filter(|node| node.disk.standing == Standing::Mine).count();
        let running = self.nodes.iter().filter(|node| node.state == State::Runs).count();
        assert!(self.decided || mine <= 1, "it may run on {mine} nodes");
        assert!(self.decided || running <= 1, "it runs on {running} nodes");
    }

    fn act(&mut self, node: usize, actions: Vec<Action>) {
        for action in actions {
            if self.happens(self.deaths) {
                let with_host = self.random.bool();
                return self.die(node, with_host);
            }
            self.story.push(format!("{node}: {action:?}"));
            match action {
                Action::Persist(record) => self.nodes[node].disk = record,
                Action::Send(to, message) => self.send(node, index(to), message),
                Action::Hold if self.nodes[node].state == State::Runs => self.nodes[node].state = State::Held,
                Action::GoOn(_) if self.nodes[node].state == State::Held => {
                    self.nodes[node].state = State::Runs
                }
                Action::Hold | Action::GoOn(_) => {}
                Action::Discard => self.nodes[node].state = State::Absent,
                Action::Prepare => {
                    let could = !self.happens(self.failures);
                    let mut more = self.nodes[node].tenure.prepared(could);
                    // What is brought before the guest comes may come, or not.
                    if self.happens(50) {
                        more.extend(self.nodes[node].tenure.makes_room());
                    }
                    self.act(node, more);
                }
                Action::Load => {
                    let could = !self.happens(self.failures);
                    self.nodes[node].state = if could { State::Held } else { State::Absent };
                    let more = self.nodes[node].tenure.loaded(could);
                    self.act(node, more);
                }
            }
            self.check();
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let copies = match self.random.u32(0..100) {
            dice if dice < self.losses => 0,
            dice if dice < self.losses + self.losses / 4 => 2,
            _ => 1,
        };
        (0..copies).for_each(|_| self.network.push((from, to, message)));
    }

    /// The daemon dies and is started again; with its host, so does the guest.
    fn die(&mut self, node: usize, with_host: bool) {
        self.story.push(format!("{node}: dies, with its host: {with_host}"));
        let place = &mut self.nodes[node];
        if with_host {
            self.guest_died |= place.state != State::Absent;
            place.state = State::Absent;
        }
        let (tenure, actions) = Tenure::restored(id(node), place.disk, place.state.guest());
        place.tenure = tenure;
        self.act(node, actions);
        self.check();
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = self.random.usize(0..self.network.len());
        let (from, to, message) = self.network.swap_remove(at);
        self.story.push(format!("{from} → {to}: {message:?}"));
        let actions = self.nodes[to].tenure.handle(id(from), message);
        self.act(to, actions);
    }

    fn deliver_all(&mut self) {
        while !self.network.is_empty() {
            self.deliver();
        }
    }

    fn step(&mut self, with_person: bool) {
        let node = self.random.usize(0..NODES);
        let other = (node + self.random.usize(1..NODES)) % NODES;
        let tenure = &mut self.nodes[node].tenure;
        let actions = match self.random.u32(0..100) {
            0..6 => tenure.offer(id(other)),
            6..20 if tenure.is_ready() => tenure.hand_over(),
            20..22 => tenure.abort(),
            22..30 => tenure.remind(id(other)),
            30 if with_person && self.nodes[node].disk.standing != Standing::Mine => {
                self.decided = true;
                let guest = self.nodes[node].state.guest();
                self.nodes[node].tenure.take_back(guest)
            }
            31 => return self.die(node, false),
            32 if self.random.u32(0..4) == 0 => return self.die(node, true),
            _ => return self.deliver(),
        };
        self.act(node, actions);
    }

    /// Nothing is lost any more and nobody dies: everything that is under way comes to its end.
    fn settle(&mut self) {
        (self.deaths, self.losses) = (0, 0);
        for _ in 0..20 {
            self.deliver_all();
            for node in 0..NODES {
                let actions = self.nodes[node].tenure.abort();
                self.act(node, actions);
                for other in (0..NODES).filter(|other| *other != node) {
                    let actions = self.nodes[node].tenure.remind(id(other));
                    self.act(node, actions);
                }
            }
        }
    }
}

fn run(seed: u64, with_person: bool) {
    let mut world = World::new(seed);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..world.random.u32(10..300) {
            world.step(with_person);
        }
        world.settle();
        world.decided = false;
        world.check();
        let mine: Vec<&Node> =
            world.nodes.iter().filter(|node| node.disk.standing == Standing::Mine).collect();
        assert_eq!(mine.len(), 1, "it may run on {} nodes in the end", mine.len());
        let running: Vec<usize> = (0..NODES).filter(|node| world.nodes[*node].state == State::Runs).collect();
        if !world.guest_died && !with_person {
            assert_eq!(running.len(), 1, "nobody's host died, and it runs on {} nodes", running.len());
        }
        assert!(running.iter().all(|node| world.nodes[*node].disk.standing == Standing::Mine));
    }));
    if let Err(panic) = ended {
        eprintln!("{}\nrepeat it with WATARI_SEED={seed}", world.story.join("\n"));
        std::panic::resume_unwind(panic);
    }
}

impl World {
    /// The machine goes from one node to another, and nothing is in its way.
    fn goes(&mut self, from: usize, to: usize) {
        let actions = self.nodes[from].tenure.offer(id(to));
        self.act(from, actions);
        self.deliver_all();
        let actions = self.nodes[from].tenure.hand_over();
        self.act(from, actions);
        self.deliver_all();
    }
}

fn for_each_seed(run: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    match number("WATARI_SEED") {
        Some(seed) => run(seed),
        None => (0..number("WATARI_SEEDS").unwrap_or(300_000)).for_each(run),
    }
}

#[test]
fn whatever_is_lost_and_whoever_dies_at_most_one_runs_and_it_is_never_lost() {
    for_each_seed(|seed| run(seed, false));
}

#[test]
fn when_a_person_decides_one_gives_way_as_soon_as_they_hear_of_each_other() {
    for_each_seed(|seed| run(seed, true));
}

#[test]
fn who_waited_for_it_in_vain_takes_it_from_another_later() {
    let mut world = World::new(0);
    (world.deaths, world.losses, world.failures) = (0, 0, 0);
    let actions = world.nodes[0].tenure.offer(id(1));
    world.act(0, actions);
    world.deliver_all();
    world.die(0, false);
    for (from, to) in [(0, 2), (2, 1)] {
        world.goes(from, to);
        assert_eq!(world.nodes[to].state, State::Runs);
    }
}

#[test]
fn it_goes_there_and_back_and_each_time_the_epoch_is_higher() {
    let mut world = World::new(0);
    (world.deaths, world.losses, world.failures) = (0, 0, 0);
    for (number, (from, to)) in [(0, 1), (1, 0), (0, 2), (2, 1)].into_iter().enumerate() {
        world.goes(from, to);
        assert_eq!((world.nodes[from].state, world.nodes[to].state), (State::Absent, State::Runs));
        assert_eq!(world.nodes[to].disk.epoch, Epoch(number as u64 + 2));
    }
}
