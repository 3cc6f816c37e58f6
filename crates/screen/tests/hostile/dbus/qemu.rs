//! What may be QEMU: a real peer as long as it greets and calls.

use std::fs::File;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::Serialize;
use serde_bytes::ByteBuf;
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use watari_screen::Picture;
use zbus::connection::Builder;
use zbus::zvariant::{self, DynamicType, Fd};
use zbus::{Connection, Guid};

use super::act::{Act, Memory, Place, Shape};
use super::reader::Reader;
use crate::hostile::{MOST_PIXELS, Said};

const CONSOLE: &str = "/org/qemu/Display1/Console_0";
const LISTENER: &str = "/org/qemu/Display1/Listener";

/// Does all that an input says, and hangs up. Returns what is shown then, if that is known.
pub(super) async fn does(socket: UnixStream, begin: usize, mut said: Said<'_>) -> Option<Picture> {
    if begin % 4 == 1 {
        say(socket, said.0).await;
        return None;
    }
    let (registered, listener) = oneshot::channel();
    let console = peer(socket).serve_at(CONSOLE, Console(Mutex::new(Some(registered)))).unwrap();
    let console = console.build().await.unwrap();
    let listener = listener.await.unwrap();
    let shown = match begin % 4 {
        0 => call(listener, &mut said).await,
        2 => {
            say(listener, said.0).await;
            None
        }
        _ => {
            drop(listener);
            console.closed().await;
            None
        }
    };
    console.graceful_shutdown().await;
    shown
}

/// QEMU's console, as far as it is looked at.
struct Console(Mutex<Option<oneshot::Sender<UnixStream>>>);

#[zbus::interface(name = "org.qemu.Display1.Console")]
impl Console {
    fn register_listener(&self, listener: zvariant::OwnedFd) {
        if let Some(registered) = self.0.lock().unwrap().take() {
            let _ = registered.send(UnixStream::from(OwnedFd::from(listener)));
        }
    }
}

fn peer(socket: UnixStream) -> Builder<'static> {
    Builder::unix_stream(ready(socket)).server(Guid::generate()).unwrap().p2p()
}

fn ready(socket: UnixStream) -> tokio::net::UnixStream {
    socket.set_nonblocking(true).unwrap();
    tokio::net::UnixStream::from_std(socket).unwrap()
}

/// Says this, and hears the other one out.
async fn say(mut socket: UnixStream, what: &[u8]) {
    // A socket holds as much. Who has heard enough may be gone.
    let _ = socket.write_all(what);
    let _ = socket.shutdown(Shutdown::Write);
    let _ = ready(socket).read_to_end(&mut Vec::new()).await;
}

async fn call(socket: UnixStream, said: &mut Said<'_>) -> Option<Picture> {
    let mut raw = socket.try_clone().unwrap();
    let listener = peer(socket).build().await.unwrap();
    let mut qemu = Qemu { listener, reader: Reader::new(), memory: None };
    while let Some(act) = Act::next(said) {
        match act {
            Act::Bytes(bytes) => {
                let _ = raw.write_all(&bytes);
                let _ = raw.shutdown(Shutdown::Write);
                qemu.listener.closed().await;
                return None;
            }
            Act::Scanout(shape, _) | Act::ScanoutMap(_, shape)
                if shape.is_fine() && shape.width as usize * shape.height as usize > MOST_PIXELS =>
            {
                break;
            }
            act => qemu.act(act).await,
        }
        if qemu.reader.pixels > MOST_PIXELS {
            break;
        }
    }
    Some(qemu.reader.picture)
}

struct Qemu {
    listener: Connection,
    reader: Reader,
    memory: Option<File>,
}

impl Qemu {
    async fn act(&mut self, act: Act) {
        let described = format!("{act:.200?}");
        let (is_taken, is_fine) = match act {
            Act::Scanout(shape, data) => {
                let is_fine = self.reader.scanout(shape, &data);
                let Shape { width, height, stride, format } = shape;
                let body = (width, height, stride, format, ByteBuf::from(data));
                (self.call("", "Scanout", &body).await, is_fine)
            }
            Act::Update(place, shape, data) => {
                let is_fine = self.reader.update(place, shape, &data);
                let [x, y, width, height] = place;
                let body = (x, y, width, height, shape.stride, shape.format, ByteBuf::from(data));
                (self.call("", "Update", &body).await, is_fine)
            }
            Act::ScanoutMap(memory, shape) => {
                let file = file(&memory);
                let is_fine = self.reader.scanout_map(file.try_clone().unwrap(), memory.offset, shape);
                let Shape { width, height, stride, format } = shape;
                let body = (Fd::from(file.as_fd()), memory.offset, width, height, stride, format);
                let is_taken = self.call(".Unix.Map", "ScanoutMap", &body).await;
                self.memory = Some(file);
                (is_taken, is_fine)
            }
            Act::UpdateMap([x, y, width, height]) => {
                let is_fine = self.reader.update_map([x, y, width, height]);
                (self.call(".Unix.Map", "UpdateMap", &(x, y, width, height)).await, is_fine)
            }
            Act::Disable => {
                self.reader.disable();
                (self.call("", "Disable", &()).await, true)
            }
            Act::Other(which, place, data) => self.other(which, place, data).await,
            Act::Resize(size) => return self.change(|memory| memory.set_len(size.into())),
            Act::Write(at, data) => return self.change(|memory| memory.write_all_at(&data, at.into())),
            Act::Bytes(_) => return,
        };
        assert_eq!(is_taken, is_fine, "whether it is taken: {described}");
    }

    /// Calls something that has to do with no picture. Returns whether it was taken, and whether it is to be.
    async fn other(&self, which: u8, [x, y, width, height]: Place, data: Vec<u8>) -> (bool, bool) {
        let place = (x, y, width, height);
        match which % 8 {
            0 => {
                let cursor = (x, y, width, height, ByteBuf::from(data));
                (self.call("", "CursorDefine", &cursor).await, true)
            }
            1 => (self.call("", "MouseSet", &(x, y, width)).await, true),
            2 => (self.call("", "ScanoutDMABUF", &place).await, false),
            3 => (self.call("", "UpdateDMABUF", &place).await, false),
            4 => (self.call(".Unix.ScanoutDMABUF2", "ScanoutDMABUF2", &place).await, false),
            5 => (self.call("", "Scanout", &place).await, false),
            6 => (self.call("", "UpdateMap", &place).await, false),
            _ => (self.call(".Unix.Map", "ScanoutMap", &(7_u32, ByteBuf::from(data))).await, false),
        }
    }

    /// Whether a call is taken.
    async fn call(&self, interface: &str, method: &str, body: &(impl Serialize + DynamicType)) -> bool {
        let interface = format!("org.qemu.Display1.Listener{interface}");
        let called = self.listener.call_method(None::<&str>, LISTENER, Some(&*interface), method, body).await;
        match called {
            Ok(_) => true,
            Err(zbus::Error::MethodError(..)) => false,
            Err(error) => panic!("{method} is not answered: {error}"),
        }
    }

    /// What cannot be done to a memory is not done.
    fn change(&self, change: impl FnOnce(&File) -> std::io::Result<()>) {
        let _ = self.memory.as_ref().map(change);
    }
}

fn file(memory: &Memory) -> File {
    if !memory.is_one {
        return File::from(OwnedFd::from(UnixStream::pair().unwrap().0));
    }
    let file = File::from(memfd_create("hostile", MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(&memory.data, 0).unwrap();
    file.set_len(memory.size.into()).unwrap();
    file
}
