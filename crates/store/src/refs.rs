//! Refs: the only files that change, and what makes a snapshot exist.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use watari_types::{Generation, MachineId, RevTarget, SnapshotId};

use crate::error::{At, Error};
use crate::files::{self, NewFile, sync_parent};
use crate::layout::Layout;
use crate::lease::Lease;
use crate::store::Store;

/// Shortest beginning of a snapshot's id that is looked up.
const MIN_PREFIX: usize = 4;

/// The snapshot that a machine's present state descends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Its generation.
    pub generation: Generation,
    /// Its name.
    pub id: SnapshotId,
}

/// Everything that can be read of a machine's refs, and what cannot.
#[derive(Debug, Default)]
pub struct Survey {
    /// Its snapshots, by ascending generation.
    pub snapshots: Vec<(Generation, SnapshotId)>,
    /// Its tags.
    pub tags: BTreeMap<String, SnapshotId>,
    /// The snapshot its present state descends from.
    pub head: Option<Head>,
    /// The refs that are not as they were written, each with its path.
    pub damaged: Vec<Error>,
}

/// The refs of one machine. Every change is durable when it returns, and seen whole or not at all. Who makes a ref has a
/// lease from before it looked at the snapshot, so that this is not being removed.
#[derive(Clone)]
pub struct Refs {
    store: Store,
    machine: MachineId,
    folder: PathBuf,
}

impl Store {
    /// The refs of a machine, whether it has any or not.
    pub fn refs(&self, machine: MachineId) -> Refs {
        Refs { store: self.clone(), machine, folder: self.layout().refs(machine) }
    }

    /// The machines that have a snapshot or a head.
    pub fn machines(&self) -> Result<Vec<MachineId>, Error> {
        let mut machines = Vec::new();
        for name in names_in(self.layout(), &self.layout().all_refs())? {
            if let Ok(machine) = name.parse() {
                let refs = self.refs(machine);
                if !refs.generations()?.is_empty() || self.layout().has(&refs.head_path())? {
                    machines.push(machine);
                }
            }
        }
        machines.sort_unstable();
        Ok(machines)
    }

