//! Where the web page is: on 127.0.0.1, or where the person who runs the node wants it, then with a certificate.

use std::fs;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use watari_keeper::WebSettings;
use watari_keeper::home::Home;

use super::GRACE;
use crate::{Error, Result};

/// A place where the page can be served.
pub(super) struct Place {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    /// The page's address without a path.
    pub(super) origin: String,
}

impl Place {
    /// Listens where `settings` say, or on 127.0.0.1: on `port`, or, if that is 0, where it was the last time, or else on any port
    /// that is free. So pages that are open, and bookmarks, find the daemon again.
    ///
    /// # Errors
    /// Nobody can listen there; the settings are beyond loopback without a certificate, or that cannot be used.
    pub(super) fn open(settings: &WebSettings, port: u16, home: &Home) -> Result<Place> {
        let tls = tls(settings)?;
        let listener = match settings.listen {
            Some(address) if tls.is_none() && !address.ip().is_loopback() => {
                return Err(Error::OpenPage(address));
            }
            Some(address) => bind(address)?,
            None => bind_again(port, &home.node_file("web-port"))?,
        };
        let address = listener.local_addr().map_err(Error::io("listen on", Path::new("a port")))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let host = match settings.names.first() {
            Some(name) => format!("{name}:{}", address.port()),
            None if address.ip().is_unspecified() => format!("localhost:{}", address.port()),
            None => address.to_string(),
        };
        Ok(Place { listener, tls, origin: format!("{scheme}://{host}") })
    }

    /// Serves the page until `stopped` completes, and requests under way are answered.
    pub(super) async fn serve(self, router: Router, stopped: impl Future<Output = ()>) -> io::Result<()> {
        let handle = Handle::new();
        self.listener.set_nonblocking(true)?;
        let server = axum_server::from_tcp(self.listener)?.handle(handle.clone());
        let page = router.into_make_service();
        let serving = async {
            match self.tls {
                Some(tls) => {
                    server.acceptor(RustlsAcceptor::new(RustlsConfig::from_config(tls))).serve(page).await
                }
                None => server.serve(page).await,
            }
        };
        let stopping = async {
            stopped.await;
            handle.graceful_shutdown(Some(GRACE));
        };
        tokio::join!(serving, stopping).0
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(Error::io("listen on", Path::new(&address.to_string())))
}

fn bind_again(port: u16, kept: &Path) -> Result<TcpListener> {
    let on = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if port == 0
        && let Some(last) = fs::read_to_string(kept).ok().and_then(|text| text.trim().parse().ok())
        && let Ok(listener) = TcpListener::bind(on(last))
    {
        return Ok(listener);
    }
    let listener = bind(on(port))?;
    let address = listener.local_addr().map_err(Error::io("listen on", Path::new("127.0.0.1")))?;
    fs::write(kept, format!("{}\n", address.port())).map_err(Error::io("write", kept))?;
    Ok(listener)
}

/// The certificate that the page proves itself with, if there is to be one.
fn tls(settings: &WebSettings) -> Result<Option<Arc<ServerConfig>>> {
    let (certificate, key) = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Ok(None),
        (Some(path), None) | (None, Some(path)) => {
            return Err(Error::BadCertificate {
                path: path.clone(),
                source: "it needs both, `certificate` and `key`".into(),
            });
        }
    };
    let chain =
        CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| Error::BadCertificate { path: certificate.clone(), source: source.into() })?;
    let unusable = |source| Error::BadCertificate { path: key.clone(), source };
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| unusable(source.into()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|config| config.with_no_client_auth())
        .and_then(|config| config.with_single_cert(chain, key))
        .map_err(|source| unusable(source.into()))?;
    // Browsers open WebSockets over this one.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}
