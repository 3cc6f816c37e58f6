//! Scripts to begin with, written into the corpora by their test: each layer of each kind of file edited, in ways that
//! reach beyond its hashes.

use super::hostile::Subject;
use super::hostile::edits::{digits, edit, number, script, write};
use super::hostile::scene::SCENE;
use super::hostile::script::{Edit, Op, SENT_BEFORE, Script, WITH_INDEX, from_end};

type Seed = (&'static str, Script);

/// Every seed for one kind of file, with its name.
pub(crate) fn of(subject: Subject) -> Vec<Seed> {
    match subject {
        Subject::Packs => packs(),
        Subject::Manifests => manifests(),
        Subject::Refs => refs(),
        Subject::Index => index(),
    }
}

fn packs() -> Vec<Seed> {
    const ALL: [u8; 5] = [0, 1, 2, 3, 4];
    let everywhere = |edit: fn(u8) -> Edit| ALL.map(edit);
    vec![
        ("nothing", script(0, [])),
        ("nothing-beside-an-index", script(WITH_INDEX | SENT_BEFORE, [])),
        ("content-flipped", script(0, everywhere(|file| edit(file, 0, Op::Flip, 0, 5000)))),
        ("content-cut", script(0, [edit(0, 0, Op::Truncate, 0, 4097)])),
        ("content-twice", script(WITH_INDEX, everywhere(|file| edit(file, 0, Op::Double, 8192, 0)))),
        ("content-nothing", script(0, everywhere(|file| edit(file, 0, Op::Truncate, 0, 0)))),
        (
            "content-flipped-sent-before",
            script(SENT_BEFORE, everywhere(|file| edit(file, 0, Op::Flip, 0, 99))),
        ),
        ("frame-cut", script(0, everywhere(|file| edit(file, 1, Op::Truncate, 0, 9)))),
        ("frame-window-large", script(0, everywhere(|file| number(file, 1, 5, 3, u64::MAX)))),
        ("frame-empty", script(0, everywhere(|file| edit(file, 1, Op::Truncate, 0, 0)))),
        ("frame-base-is-another", script(0, everywhere(|file| edit(file, 1, Op::Flip, 3, 2)))),
        ("frame-checksum-flipped", script(0, everywhere(|file| edit(file, 1, Op::Flip, 3, from_end(2))))),
        ("index-more-frames", script(0, everywhere(|file| number(file, 2, 0, 2, u32::MAX.into())))),
        ("index-more-pages", script(0, everywhere(|file| number(file, 2, 4, 2, u32::MAX.into())))),
        ("index-frame-elsewhere", script(0, everywhere(|file| number(file, 2, 8, 3, u64::MAX)))),
        ("index-frame-long", script(0, everywhere(|file| number(file, 2, 16, 2, (512 << 10) + 1)))),
        ("index-frame-of-65", script(0, everywhere(|file| number(file, 2, 20, 1, 65)))),
        ("index-frame-of-changes", script(0, everywhere(|file| number(file, 2, 22, 1, 1)))),
        ("index-frame-of-pages", script(0, everywhere(|file| number(file, 2, 22, 1, 0)))),
        (
            "index-names-swapped",
            script(
                0,
                [
                    write(0, 2, Op::Insert, from_end(64), &[]),
                    edit(0, 2, Op::Double, 32, from_end(64)),
                    edit(0, 2, Op::Delete, 32, from_end(32)),
                ],
            ),
        ),
        ("file-footer-offset", script(0, everywhere(|file| number(file, 3, from_end(64), 3, u64::MAX)))),
        ("file-footer-length", script(0, everywhere(|file| number(file, 3, from_end(56), 3, 0)))),
        ("file-version-newer", script(0, [number(0, 3, 8, 2, 2), number(0, 3, from_end(16), 2, 2)])),
        ("file-named-otherwise", script(WITH_INDEX, everywhere(|file| edit(file, 4, Op::Flip, 1, 0)))),
        ("file-of-another", script(WITH_INDEX, [edit(0, 0, Op::Become, 1, 0), edit(1, 0, Op::Become, 0, 0)])),
        (
            "files-gone",
            script(WITH_INDEX | SENT_BEFORE, [edit(1, 0, Op::Remove, 0, 0), edit(2, 0, Op::Remove, 0, 0)]),
        ),
    ]
}

fn manifests() -> Vec<Seed> {
    const ALL: [u8; 4] = [0, 1, 2, 3];
    let everywhere = |edit: fn(u8) -> Edit| ALL.map(edit);
    vec![
        ("nothing-sent-before", script(SENT_BEFORE, [])),
        (
            "json-deep",
            script(0, [write(1, 0, Op::Insert, 1, &[b"\"x\":".to_vec(), vec![b'['; 3000]].concat())]),
        ),
        (
            "json-wide",
            script(
                0,
                [write(
                    1,
                    0,
                    Op::Insert,
                    1,
                    &[b"\"x\":[".to_vec(), b"0,".repeat(3000), b"0],".to_vec()].concat(),
                )],
            ),
        ),
        (
            "json-devices-256-mib-announced",
            script(0, everywhere(|file| digits(file, 0, from_end(2), 256 << 20))),
        ),
        (
            "json-devices-stored-overflow",
            script(0, everywhere(|file| digits(file, 0, from_end(1), u64::MAX))),
        ),
        ("json-zero-pages-overflow", script(0, everywhere(|file| digits(file, 0, from_end(3), u64::MAX)))),
        ("json-data-pages-overflow", script(0, everywhere(|file| digits(file, 0, from_end(4), u64::MAX)))),
        ("zeros-of-16-tib-in-one-run", zeros_of_16_tib()),
        ("body-flipped", script(0, everywhere(|file| edit(file, 1, Op::Flip, 0, 3)))),
        ("body-run-far", script(0, everywhere(|file| number(file, 1, 0, 2, u32::MAX.into())))),
        ("body-run-long", script(0, everywhere(|file| number(file, 1, 4, 2, u32::MAX.into())))),
        ("body-name-is-another", script(SENT_BEFORE, everywhere(|file| edit(file, 1, Op::Flip, 0, 40)))),
        ("devices-flipped", script(0, everywhere(|file| edit(file, 1, Op::Flip, 3, from_end(9))))),
        ("devices-longer", script(0, everywhere(|file| edit(file, 1, Op::Double, 200, from_end(9))))),
        ("devices-missing", script(0, everywhere(|file| edit(file, 1, Op::Truncate, 0, from_end(8))))),
        ("front-version-newer", script(0, everywhere(|file| number(file, 2, 8, 2, 3)))),
        ("front-version-older", script(0, everywhere(|file| number(file, 2, 8, 2, 1)))),
        ("header-alone-flipped", script(SENT_BEFORE, everywhere(|file| edit(file, 3, Op::Flip, 0, 60)))),
        ("header-alone-digits", script(SENT_BEFORE, everywhere(|file| digits(file, 3, 7, 2)))),
        ("header-alone-says-what-a-later-one-holds", roots_of_the_last_in_the_first()),
        ("file-signature-flipped", script(0, everywhere(|file| edit(file, 4, Op::Flip, 0, from_end(1))))),
        ("file-named-otherwise", script(0, everywhere(|file| edit(file, 5, Op::Flip, 1, 0)))),
        (
            "file-of-another",
            script(SENT_BEFORE, [edit(0, 0, Op::Become, 1, 0), edit(1, 0, Op::Become, 2, 0)]),
        ),
        ("files-gone", script(SENT_BEFORE, [edit(1, 0, Op::Remove, 0, 0), edit(2, 0, Op::Remove, 0, 0)])),
    ]
}

/// The how manieth of all manifests is that one of the line, and its JSON.
fn manifest(of_line: usize) -> (u8, String) {
    let name = &SCENE.line[of_line];
    let manifests = SCENE.files.keys().filter(|name| name.starts_with("snapshots/"));
    let json = String::from_utf8_lossy(&SCENE.files[name][48..]).into_owned();
    (manifests.take_while(|manifest| *manifest < name).count() as u8, json)
}

/// Where the first snapshot's header alone has the roots of the last one, much of the fourth seems to be wherever the first
/// is, and is not.
fn roots_of_the_last_in_the_first() -> Script {
    let root = |json: &str| json.find(r#""roots":{"disk/0":""#).unwrap() + r#""roots":{"disk/0":""#.len();
    let ((first, json), (_, last)) = (manifest(0), manifest(4));
    let name = &last[root(&last)..][..64];
    script(SENT_BEFORE, [write(first, 3, Op::Overwrite, root(&json) as u32, name.as_bytes())])
}

/// The one change of the third snapshot, a page of zeros, becomes almost as many as there can be.
fn zeros_of_16_tib() -> Script {
    let (third, json) = manifest(2);
    let json = &json[..json.find(r#""disk/0","bytes":"#).unwrap() + 8];
    let disk = json.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()).count() as u32;
    let pages = u64::from(u32::MAX) - 1;
    script(
        0,
        [
            digits(third, 0, disk, (1 << 44) - 4096),
            digits(third, 0, from_end(3), pages),
            number(third, 1, 0, 2, 0),
            number(third, 1, 4, 2, pages),
        ],
    )
}

fn refs() -> Vec<Seed> {
    // The first is `format`.
    const ALL: [u8; 7] = [1, 2, 3, 4, 5, 6, 7];
    let everywhere = |edit: fn(u8) -> Edit| ALL.map(edit);
    vec![
        ("text-flipped", script(0, everywhere(|file| edit(file, 0, Op::Flip, 0, 9)))),
        ("text-longest", script(0, everywhere(|file| edit(file, 0, Op::Double, 4096, 0)))),
        ("text-no-text", script(0, everywhere(|file| write(file, 0, Op::Overwrite, 5, &[0xff, 0xfe])))),
        ("text-generation-overflows", script(0, everywhere(|file| digits(file, 0, 0, u64::MAX)))),
        ("file-flipped", script(0, everywhere(|file| edit(file, 1, Op::Flip, 0, 9)))),
        ("file-longer", script(0, everywhere(|file| edit(file, 1, Op::Double, u16::MAX, 0)))),
        (
            "name-of-a-number-too-large",
            script(0, everywhere(|file| write(file, 2, Op::Insert, 0, &[b'9'; 30]))),
        ),
        (
            "name-of-another-number",
            script(SENT_BEFORE, everywhere(|file| write(file, 2, Op::Insert, 0, b"1"))),
        ),
        (
            "files-of-others",
            script(
                SENT_BEFORE,
                [edit(1, 0, Op::Become, 2, 0), edit(2, 0, Op::Become, 3, 0), edit(3, 0, Op::Become, 1, 0)],
            ),
        ),
        ("files-gone", script(SENT_BEFORE, [edit(1, 0, Op::Remove, 0, 0), edit(4, 0, Op::Remove, 0, 0)])),
        ("format-of-later", script(0, [digits(0, 0, 0, 2)])),
        ("format-too-large", script(0, [digits(0, 0, 0, 1 << 32)])),
    ]
}

fn index() -> Vec<Seed> {
    let first = 24;
    vec![
        ("header-packs-more", script(0, [number(0, 0, 12, 2, u32::MAX.into())])),
        ("header-entries-more", script(0, [number(0, 0, 16, 3, u64::MAX)])),
        ("header-entries-overflow", script(0, [number(0, 0, 16, 3, 1 << 44)])),
        (
            "packs-alike",
            script(0, [edit(0, 0, Op::Double, 32, first), edit(0, 0, Op::Delete, 32, first + 64)]),
        ),
        ("pack-is-another", script(0, [edit(0, 0, Op::Flip, 0, first)])),
        ("entry-place-beyond", script(0, [number(0, 0, from_end(4), 2, u32::MAX.into())])),
        ("entry-pack-beyond", script(0, [number(0, 0, from_end(8), 2, u32::MAX.into())])),
        (
            "entry-of-another-pack",
            script(0, [number(0, 0, from_end(8), 2, 0), number(0, 0, from_end(24), 2, 1)]),
        ),
        ("entry-name-is-the-last", script(0, [number(0, 0, from_end(16), 3, u64::MAX)])),
        ("entries-twice", script(0, [edit(0, 0, Op::Double, 16, from_end(16))])),
        ("file-flipped", script(0, [edit(0, 1, Op::Flip, 0, 99)])),
        ("file-empty", script(SENT_BEFORE, [edit(0, 1, Op::Truncate, 0, 0)])),
        ("file-gone", script(0, [edit(0, 0, Op::Remove, 0, 0)])),
    ]
}