    /// All machines of which there is a folder.
    pub(crate) fn machines_with_refs(&self) -> Result<Vec<MachineId>, Error> {
        let names = names_in(self.layout(), &self.layout().all_refs())?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Makes durable what refs there are: what is not there any more does not come back.
    pub(crate) fn sync_refs(&self) -> Result<(), Error> {
        for machine in self.machines_with_refs()? {
            let folder = self.layout().refs(machine);
            for folder in [folder.join("snapshots"), folder.join("tags"), folder] {
                match files::sync_folder(&folder) {
                    Err(e) if e.is_gone() => {}
                    synced => synced?,
                }
            }
        }
        files::sync_folder(&self.layout().all_refs())
    }

    /// The snapshots whose id begins with `id_prefix`, with the machines whose generation they are. None if it
    /// has fewer than 4 digits, or is not hexadecimal. What a damaged ref names is not found.
    pub fn find_snapshot(&self, id_prefix: &str) -> Result<Vec<(MachineId, SnapshotId)>, Error> {
        let mut found = Vec::new();
        if id_prefix.len() < MIN_PREFIX {
            return Ok(found);
        }
        let prefix = id_prefix.to_ascii_lowercase();
        for machine in self.machines()? {
            let snapshots = self.refs(machine).survey()?.snapshots;
            let ids =
                snapshots.into_iter().map(|(_, id)| id).filter(|id| id.to_string().starts_with(&prefix));
            found.extend(ids.map(|id| (machine, id)));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

impl Survey {
    /// All of it, for whoever needs to know every ref.
    ///
    /// # Errors
    /// A ref is not as it was written.
    pub fn whole(mut self) -> Result<Survey, Error> {
        match self.damaged.is_empty() {
            true => Ok(self),
            false => Err(self.damaged.swap_remove(0)),
        }
    }

    fn sound<T>(&mut self, read: Result<Option<T>, Error>) -> Option<T> {
        read.unwrap_or_else(|damage| {
            self.damaged.push(damage);
            None
        })
    }
}

impl Refs {
    /// The snapshot the machine's present state descends from; none before the first.
    pub fn head(&self) -> Result<Option<Head>, Error> {
        let path = self.head_path();
        let Some(text) = read_line(self.store.layout(), &path)? else { return Ok(None) };
        let head = text.split_once(' ').and_then(|(generation, id)| {
            Some(Head { generation: Generation(generation.parse().ok()?), id: id.parse().ok()? })
        });
        head.map(Some)
            .ok_or_else(|| Error::damaged(&path, format!("{text:?} is not a generation and a snapshot")))
    }

    /// Says which snapshot the machine's present state descends from.
    pub fn set_head(&self, generation: Generation, id: SnapshotId, lease: &Lease) -> Result<(), Error> {
        self.store.check_snapshot(id, lease)?;
        self.store.layout().ensure_dir(&self.folder)?;
        self.write_line(&format!("{generation} {id}"))?.publish(&self.head_path())
    }

    /// Adds a snapshot to the machine's history: it exists from this moment on. Adding it again changes
    /// nothing; another snapshot of the same generation is refused.
    pub fn add(&self, generation: Generation, id: SnapshotId, lease: &Lease) -> Result<(), Error> {
        self.store.check_snapshot(id, lease)?;
        self.store.layout().ensure_dir(&self.folder)?;
        self.store.layout().ensure_dir(&self.folder.join("snapshots"))?;
        let path = self.generation_path(generation);
        if self.write_line(&id.to_string())?.publish_new(&path)? {
            return Ok(());
        }
        match self.get(generation)? {
            Some(existing) if existing != id => {
                Err(Error::GenerationTaken { machine: self.machine, generation, existing })
            }
            // Whoever wrote it may not have synced its name yet.
            _ => sync_parent(&path),
        }
    }

    /// Says which snapshot is of that generation, in place of a ref that cannot be read.
    pub(crate) fn mend(&self, generation: Generation, id: SnapshotId) -> Result<(), Error> {
        self.write_line(&id.to_string())?.publish(&self.generation_path(generation))
    }

    /// Takes a snapshot out of the machine's history; which one it was. It exists no more unless another ref names it.
    pub fn remove(&self, generation: Generation) -> Result<Option<SnapshotId>, Error> {
        let Some(id) = self.get(generation)? else { return Ok(None) };
        Ok(remove_ref(&self.generation_path(generation))?.then_some(id))
    }

    /// The snapshot of that generation.
    pub fn get(&self, generation: Generation) -> Result<Option<SnapshotId>, Error> {
        read_id(self.store.layout(), &self.generation_path(generation))
    }

    /// The highest generation that the machine has, whether its ref can be read or not.
    pub fn newest(&self) -> Result<Option<Generation>, Error> {
        Ok(self.generations()?.pop())
    }

    /// Reads every ref, also beside damaged ones.
    pub fn survey(&self) -> Result<Survey, Error> {
        let mut survey = Survey::default();
        for generation in self.generations()? {
            let id = survey.sound(self.get(generation));
            survey.snapshots.extend(id.map(|id| (generation, id)));
        }
        for tag in self.tag_names()? {
            let id = survey.sound(self.tagged(&tag));
            survey.tags.extend(id.map(|id| (tag, id)));
        }
        survey.head = survey.sound(self.head());
        Ok(survey)
    }

    /// All snapshots of the machine, by ascending generation. Fails if a ref is damaged; see [`Self::survey`].
    pub fn list(&self) -> Result<Vec<(Generation, SnapshotId)>, Error> {
        let mut snapshots = Vec::new();
        for generation in self.generations()? {
            snapshots.extend(self.get(generation)?.map(|id| (generation, id)));
        }
        Ok(snapshots)
    }

    /// Gives a snapshot a tag, taking it from the one that had it.
    pub fn tag(&self, tag: &str, id: SnapshotId, lease: &Lease) -> Result<(), Error> {
        if !RevTarget::is_tag(tag) {
            return Err(Error::BadTag(tag.chars().take(80).collect()));
        }
        self.store.check_snapshot(id, lease)?;
        self.store.layout().ensure_dir(&self.folder)?;
        self.store.layout().ensure_dir(&self.folder.join("tags"))?;
        self.write_line(&id.to_string())?.publish(&self.folder.join("tags").join(tag))
    }

    /// Takes a tag away; the snapshot that had it. The snapshot itself stays.
    pub fn untag(&self, tag: &str) -> Result<Option<SnapshotId>, Error> {
        let Some(id) = self.tagged(tag)? else { return Ok(None) };
        Ok(remove_ref(&self.folder.join("tags").join(tag))?.then_some(id))
    }

    /// The snapshot that has the tag.
    pub fn tagged(&self, tag: &str) -> Result<Option<SnapshotId>, Error> {
        if !RevTarget::is_tag(tag) {
            return Ok(None);
        }
        read_id(self.store.layout(), &self.folder.join("tags").join(tag))
    }

    /// All tags and their snapshots.
    pub fn tags(&self) -> Result<BTreeMap<String, SnapshotId>, Error> {
        let mut tags = BTreeMap::new();
        for tag in self.tag_names()? {
            if let Some(id) = self.tagged(&tag)? {
                tags.insert(tag, id);
            }
        }
        Ok(tags)
    }

    /// Removes all refs of the machine, at once: its snapshots do not exist any more.
    pub fn remove_all(self) -> Result<(), Error> {
        // A name nobody else has, whose folder this renames over.
        let grave = tempfile::tempdir_in(self.store.layout().tmp()).at("create a folder in", &self.folder)?;
        match fs::rename(&self.folder, grave.path()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.at("remove", &self.folder)?,
        }
        sync_parent(&self.folder)?;
        drop(grave);
        Ok(())
    }

    pub(crate) fn generations(&self) -> Result<Vec<Generation>, Error> {
        let names = names_in(self.store.layout(), &self.folder.join("snapshots"))?;
        let mut generations: Vec<Generation> = names
            .iter()
            .filter_map(|name| name.parse().ok().filter(|number: &u64| number.to_string() == *name))
            .map(Generation)
            .collect();
        generations.sort_unstable();
        Ok(generations)
    }

    pub(crate) fn tag_names(&self) -> Result<Vec<String>, Error> {
        Ok(names_in(self.store.layout(), &self.folder.join("tags"))?
            .into_iter()
            .filter(|name| RevTarget::is_tag(name))
            .collect())
    }

    fn head_path(&self) -> PathBuf {
        self.folder.join("head")
    }

    fn generation_path(&self, generation: Generation) -> PathBuf {
        self.folder.join("snapshots").join(generation.to_string())
    }

    fn write_line(&self, text: &str) -> Result<NewFile, Error> {
        let file = self.store.layout().new_file()?;
        file.write_at(format!("{text} {}\n", check_of(text)).as_bytes(), 0)?;
        Ok(file)
    }
}

/// Removes a ref for good; whether it was there.
fn remove_ref(path: &Path) -> Result<bool, Error> {
    let was_there = files::remove(path)?;
    sync_parent(path)?;
    Ok(was_there)
}

/// What a ref ends with, so that a flipped bit in it is noticed.
fn check_of(text: &str) -> String {
    hex::encode(&blake3::hash(text.as_bytes()).as_bytes()[..4])
}

/// The text of a ref without its check; none if there is no such file.
fn read_line(layout: &Layout, path: &Path) -> Result<Option<String>, Error> {
    let Some(content) = layout.read(path)? else { return Ok(None) };
    let line = std::str::from_utf8(&content).ok().and_then(|text| text.strip_suffix('\n'));
    match line.and_then(|line| line.rsplit_once(' ')) {
        Some((text, check)) if check == check_of(text) => Ok(Some(text.to_owned())),
        _ => Err(Error::damaged(path, "its content is not what was written")),
    }
}

fn read_id(layout: &Layout, path: &Path) -> Result<Option<SnapshotId>, Error> {
    let Some(text) = read_line(layout, path)? else { return Ok(None) };
    text.parse().map(Some).map_err(|e| Error::damaged(path, format!("it names no snapshot: {e}")))
}

/// The names in a folder, none if there is no such folder.
fn names_in(layout: &Layout, folder: &Path) -> Result<Vec<String>, Error> {
    let name = |path: &PathBuf| path.file_name()?.to_str().map(str::to_owned);
    Ok(layout.list(folder)?.iter().filter_map(name).collect())
}
