//! Real file systems, made by mke2fs and changed by debugfs, and what is left of them after damage.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod changes;
mod damage;
mod image;
mod journal;
mod layouts;
