//! A relay, as its makers have it, in a network namespace, for as long as this lives.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use iroh_relay::defaults::DEFAULT_RELAY_QUIC_PORT;
use iroh_relay::server::{CertConfig, QuicConfig, RelayConfig, Server, ServerConfig, TlsConfig};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::ServerConfig as Tls;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use tokio::sync::oneshot;

pub struct Relay {
    folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts it there, with a certificate of its own.
    pub fn start(space: &str, address: &str) -> Relay {
        let folder = tempfile::tempdir().unwrap();
        let tls = certify(address, &folder.path().join("certificate.pem"));
        let (space, address) = (Path::new("/run/netns").join(space), address.parse().unwrap());
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let space = File::open(space).unwrap();
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.unwrap().block_on(async {
                let server = Server::spawn(config(address, tls)).await.unwrap();
                ready.send(()).unwrap();
                let _ = stopped.await;
                server.shutdown().await.unwrap();
            });
        });
        is_ready.recv().unwrap();
        Relay { folder, stop: Some(stop), thread: Some(thread) }
    }

    /// The certificate that is to be trusted.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn certify(address: &str, file: &Path) -> Tls {
    let own = rcgen::generate_simple_self_signed(vec![address.to_owned()]).unwrap();
    fs::write(file, own.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    Tls::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())
        .unwrap()
}

fn config(address: IpAddr, server_config: Tls) -> ServerConfig {
    let at = |port| SocketAddr::new(address, port);
    let mut relay = RelayConfig::new(at(80));
    relay.tls = Some(TlsConfig::new(at(443), CertConfig::Manual { server_config: server_config.clone() }));
    let mut quic = QuicConfig::new(at(DEFAULT_RELAY_QUIC_PORT));
    quic.server_config = Some(server_config);
    let mut config = ServerConfig::default();
    (config.relay, config.quic) = (Some(relay), Some(quic));
    config
}
