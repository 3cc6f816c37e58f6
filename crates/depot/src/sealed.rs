//! Files under encryption: contents with age, names with AES-SIV, both by libraries.
//!
//! A depot has a key of its own, an X25519 identity. What opens it, a passphrase or other identities, only encrypts that
//! one, in `key.age`; so opening costs the slow hash of the passphrase once, and what opens it can be changed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::iter;
use std::str::FromStr;
use std::sync::Arc;

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use age::secrecy::{ExposeSecret, SecretString};
use age::stream::StreamReader;
use age::{DecryptError, Decryptor, Encryptor, Identity, Recipient, scrypt, x25519};
use data_encoding::BASE32_NOPAD;
use parking_lot::Mutex;
use watari_store::{Files, ReadAt};
use zeroize::Zeroizing;

use crate::{Error, short};

/// What opens a depot's key.
pub(crate) const KEY: &str = "key.age";
/// Where everything else is.
const OBJECTS: &str = "objects";
/// Names are made a multiple of this long before they are encrypted: all but those of long tags are then of one length.
const NAME_BYTES: usize = 48;
const NAME_KEY_CONTEXT: &str = "watari 2026-11-22 names of files in an encrypted depot";
/// A key is not longer.
const MOST_KEY: u64 = 64 << 10;

/// What a person opens an encrypted depot with.
#[derive(Clone)]
pub enum Secret {
    /// Words.
    Passphrase(SecretString),
    /// The content of a file of age identities, as `age-keygen` writes it. Each of them opens what is begun with it.
    Identities(SecretString),
}

impl Secret {
    /// Words.
    pub fn passphrase(words: String) -> Secret {
        Secret::Passphrase(words.into())
    }

    /// The content of a file of age identities.
    pub fn identities(text: String) -> Secret {
        Secret::Identities(text.into())
    }

    fn keys_in(text: &SecretString) -> Result<Vec<x25519::Identity>, Error> {
        let lines = text.expose_secret().lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Result<Vec<_>, Error> = keys
            .map(|key| x25519::Identity::from_str(key).map_err(|e| Error::BadIdentity(e.to_owned())))
            .collect();
        let keys = keys?;
        if keys.is_empty() { Err(Error::BadIdentity("there is none in it".to_owned())) } else { Ok(keys) }
    }

    /// Encrypts a depot's key.
    fn seal(&self, place: &str, key: &SecretString) -> Result<Vec<u8>, Error> {
        let failed = |source| Error::Seal { place: place.to_owned(), source: Box::new(source) };
        let recipients: Vec<Box<dyn Recipient>> = match self {
            Secret::Passphrase(words) => vec![Box::new(scrypt::Recipient::new(words.clone()))],
            Secret::Identities(text) => {
                let boxed = |key: x25519::Identity| Box::new(key.to_public()) as Box<dyn Recipient>;
                Secret::keys_in(text)?.into_iter().map(boxed).collect()
            }
        };
        let encryptor = Encryptor::with_recipients(recipients.iter().map(|r| &**r)).map_err(failed)?;
        let write = || {
            let mut writer = encryptor.wrap_output(Vec::new())?;
            writer.write_all(key.expose_secret().as_bytes())?;
            writer.finish()
        };
        write().map_err(Error::io("make a key for", place))
    }

    /// Decrypts a depot's key.
    fn open(&self, place: &str, sealed: &[u8]) -> Result<x25519::Identity, Error> {
        let failed = |source| match source {
            DecryptError::NoMatchingKeys
            | DecryptError::KeyDecryptionFailed
            | DecryptError::DecryptionFailed => Error::WrongSecret(place.to_owned()),
            source => Error::Key { place: place.to_owned(), source: Box::new(source) },
        };
        let decryptor = Decryptor::new(sealed).map_err(failed)?;
        let identities: Vec<Box<dyn Identity>> = match self {
            Secret::Passphrase(words) => vec![Box::new(scrypt::Identity::new(words.clone()))],
            Secret::Identities(text) => {
                let boxed = |key| Box::new(key) as Box<dyn Identity>;
                Secret::keys_in(text)?.into_iter().map(boxed).collect()
            }
        };
        let reader = decryptor.decrypt(identities.iter().map(|i| &**i)).map_err(failed)?;
        let mut text = Zeroizing::new(String::new());
        reader.take(MOST_KEY).read_to_string(&mut text).map_err(Error::io("read the key of", place))?;
        x25519::Identity::from_str(text.trim()).map_err(|e| Error::BadIdentity(e.to_owned()))
    }
}

