//! Where a depot is, as a person writes it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::Error;

/// A depot's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A folder.
    Folder(PathBuf),
    /// One file.
    Archive(PathBuf),
    /// A bucket, and what the names of its objects begin with.
    Bucket {
        /// The bucket.
        bucket: String,
        /// Without slashes at its ends; it may be empty.
        prefix: String,
    },
}

impl Address {
    /// Reads an address: `s3://BUCKET/PREFIX`, or an absolute path. A path is one file if one is there, or if nothing is
    /// there and it ends in `.tar`.
    ///
    /// # Errors
    /// [`Error::BadAddress`]
    pub fn parse(text: &str) -> Result<Address, Error> {
        let bad = |why| Error::BadAddress(text.to_owned(), why);
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            if bucket.is_empty() || !bucket.chars().all(is_name) {
                return Err(bad("its bucket's name is not one"));
            }
            let prefix = prefix.trim_matches('/').to_owned();
            return Ok(Address::Bucket { bucket: bucket.to_owned(), prefix });
        }
        if text.contains("://") {
            return Err(bad("only s3:// is known"));
        }
        let path = Path::new(text);
        if !path.is_absolute() {
            return Err(bad("the path is not absolute"));
        }
        let is_file = path.is_file() || !path.exists() && path.extension().is_some_and(|end| end == "tar");
        Ok(if is_file { Address::Archive(path.to_owned()) } else { Address::Folder(path.to_owned()) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Folder(path) | Address::Archive(path) => write!(f, "{}", path.display()),
            Address::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Address::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_a_file_or_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        std::fs::write(at("there"), "").unwrap();
        std::fs::create_dir(at("folder.tar")).unwrap();
        let kind = |text: &str| match Address::parse(text) {
            Ok(Address::Folder(_)) => "folder".to_owned(),
            Ok(Address::Archive(_)) => "file".to_owned(),
            Ok(bucket @ Address::Bucket { .. }) => bucket.to_string(),
            Err(e) => e.to_string(),
        };
        assert_eq!(kind(&at("new")), "folder");
        assert_eq!(kind(&at("new.tar")), "file");
        assert_eq!(kind(&at("there")), "file");
        assert_eq!(kind(&at("folder.tar")), "folder");
        assert_eq!(kind("s3://b"), "s3://b");
        assert_eq!(kind("s3://b/"), "s3://b");
        assert_eq!(kind("s3://b/a/c/"), "s3://b/a/c");
        for bad in ["s3://", "s3:///x", "s3://a b/c", "gs://b", "here", ""] {
            assert!(kind(bad).contains("is no depot"), "{bad}");
        }
    }
}
