//! What a viewer shows, by what it is sent alone: a viewer as docs/SCREEN.md has it, in a hundred lines, beside the one that
//! decides what it is sent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must say so and fail")]

mod reference;

use proptest::prelude::*;
use reference::Screen;
use watari_screen::{Grid, Picture, Rect, Studio, Viewer};

/// Something that happens on a screen.
#[derive(Clone, Debug)]
enum Change {
    Fill(Rect, u32),
    /// Text: two colours, by a number.
    Text(Rect, u32),
    /// As in a photograph, by a number.
    Photo(Rect, u32),
    /// What is there moves by so many rows, and the rest becomes one colour.
    Scroll(Rect, i32),
    Resize(u32, u32),
}

fn apply(grid: &mut Grid, change: &Change, now: u64) {
    let each = |grid: &mut Grid, rect: Rect, colour: &dyn Fn(u32, u32) -> u32| {
        grid.draw(rect, now, |picture, rect| {
            for y in rect.y..rect.y + rect.height {
                let row = picture.row_mut(rect.x, y, rect.width);
                (rect.x..).zip(row).for_each(|(x, pixel)| *pixel = colour(x, y));
            }
        });
    };
    match *change {
        Change::Fill(rect, colour) => each(grid, rect, &|_, _| colour),
        Change::Text(rect, seed) => {
            each(grid, rect, &|x, y| {
                if hash(x / 2, y, seed).is_multiple_of(3) { 0xe0_e0e0 } else { 0x10_1020 }
            });
        }
        Change::Photo(rect, seed) => {
            each(grid, rect, &|x, y| {
                u32::from_be_bytes([0, (x * 3 + seed) as u8, (y * 2) as u8, (x + y + seed) as u8])
            });
        }
        Change::Scroll(rect, down) => {
            grid.draw(rect, now, |picture, rect| {
                let by = down.unsigned_abs().min(rect.height);
                let height = rect.height - by;
                let y = if down > 0 { rect.y + by } else { rect.y };
                if height > 0 {
                    picture.copy_rows(Rect { y, height, ..rect }, down.signum() * by as i32);
                }
                let bare = if down > 0 { rect.y } else { rect.y + height };
                (bare..bare + by).for_each(|y| picture.row_mut(rect.x, y, rect.width).fill(0x33));
            });
        }
        Change::Resize(width, height) => *grid = Grid::new(Picture::new(width, height)),
    }
}

fn hash(x: u32, y: u32, seed: u32) -> u32 {
    (x.wrapping_mul(0x9e37_79b9) ^ y.wrapping_mul(0x85eb_ca6b) ^ seed.wrapping_mul(0xc2b2_ae35))
        .rotate_left(13)
        % 1009
}

fn changes() -> impl Strategy<Value = Change> {
    let rect = (0u32..320, 0u32..240, 1u32..320, 1u32..240).prop_map(|(x, y, width, height)| Rect {
        x,
        y,
        width,
        height,
    });
    prop_oneof![
        3 => (rect.clone(), 0u32..0x100_0000).prop_map(|(rect, colour)| Change::Fill(rect, colour)),
        4 => (rect.clone(), 0u32..9).prop_map(|(rect, seed)| Change::Text(rect, seed)),
        3 => (rect.clone(), 0u32..9).prop_map(|(rect, seed)| Change::Photo(rect, seed)),
        4 => (rect, -40i32..40).prop_map(|(rect, down)| Change::Scroll(rect, down)),
        1 => (1u32..320, 1u32..240).prop_map(|(width, height)| Change::Resize(width, height)),
    ]
}

/// A screen, somebody who looks at it, and the line between them.
struct Scene {
    grid: Grid,
    studio: Studio,
    viewer: Viewer,
    screen: Screen,
    underway: Vec<(u32, Vec<u8>)>,
    now: u64,
}

impl Scene {
    fn new(width: u32, height: u32) -> Scene {
        Scene {
            grid: Grid::new(Picture::new(width, height)),
            studio: Studio::default(),
            viewer: Viewer::default(),
            screen: Screen::default(),
            underway: Vec::new(),
            now: 0,
        }
    }

    /// Sends what there is to send. Returns how many bytes that were.
    fn send(&mut self) -> usize {
        let mut sent = 0;
        while let Some((number, plan)) = self.viewer.next(&self.grid, self.now) {
            let message = self.studio.prepare(number, &self.grid, plan).message().unwrap();
            self.viewer.sent(message.len() as u64);
            sent += message.len();
            self.underway.push((number, message));
            assert!(self.underway.len() <= 2, "no backlog");
        }
        sent
    }

    /// The oldest update arrives.
    fn arrive(&mut self) {
        if !self.underway.is_empty() {
            let (number, message) = self.underway.remove(0);
            self.screen.show(&message);
            self.viewer.acknowledge(number, self.now);
        }
    }

