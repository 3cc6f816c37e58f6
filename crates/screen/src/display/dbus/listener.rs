//! What QEMU calls to say what it shows.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use zbus::fdo;
use zbus::zvariant;

use super::surface::{Layout, Surface, copy};
use crate::display::Screen;
use crate::{Grid, Rect};

/// Pictures that are sent.
pub(super) struct Listener {
    screen: Arc<Screen>,
}

/// Pictures in memory that is shared.
pub(super) struct MapListener {
    screen: Arc<Screen>,
    surface: Mutex<Option<Surface>>,
}

impl Listener {
    pub(super) fn new(screen: &Arc<Screen>) -> Listener {
        Listener { screen: Arc::clone(screen) }
    }
}

impl MapListener {
    pub(super) fn new(screen: &Arc<Screen>) -> MapListener {
        MapListener { screen: Arc::clone(screen), surface: Mutex::new(None) }
    }
}

// One call after the other, as they came: QEMU waits for no answer when it has drawn.
#[zbus::interface(name = "org.qemu.Display1.Listener", spawn = false)]
impl Listener {
    fn scanout(&self, width: u32, height: u32, stride: u32, format: u32, data: ByteBuf) -> fdo::Result<()> {
        let layout = Layout::new(width, height, stride, format).ok_or_else(unknown)?;
        self.screen.change(|grid, now| {
            grid.resize(layout.width, layout.height);
            let area = grid.picture().area();
            grid.draw(area, now, |picture, rect| copy(picture, rect, &layout, &data));
        });
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "they are QEMU's")]
    fn update(
        &self,
        x: i32,
        y: i32,
        width: i32,
        height: i32,
        stride: u32,
        format: u32,
        data: ByteBuf,
    ) -> fdo::Result<()> {
        let rect = part(x, y, width, height)?;
        let layout = Layout::new(rect.width, rect.height, stride, format).ok_or_else(unknown)?;
        self.screen.change(|grid, now| {
            grid.draw(rect, now, |picture, rect| copy(picture, rect, &layout, &data));
        });
        Ok(())
    }

    /// Nothing is shown any more.
    fn disable(&self) {
        self.screen.change(|grid, now| {
            let area = grid.picture().area();
            grid.draw(area, now, |picture, rect| {
                (0..rect.height).for_each(|y| picture.row_mut(0, y, rect.width).fill(0));
            });
        });
    }

    /// Where a guest wants the pointer to be: viewers show their own.
    fn mouse_set(&self, _x: i32, _y: i32, _is_shown: i32) {}

    /// What a pointer looks like: no card of ours has one of its own.
    fn cursor_define(&self, _width: i32, _height: i32, _hot_x: i32, _hot_y: i32, _data: ByteBuf) {}

    #[zbus(property)]
    fn interfaces(&self) -> Vec<String> {
        vec!["org.qemu.Display1.Listener.Unix.Map".to_owned()]
    }
}

#[zbus::interface(name = "org.qemu.Display1.Listener.Unix.Map", spawn = false)]
impl MapListener {
    fn scanout_map(
        &self,
        memory: zvariant::OwnedFd,
        offset: u32,
        width: u32,
        height: u32,
        stride: u32,
        format: u32,
    ) -> fdo::Result<()> {
        let layout = Layout::new(width, height, stride, format).ok_or_else(unknown)?;
        let surface = Surface::new(File::from(OwnedFd::from(memory)), offset.into(), layout);
        let mut kept = self.surface.lock();
        let area = Rect { x: 0, y: 0, width, height };
        self.draw(kept.insert(surface), area, |grid| grid.resize(layout.width, layout.height))
    }

    fn update_map(&self, x: i32, y: i32, width: i32, height: i32) -> fdo::Result<()> {
        let rect = part(x, y, width, height)?;
        match &*self.surface.lock() {
            Some(surface) => self.draw(surface, rect, |_| ()),
            None => Err(fdo::Error::Failed("nothing is shown".to_owned())),
        }
    }
}

impl MapListener {
    fn draw(&self, surface: &Surface, rect: Rect, first: impl FnOnce(&mut Grid)) -> fdo::Result<()> {
        let mut read = Ok(());
        self.screen.change(|grid, now| {
            first(grid);
            grid.draw(rect, now, |picture, rect| read = surface.read_into(picture, rect));
        });
        read.map_err(|error| fdo::Error::IOError(error.to_string()))
    }
}

fn part(x: i32, y: i32, width: i32, height: i32) -> fdo::Result<Rect> {
    let side = |number: i32| u32::try_from(number).map_err(|_| unknown());
    Ok(Rect { x: side(x)?, y: side(y)?, width: side(width)?, height: side(height)? })
}

fn unknown() -> fdo::Error {
    fdo::Error::NotSupported("a picture that is not understood".to_owned())
}
