//! Images of file systems, and what a comparison of two of them tells.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use watari_fs::{Change, Error, Ext4, Listener, Steps, Window, compare};
use watari_types::{PAGE_SIZE, PageSet};

/// Runs one of the programs for file systems, which are not in everybody's path; what it printed.
pub(crate) fn run(program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(program).args(args).env("PATH", path).env("LC_ALL", "C").output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {}\n{said}", output.status);
    said
}

/// An image in a folder that goes with it.
pub(crate) struct Image {
    folder: TempDir,
    path: PathBuf,
}

impl Image {
    /// A file system with what `fill` puts into a folder.
    pub(crate) fn new(options: &str, size: &str, fill: impl FnOnce(&Path)) -> Image {
        let folder = tempfile::tempdir().unwrap();
        let (content, path) = (folder.path().join("root"), folder.path().join("image"));
        fs::create_dir(&content).unwrap();
        fill(&content);
        let fixed = ["-q", "-F", "-d", content.to_str().unwrap()];
        let rest = [path.to_str().unwrap(), size];
        run("mke2fs", fixed.into_iter().chain(options.split_whitespace()).chain(rest));
        Image { folder, path }
    }

    /// A copy to be changed by debugfs, line by line.
    pub(crate) fn changed(&self, lines: &[String]) -> Image {
        let copy = self.copy();
        copy.debugfs(lines);
        copy
    }

    pub(crate) fn copy(&self) -> Image {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        fs::copy(&self.path, &path).unwrap();
        Image { folder, path }
    }

    /// Has debugfs do something; what it printed.
    pub(crate) fn debugfs(&self, lines: &[String]) -> String {
        let script = self.file("script", lines.join("\n").as_bytes());
        let said = run("debugfs", ["-w", "-f", script.to_str().unwrap(), self.path.to_str().unwrap()]);
        // What fails in a script is only said.
        let is_bad = |line: &&str| {
            line.contains(": ") && !line.starts_with("debugfs") && !line.starts_with("Allocated")
        };
        assert_eq!(said.lines().find(is_bad), None, "{said}");
        said
    }

    /// A file beside the image.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }
}

/// The pages in which two disks differ.
pub(crate) fn changed_pages(before: &[u8], after: &[u8]) -> PageSet {
    let (before, after) = (before.chunks(PAGE_SIZE), after.chunks(PAGE_SIZE));
    (0..).zip(before.zip(after)).filter(|(_, (a, b))| a != b).map(|(page, _)| page).collect()
}

/// What a comparison told, in its order.
#[derive(Default)]
pub(crate) struct Told(pub(crate) Vec<(Vec<u8>, Change)>);

impl Listener for Told {
    fn change(&mut self, path: &[u8], change: Change) {
        self.0.push((path.to_vec(), change));
    }

    fn looked_at(&mut self, _: u64) {}
}

impl Told {
    /// Each path with `+`, `-`, or what differs: kind, content, mode, owner or times.
    pub(crate) fn lines(&self) -> Vec<String> {
        let what = |change: &Change| match (&change.before, &change.after) {
            (None, _) => "+".to_owned(),
            (_, None) => "-".to_owned(),
            _ => {
                let what = change.what;
                let all = [what.kind, what.content, what.mode, what.owner, what.times];
                all.into_iter().zip("kcmot".chars()).filter(|(is, _)| *is).map(|(_, letter)| letter).collect()
            }
        };
        self.0.iter().map(|(path, change)| format!("{} {}", what(change), path.escape_ascii())).collect()
    }

    pub(crate) fn sizes(&self) -> BTreeMap<String, u64> {
        let size = |change: &Change| change.after.as_ref().map_or(0, |file| file.bytes);
        self.0.iter().map(|(path, change)| (path.escape_ascii().to_string(), size(change))).collect()
    }
}

/// What is told of all of two disks that begin with a file system.
pub(crate) fn told(before: Option<&Vec<u8>>, after: Option<&Vec<u8>>) -> Result<Told, Error> {
    told_within(before, after, 0)
}

/// The same, of file systems that begin at byte `start`.
pub(crate) fn told_within(
    before: Option<&Vec<u8>>,
    after: Option<&Vec<u8>>,
    start: u64,
) -> Result<Told, Error> {
    let changed = match (before, after) {
        (Some(before), Some(after)) => changed_pages(before, after),
        _ => PageSet::new(),
    };
    let steps = Steps::default();
    let open = |disk| Ext4::open(Window::of(disk, start, u64::MAX), &steps);
    let before = before.map(|disk| open(disk)).transpose()?;
    let after = after.map(|disk| open(disk)).transpose()?;
    let mut told = Told::default();
    compare(before.as_ref(), after.as_ref(), &changed, &mut told)?;
    Ok(told)
}