/// Whether files are under encryption.
pub(crate) fn is_sealed(files: &dyn Files) -> io::Result<bool> {
    match files.open(KEY) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Files that are kept encrypted in others.
pub(crate) struct Sealed {
    files: Arc<dyn Files>,
    key: x25519::Identity,
    names: Zeroizing<[u8; 64]>,
}

impl Sealed {
    /// Opens what is there, or begins it.
    pub(crate) fn open(files: Arc<dyn Files>, place: &str, secret: &Secret) -> Result<Sealed, Error> {
        if !is_sealed(&*files).map_err(Error::io("look at", place))? {
            let key = x25519::Identity::generate();
            let sealed = secret.seal(place, &key.to_string())?;
            let mut file = files.spool().map_err(Error::io("write for", place))?;
            let put =
                file.write_all(&sealed).and_then(|()| files.put(KEY, &file, sealed.len() as u64, false));
            // Somebody else's key may have been quicker: what is there counts.
            put.map_err(Error::io("write the key of", place))?;
        }
        let file = files.open(KEY).map_err(Error::io("read the key of", place))?;
        let mut sealed = vec![0; file.bytes().min(MOST_KEY) as usize];
        file.read_exact_at(&mut sealed, 0).map_err(Error::io("read the key of", place))?;
        let key = secret.open(place, &sealed)?;
        let mut names = Zeroizing::new([0; 64]);
        blake3::Hasher::new_derive_key(NAME_KEY_CONTEXT)
            .update(key.to_string().expose_secret().as_bytes())
            .finalize_xof()
            .fill(&mut *names);
        Ok(Sealed { files, key, names })
    }

    fn cipher(&self) -> Aes256Siv {
        Aes256Siv::new(&(*self.names).into())
    }

    /// What a file is called there: always the same.
    fn name(&self, name: &str) -> io::Result<String> {
        let mut padded = short::of(name);
        padded.resize(padded.len().next_multiple_of(NAME_BYTES), 0);
        let sealed = self.cipher().encrypt(iter::empty::<&[u8]>(), &padded);
        let sealed = sealed.map_err(|_| io::Error::other("its name cannot be encrypted"))?;
        Ok(format!("{OBJECTS}/{}", BASE32_NOPAD.encode(&sealed).to_ascii_lowercase()))
    }

    /// The file's name, if it is one of ours.
    fn clear(&self, name: &str) -> Option<String> {
        let sealed = BASE32_NOPAD.decode(name.to_ascii_uppercase().as_bytes()).ok()?;
        let padded = self.cipher().decrypt(iter::empty::<&[u8]>(), &sealed).ok()?;
        short::expand(&padded)
    }
}

impl Files for Sealed {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let below = |name: String| {
            let rest = self.clear(&name)?;
            let rest = rest.strip_prefix(folder)?.strip_prefix('/')?;
            Some(rest.split('/').next()?.to_owned())
        };
        let mut names: Vec<String> = self.files.list(OBJECTS)?.into_iter().filter_map(below).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadAt>> {
        let sealed = self.files.open(&self.name(name)?)?;
        let decryptor = Decryptor::new(Cursor { file: sealed, at: 0 }).map_err(damaged)?;
        let mut stream = decryptor.decrypt(iter::once(&self.key as &dyn Identity)).map_err(damaged)?;
        let bytes = stream.seek(SeekFrom::End(0))?;
        Ok(Box::new(Opened { stream: Mutex::new(stream), bytes }))
    }

    fn put(&self, name: &str, content: &File, bytes: u64, may_replace: bool) -> io::Result<bool> {
        let recipient = self.key.to_public();
        let encryptor = Encryptor::with_recipients(iter::once(&recipient as &dyn Recipient))
            .map_err(|e| io::Error::other(e.to_string()))?;
        let mut content = content.try_clone()?;
        content.seek(SeekFrom::Start(0))?;
        let mut writer = encryptor.wrap_output(io::BufWriter::new(self.files.spool()?))?;
        io::copy(&mut content.take(bytes), &mut writer)?;
        let mut sealed = writer.finish()?.into_inner().map_err(|e| e.into_error())?;
        let length = sealed.stream_position()?;
        self.files.put(&self.name(name)?, &sealed, length, may_replace)
    }

    fn spool(&self) -> io::Result<File> {
        self.files.spool()
    }
}

fn damaged(error: DecryptError) -> io::Error {
    match error {
        DecryptError::Io(e) => e,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

/// A file that is decrypted as it is read. Every part is authenticated before it is handed out.
struct Opened {
    stream: Mutex<StreamReader<Cursor>>,
    bytes: u64,
}

impl ReadAt for Opened {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let mut stream = self.stream.lock();
        stream.seek(SeekFrom::Start(offset))?;
        stream.read_exact(into)
    }
}

/// A file, and where in it one reads.
struct Cursor {
    file: Box<dyn ReadAt>,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = self.file.bytes().saturating_sub(self.at);
        let length = rest.min(into.len() as u64) as usize;
        self.file.read_exact_at(&mut into[..length], self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.file.bytes().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