    /// Nothing happens for so long, but that everything arrives.
    fn rest(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 10;
            self.arrive();
            self.send();
        }
        while !self.underway.is_empty() {
            self.arrive();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_happens_what_stands_still_is_shown_exactly(
        steps in prop::collection::vec((changes(), 0u64..200, 0usize..4), 1..40),
    ) {
        let mut scene = Scene::new(300, 200);
        for (change, ms, arrivals) in steps {
            apply(&mut scene.grid, &change, scene.now);
            scene.send();
            (0..arrivals).for_each(|_| scene.arrive());
            scene.now += ms;
        }
        scene.rest(2000);
        prop_assert!(scene.viewer.is_exact(&scene.grid));
        scene.screen.assert_shows(scene.grid.picture());
        prop_assert_eq!(scene.send(), 0, "a still picture costs nothing");
        prop_assert_eq!(scene.viewer.due(&scene.grid), None);
    }
}

#[test]
fn text_is_exact_at_once_and_what_moves_is_when_it_stands_still() {
    let mut scene = Scene::new(640, 480);
    let text = Rect { x: 0, y: 0, width: 640, height: 240 };
    let film = Rect { x: 0, y: 256, width: 640, height: 224 };
    for turn in 0..20 {
        apply(&mut scene.grid, &Change::Photo(film, turn * 31), scene.now);
        apply(&mut scene.grid, &Change::Text(text, turn), scene.now);
        scene.send();
        scene.arrive();
        scene.screen.assert_shows_within(scene.grid.picture(), Rect { height: 192, ..text });
        scene.now += 33;
    }
    assert!(!scene.viewer.is_exact(&scene.grid), "a film goes roughly");
    let stopped = scene.now;
    while !scene.viewer.is_exact(&scene.grid) {
        scene.rest(10);
    }
    assert!(scene.now - stopped <= 2000);
    scene.screen.assert_shows(scene.grid.picture());
}

#[test]
fn text_that_scrolls_is_moved_and_only_what_is_new_is_sent() {
    let mut scene = Scene::new(1280, 720);
    let all = scene.grid.picture().area();
    apply(&mut scene.grid, &Change::Text(all, 1), 0);
    let whole = scene.send();
    scene.rest(100);
    let mut scrolled = 0;
    for line in 0..20 {
        apply(&mut scene.grid, &Change::Scroll(all, -16), scene.now);
        let last = Rect { y: 704, height: 16, ..all };
        apply(&mut scene.grid, &Change::Text(last, 5 + line), scene.now);
        scrolled += scene.send();
        scene.rest(30);
        scene.screen.assert_shows(scene.grid.picture());
    }
    assert!(scrolled / 20 < whole / 6, "{} bytes for each line, {whole} for all", scrolled / 20);
}

#[test]
fn who_does_not_answer_is_sent_two_updates_and_then_the_newest() {
    let mut scene = Scene::new(640, 480);
    let all = scene.grid.picture().area();
    for turn in 0..100 {
        apply(&mut scene.grid, &Change::Text(all, turn), scene.now);
        scene.send();
        scene.now += 30;
    }
    assert_eq!(scene.underway.len(), 2);
    scene.arrive();
    scene.send();
    scene.arrive();
    scene.arrive();
    scene.screen.assert_shows(scene.grid.picture());
}

#[test]
fn what_was_there_before_is_not_sent_again() {
    let mut scene = Scene::new(640, 480);
    let all = scene.grid.picture().area();
    let mut sizes = Vec::new();
    for turn in [1, 2, 1, 2] {
        apply(&mut scene.grid, &Change::Text(all, turn), scene.now);
        sizes.push(scene.send());
        scene.rest(200);
    }
    scene.screen.assert_shows(scene.grid.picture());
    assert!(sizes[2] < 600 && sizes[3] < 600 && sizes[0] > 10_000, "{sizes:?}");
}

#[test]
fn viewers_who_need_the_same_get_it_encoded_once() {
    let studio = Studio::default();
    let mut grid = Grid::new(Picture::new(1280, 720));
    let all = grid.picture().area();
    apply(&mut grid, &Change::Photo(all, 3), 5);
    let mut viewers: Vec<Viewer> = (0..20).map(|_| Viewer::default()).collect();
    let messages = viewers.iter_mut().map(|viewer| {
        let (number, plan) = viewer.next(&grid, 5).unwrap();
        studio.prepare(number, &grid, plan).message().unwrap()
    });
    let messages: Vec<Vec<u8>> = messages.collect();
    assert!(messages.iter().all(|message| *message == messages[0]));
    assert_eq!(studio.encoded(), 1);
}

#[test]
fn what_looks_like_what_is_elsewhere_is_exact_in_the_end() {
    // A photograph whose upper rows are there twice, a little further down as well: as if it had scrolled.
    let mut scene = Scene::new(256, 192);
    let all = scene.grid.picture().area();
    apply(&mut scene.grid, &Change::Photo(Rect { height: 64, ..all }, 3), scene.now);
    scene.rest(2000);
    scene.grid.draw(all, scene.now, |picture, rect| {
        picture.copy_rows(Rect { y: 96, height: 40, ..rect }, 96);
        picture.row_mut(0, 140, 256).iter_mut().zip(0u32..).for_each(|(pixel, x)| *pixel = x * 0x01_0203);
    });
    scene.rest(2000);
    assert!(scene.viewer.is_exact(&scene.grid));
    assert_eq!(scene.send(), 0, "a still picture costs nothing");
}
