//! `watari tag`

use clap::Args;
use watari_node::api::{TagRequest, Tagged};
use watari_types::{ErrorKind, ErrorReport, Rev, RevTarget};

use super::Context;
use crate::args::revision;
use crate::failure::Result;
use crate::format::short;

/// Give a snapshot a name, or take one away
#[derive(Args)]
pub(crate) struct Tag {
    /// The snapshot; with --remove, the tag, as NAME@TAG
    rev: String,
    /// The tag, which the snapshot that has it loses
    #[arg(required_unless_present = "remove", conflicts_with = "remove")]
    tag: Option<String>,
    /// Take the tag away; the snapshot stays
    #[arg(long)]
    remove: bool,
}

impl Tag {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let client = context.client()?;
        let tagged: Tagged = match &self.tag {
            Some(tag) => {
                let name = client.machine_of(&self.rev)?;
                let request = TagRequest { tag: tag.clone(), rev: self.rev.clone() };
                client.post_with(&format!("machines/{name}/tags"), &request)?
            }
            None => match revision(&self.rev)? {
                Rev::At(name, RevTarget::Tag(tag)) => {
                    client.delete(&format!("machines/{name}/tags/{tag}"))?
                }
                _ => {
                    let message = format!("{} is no tag", self.rev);
                    let hint = "write NAME@TAG; `watari log NAME` shows the tags";
                    return Err(ErrorReport::new(ErrorKind::BadRevision, message, hint).into());
                }
            },
        };
        context.out.result(&tagged, |tagged| {
            let (name, tag, id) = (&tagged.name, &tagged.tag, short(tagged.id));
            match self.remove {
                true => format!("{name}@{tag} is no more; the snapshot it named is {id}"),
                false => format!("{name}@{tag} is {id}"),
            }
        })
    }
}
