//! Disk images that come from elsewhere: what they are, and how they become a raw file.

mod convert;
mod probe;
mod signature;

pub use convert::import;
pub use probe::{ImageFormat, ImageInfo, probe};
