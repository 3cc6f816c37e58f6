//! A snapshot's disk, served read-only over NBD for as long as somebody wants it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use watari_disk::nbd::{Export, ReadOnly, Server};
use watari_keeper::StoreSource;
use watari_types::RegionName;

use crate::api::{ExportInfo, ExportRequest};
use crate::gc::Pin;
use crate::node::Node;
use crate::{Error, Result};

/// The only export of a socket has no name, so that programs need only the socket.
const DEFAULT_EXPORT: &str = "";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// An export that is served until this is dropped.
pub(crate) struct Served {
    pub(crate) info: ExportInfo,
    socket: PathBuf,
    server: Option<Server>,
    _pin: Pin,
}

impl Node {
    /// Serves a disk of a snapshot.
    pub(crate) fn export(&self, request: &ExportRequest) -> Result<Served> {
        let _lease = self.store.lease()?;
        let found = self.resolve(&request.rev)?;
        let pin = self.pins.pin(found.id);
        let snapshot = self.store.snapshot(found.id)?;
        let disks = &snapshot.draft.config.disks;
        let bytes = disks.get(request.disk).map(|disk| disk.bytes).ok_or_else(|| Error::BadRevision {
            rev: request.rev.clone(),
            problem: format!("has no disk {}", request.disk),
            hint: match disks.len() {
                0 => "the machine has no disks".to_owned(),
                count => format!("it has {count}; --disk counts from 0"),
            },
        })?;
        let source = StoreSource::open(&self.store, found.id, &RegionName::disk(request.disk))?;
        let export: Arc<dyn Export> = Arc::new(ReadOnly::new(Arc::new(source), bytes));
        let socket = self.export_socket()?;
        let listener = UnixListener::bind(&socket).map_err(Error::io("listen on", &socket))?;
        let exports = BTreeMap::from([(DEFAULT_EXPORT.to_owned(), export)]);
        let server = Server::start(listener, exports).map_err(Error::io("serve on", &socket))?;
        let uri = format!("nbd+unix:///?socket={}", percent_encode(&socket.to_string_lossy()));
        Ok(Served {
            info: ExportInfo { uri, snapshot: found.id, bytes },
            socket,
            server: Some(server),
            _pin: pin,
        })
    }

    /// A socket's name that is free. No machine's name begins with a dot, so the folder is no machine's.
    fn export_socket(&self) -> Result<PathBuf> {
        let folder = self.home.root().join("run/.exports");
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(folder.join(format!("{}-{number}", std::process::id())))
    }

    /// Removes the sockets of exports that a killed daemon left. Called while no export is served.
    pub(crate) fn remove_old_exports(&self) -> Result<()> {
        crate::create::remove_folder(&self.home.root().join("run/.exports"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
        let server = self.server.take();
        // Ending the server waits for its threads, and a connection is dropped where nothing may wait.
        let _ = std::thread::Builder::new().name("end of export".to_owned()).spawn(move || drop(server));
    }
}

/// Writes a path into a URI's query: RFC 3986, section 2.3 names what may stand for itself, and `/` may too.
fn percent_encode(path: &str) -> String {
    path.bytes().fold(String::new(), |mut uri, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(byte.into())
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
        uri
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_anything_in_it_is_one_query_value() {
        assert_eq!(percent_encode("/home/a b/é&x"), "/home/a%20b/%C3%A9%26x");
    }
}
