//! Depots in an S3 bucket, of a real server on loopback.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use watari_depot::{Access, Address, Depot, Error, Secret};
use watari_store::Store;

use crate::History;
use crate::support::damage;

/// An S3 server with one bucket, until it is dropped.
struct Server {
    _runtime: Runtime,
    folder: TempDir,
    address: SocketAddr,
}

impl Server {
    fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bucket")).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single("key", "secret"));
        let service = builder.build();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let http = Builder::new(TokioExecutor::new());
                    drop(http.serve_connection(TokioIo::new(socket), service).await);
                });
            }
        });
        Server { _runtime: runtime, folder, address }
    }

    fn open(&self, at: &str, secret: &str, sealed: Option<&Secret>, access: Access) -> Result<Store, Error> {
        self.open_with(at, secret, sealed, access, None)
    }

    fn open_with(
        &self,
        at: &str,
        secret: &str,
        sealed: Option<&Secret>,
        access: Access,
        nearby: Option<&Path>,
    ) -> Result<Store, Error> {
        let settings: BTreeMap<String, String> = [
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_REGION", "here".to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let address = Address::parse(at).unwrap();
        let depot = Depot { address: &address, secret: sealed, settings: &settings, nearby };
        watari_depot::open(&depot, access)
    }
}

#[test]
fn a_bucket_holds_what_a_folder_does() {
    let (history, server) = (History::new(), Server::start());
    for sealed in [None, Some(Secret::passphrase("w".to_owned()))] {
        let at = if sealed.is_some() { "s3://bucket/sealed" } else { "s3://bucket/open/depot" };
        let open = |access| server.open(at, "secret", sealed.as_ref(), access);
        assert!(open(Access::Read).is_err(), "nothing is there yet");
        for at in [0, 1, 3] {
            assert!(history.send(at, &open(Access::Write).unwrap()).unwrap() > 0);
            assert_eq!(history.send(at, &open(Access::Write).unwrap()).unwrap(), 0);
        }
        assert_eq!(history.compare(&open(Access::Read).unwrap()), 3);
    }
}

#[test]
fn what_is_remembered_of_a_bucket_is_not_fetched_again_and_is_only_believed_if_it_is_right() {
    let (history, server, cache) = (History::new(), Server::start(), tempfile::tempdir().unwrap());
    let nearby = cache.path().join("packs");
    let open = |nearby| server.open_with("s3://bucket/d", "secret", None, Access::Write, nearby);
    for at in 0..4 {
        history.send(at, &open(Some(&nearby)).unwrap()).unwrap();
    }
    assert_eq!(history.compare(&open(Some(&nearby)).unwrap()), 4);
    let remembered: Vec<_> = fs::read_dir(&nearby).unwrap().map(|entry| entry.unwrap().path()).collect();
    let packs = server.folder.path().join("bucket/d/packs");
    assert_eq!(remembered.len(), fs::read_dir(&packs).unwrap().count());

    // Its indexes cannot be read any more, and need not be.
    for entry in fs::read_dir(&packs).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 80;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(history.compare(&open(Some(&nearby)).unwrap()), 4);
    assert!(!damage(&open(None).unwrap()).is_empty());

    for path in &remembered {
        fs::write(path, fs::read(path).unwrap().iter().map(|byte| byte ^ 4).collect::<Vec<_>>()).unwrap();
    }
    assert!(!damage(&open(Some(&nearby)).unwrap()).is_empty(), "what is wrong is not believed");
}

#[test]
fn a_bucket_that_may_not_be_used_is_told_of_in_one_line() {
    let (history, server) = (History::new(), Server::start());
    for (at, secret, access) in [
        ("s3://bucket/a", "wrong", Access::Read),
        ("s3://bucket/a", "wrong", Access::Write),
        ("s3://nowhere/a", "secret", Access::Read),
    ] {
        let refused = server.open(at, secret, None, access).err().unwrap().report();
        assert!(!refused.message.contains('\n') && refused.message.contains(at), "{refused:?}");
    }
    let address = Address::parse("s3://bucket/a").unwrap();
    let refused = watari_depot::open(
        &Depot { address: &address, secret: None, settings: &BTreeMap::new(), nearby: None },
        Access::Write,
    );
    assert!(refused.err().unwrap().report().hint.contains("AWS_ACCESS_KEY_ID"));

    // The server goes away in the middle.
    let depot = server.open("s3://bucket/a", "secret", None, Access::Write).unwrap();
    fs::rename(server.folder.path().join("bucket"), server.folder.path().join("away")).unwrap();
    assert!(history.send(0, &depot).is_err());
    fs::rename(server.folder.path().join("away"), server.folder.path().join("bucket")).unwrap();
    history.send(0, &depot).unwrap();
    assert_eq!(history.compare(&server.open("s3://bucket/a", "secret", None, Access::Read).unwrap()), 1);
}
