//! `watari screen`

use std::io::IsTerminal;

use clap::Args;
use serde::Serialize;
use watari_node::api::ScreenLinks;
use watari_types::MachineName;

use super::Context;
use crate::args::machine_name;
use crate::failure::Result;

/// Show a machine's screen in a browser
///
/// Prints the address of the page, with the token that lets whoever has it do everything on this node; where there is a
/// desktop, it opens the page too.
#[derive(Args)]
pub(crate) struct Screen {
    /// The machine
    name: String,
    /// An address for somebody who may watch this machine and do nothing
    #[arg(long)]
    view_only: bool,
}

#[derive(Serialize)]
struct Shown {
    name: MachineName,
    url: String,
}

impl Screen {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = machine_name(&self.name)?;
        let links: ScreenLinks = context.client()?.get(&format!("machines/{name}/screen/links"))?;
        let url = if self.view_only { links.view_only_url } else { links.url };
        context.out.result(&Shown { name, url: url.clone() }, |shown| shown.url.clone())?;
        // For a person who sits here, and not for a program; an address to be given away is not opened.
        if !self.view_only && !context.out.is_json() && std::io::stdout().is_terminal() && has_desktop() {
            // It was printed: a browser that does not start takes nothing away.
            let _ = open::that_detached(url);
        }
        Ok(())
    }
}

fn has_desktop() -> bool {
    ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
