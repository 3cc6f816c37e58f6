//! Writing results: as JSON for programs, as text for people.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;
use watari_types::{ErrorKind, ErrorReport};

use crate::failure::{Failure, Result};

/// Where a command's result goes.
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        Output { json }
    }

    /// Whether a program reads it.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Writes `value` as one line of JSON, or else the text that `text` makes of it.
    pub(crate) fn result<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        if !self.json {
            return write(text(value));
        }
        let line = serde_json::to_string(value).map_err(|e| {
            ErrorReport::new(ErrorKind::Internal, format!("cannot write the result: {e}"), "")
        })?;
        write(line)
    }
}

/// Writes a line, or several, to standard output.
pub(crate) fn write(text: impl Display) -> Result<()> {
    let text = text.to_string();
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    write_bytes(format!("{text}{end}").as_bytes())
}

/// Writes bytes to standard output.
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Failure::io("write to standard output", &e))
}
