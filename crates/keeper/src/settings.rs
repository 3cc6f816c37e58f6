//! `node/settings.toml`: what the person who runs the node decides instead of Watari. Normally not there.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use watari_qemu::Accel;
use watari_ram::TrackerChoice;
use watari_types::NodeName;

use crate::home::Home;
use crate::{Error, Result};

/// Decisions a person took. What is not decided is found out by testing the host.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `"compare"`: find written pages by comparing them, even where the kernel could tell.
    pub tracker: Option<Tracker>,
    /// `"kvm"` or `"tcg"`: run guests this way, even if the test of the host says otherwise.
    pub accelerator: Option<Accel>,
    /// How the node is reached by others of its mesh.
    pub mesh: MeshSettings,
    /// Where the web page is.
    pub web: WebSettings,
}

/// Where browsers find the web page, if not on 127.0.0.1.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSettings {
    /// Where it listens, as `"0.0.0.0:8443"`.
    pub listen: Option<SocketAddr>,
    /// What it is called, if not by an address or `localhost`: the names in the certificate, or those of a proxy before it.
    pub names: Vec<String>,
    /// The certificate, with those that lead from it to one that browsers know: a file of PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, likewise.
    pub key: Option<PathBuf>,
}

/// How a node is reached by others, if not by what it finds itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeshSettings {
    /// What it calls itself, if not what the computer is called.
    pub name: Option<NodeName>,
    /// Where it listens, as `["192.0.2.7:4917"]`; on all addresses and a port that is free without it.
    pub listen: Vec<SocketAddr>,
    /// The URL of a relay that helps where there is no direct way. None without it.
    pub relay: Option<String>,
}

/// A tracker that a person can insist on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tracker {
    /// Compare every page with what it was.
    Compare,
}

impl Settings {
    /// Reads the node's settings; without a file nothing is decided.
    pub fn load(home: &Home) -> Result<Settings> {
        let path = home.node_file("settings.toml");
        match fs::read_to_string(&path) {
            Ok(text) => {
                toml::from_str(&text).map_err(|source| Error::BadToml { path, source: Box::new(source) })
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Settings::default()),
            Err(e) => Err(Error::io("read", &path)(e)),
        }
    }

    /// How pages are to be tracked.
    pub(crate) fn tracker_choice(&self) -> TrackerChoice {
        match self.tracker {
            Some(Tracker::Compare) => TrackerChoice::Compare,
            None => TrackerChoice::Best,
        }
    }
}
