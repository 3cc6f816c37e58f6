//! `watari doctor`

use std::sync::Mutex;

use clap::Args;
use serde::Serialize;
use watari_node::Options;
use watari_node::doctor::{Check, Health, examine};

use super::Context;
use super::node::search_path;
use crate::args::TMPFS;
use crate::failure::{Failure, Result};
use crate::progress::Bar;
use crate::table::Table;

/// Test this computer for what Watari needs, and say how to mend it
#[derive(Args)]
pub(crate) struct Doctor {}

#[derive(Serialize)]
struct Findings {
    checks: Vec<Check>,
}

impl Doctor {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let options = Options {
            home: context.global.home()?,
            tmpfs: TMPFS.into(),
            search_path: search_path(),
            port: 0,
        };
        let bar = Mutex::new(Bar::new());
        let checks = examine(&options, &|progress| {
            if let Ok(mut bar) = bar.lock() {
                bar.show();
                bar.mover()(&progress);
            }
        })?;
        drop(bar);
        let findings = Findings { checks };
        context.out.result(&findings, text)?;
        let is_broken = findings.checks.iter().any(|check| check.status == Health::Broken);
        if is_broken { Err(Failure::Said) } else { Ok(()) }
    }
}

fn text(findings: &Findings) -> String {
    let mut table = Table::new(&["CHECK", "STATUS", "FOUND"], &[]);
    for check in &findings.checks {
        let status = match check.status {
            Health::Ok => "ok",
            Health::Degraded => "degraded",
            Health::Broken => "broken",
        };
        table.row([check.name.clone(), status.to_owned(), check.detail.clone()]);
        if !check.fix.is_empty() {
            table.row([String::new(), String::new(), format!("mend: {}", check.fix)]);
        }
    }
    table.render()
}
