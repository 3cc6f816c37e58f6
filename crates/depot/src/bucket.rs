//! A store in an S3 bucket, whoever offers it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    Error as Failure, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
    WriteMultipart,
};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use watari_store::{Files, ReadAt};

use crate::Error;

/// Longer objects are sent in parts of this length,
const PART_BYTES: usize = 8 << 20;
/// so many at a time.
const PARTS: usize = 4;
/// Read at once, as what stands beside what is wanted is mostly wanted next, and asking takes longer than getting.
const WINDOW_BYTES: u64 = 1 << 20;
/// A service that does not answer is given up after this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bucket, or what in it begins alike.
pub(crate) struct Bucket {
    client: Arc<AmazonS3>,
    prefix: Path,
    runtime: &'static Runtime,
}

impl Bucket {
    /// The bucket, reached with settings by the names that Amazon's own programs read them from the environment.
    pub(crate) fn new(
        bucket: &str,
        prefix: &str,
        place: &str,
        settings: &BTreeMap<String, String>,
    ) -> Result<Bucket, Error> {
        let retry = RetryConfig { max_retries: 5, retry_timeout: PATIENCE, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(retry);
        for (name, value) in settings {
            if let Ok(key) = AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase()) {
                builder = builder.with_config(key, value);
            }
        }
        let unsafe_endpoint = |(name, value): (&String, &String)| {
            name.to_ascii_lowercase().starts_with("aws_endpoint") && value.starts_with("http://")
        };
        builder = builder.with_allow_http(settings.iter().any(unsafe_endpoint));
        let settings = |source| Error::Settings { place: place.to_owned(), source: Box::new(source) };
        // Without a key the client would look for one on the network.
        if builder.get_config_value(&AmazonS3ConfigKey::AccessKeyId).is_none() {
            return Err(settings(Failure::Generic { store: "S3", source: "no access key is set".into() }));
        }
        let client = Arc::new(builder.build().map_err(settings)?);
        let prefix = Path::parse(prefix).map_err(|e| settings(e.into()))?;
        Ok(Bucket { client, prefix, runtime: runtime().map_err(Error::io("start a client for", place))? })
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }
}

/// What the client runs on, for as long as the process does.
fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("bucket")
        .enable_all()
        .build()?;
    Ok(RUNTIME.get_or_init(|| made))
}

fn failed(error: Failure) -> io::Error {
    let kind = match &error {
        Failure::NotFound { .. } => io::ErrorKind::NotFound,
        Failure::AlreadyExists { .. } | Failure::Precondition { .. } => io::ErrorKind::AlreadyExists,
        Failure::PermissionDenied { .. } | Failure::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl Files for Bucket {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let folder = self.path(folder);
        let listed = self.runtime.block_on(self.client.list_with_delimiter(Some(&folder))).map_err(failed)?;
        let objects = listed.objects.iter().map(|object| &object.location);
        let names = objects.chain(&listed.common_prefixes).filter_map(Path::filename);
        Ok(names.map(str::to_owned).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadAt>> {
        let path = self.path(name);
        let found = self.runtime.block_on(self.client.head(&path)).map_err(failed)?;
        let (client, runtime) = (Arc::clone(&self.client), self.runtime);
        Ok(Box::new(Object { client, runtime, path, bytes: found.size, window: Mutex::default() }))
    }

    fn put(&self, name: &str, content: &File, bytes: u64, may_replace: bool) -> io::Result<bool> {
        let path = self.path(name);
        if bytes > PART_BYTES as u64 && may_replace {
            return self.runtime.block_on(self.put_in_parts(&path, content, bytes)).map(|()| true);
        }
        let mut read = vec![0; bytes as usize];
        content.read_exact_at(&mut read, 0)?;
        // Not every service knows how to put only what is not there.
        if !may_replace && self.runtime.block_on(self.client.head(&path)).is_ok() {
            return Ok(false);
        }
        let mode = if may_replace { PutMode::Overwrite } else { PutMode::Create };
        let put = self.client.put_opts(&path, PutPayload::from(read), PutOptions::from(mode));
        match self.runtime.block_on(put).map_err(failed) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !may_replace => Ok(false),
            put => put.map(|_| true),
        }
    }

    fn spool(&self) -> io::Result<File> {
        tempfile::tempfile()
    }
}

impl Bucket {
    async fn put_in_parts(&self, path: &Path, content: &File, bytes: u64) -> io::Result<()> {
        let upload = self.client.put_multipart(path).await.map_err(failed)?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut part = vec![0; PART_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let part = &mut part[..(bytes - offset).min(PART_BYTES as u64) as usize];
            // A failed upload leaves its parts to the service, which forgets them as it was told to.
            if let Err(e) = content.read_exact_at(part, offset) {
                writer.abort().await.map_err(failed)?;
                return Err(e);
            }
            writer.wait_for_capacity(PARTS).await.map_err(failed)?;
            writer.write(part);
            offset += part.len() as u64;
        }
        writer.finish().await.map(drop).map_err(failed)
    }
}

/// An object, and what was read of it last.
struct Object {
    client: Arc<AmazonS3>,
    runtime: &'static Runtime,
    path: Path,
    bytes: u64,
    window: Mutex<(u64, Vec<u8>)>,
}

impl ReadAt for Object {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(into.len() as u64).filter(|end| *end <= self.bytes);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut window = self.window.lock();
        let (start, content) = &mut *window;
        if offset < *start || end > *start + content.len() as u64 {
            // The end is read first of many, and what is before it next.
            let from = offset.min(self.bytes.saturating_sub(WINDOW_BYTES));
            let to = end.max(from + WINDOW_BYTES).min(self.bytes);
            let range = self.client.get_range(&self.path, from..to);
            *content = self.runtime.block_on(range).map_err(failed)?.into();
            *start = from;
            if content.len() as u64 != to - from {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        into.copy_from_slice(&content[(offset - *start) as usize..][..into.len()]);
        Ok(())
    }
}
