//! `watari screenshot`

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::Context;
use crate::args::{absolute, machine_name};
use crate::failure::{Failure, Result};

/// Write a machine's screen to a PNG file
#[derive(Args)]
pub(crate) struct Screenshot {
    /// The machine
    name: String,
    /// The file
    file: PathBuf,
}

#[derive(Serialize)]
struct Taken {
    path: PathBuf,
    bytes: usize,
}

impl Screenshot {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let png = context.client()?.get_bytes(&format!("machines/{name}/screenshot"))?;
        std::fs::write(&self.file, &png)
            .map_err(|e| Failure::io(&format!("write {}", self.file.display()), &e))?;
        let taken = Taken { path: absolute(&self.file)?, bytes: png.len() };
        context.out.result(&taken, |taken| format!("wrote {}", taken.path.display()))
    }
}
