//! Scripts to begin with, written into the corpora by their test.

use super::hostile::Subject;
use super::hostile::store::edits::{digits, edit, number, script, write};
use super::hostile::store::script::{Edit, Op, SENT_BEFORE, Script, from_end};

type Seed = (&'static str, Script);

/// Every seed for one kind of depot, with its name.
pub(crate) fn of(subject: Subject) -> Vec<Seed> {
    match subject {
        Subject::Archives => archives(),
        Subject::Sealed => sealed(),
    }
}

/// Members of the sound archive, of which the first is `format`, and then all of it.
const MEMBERS: u8 = 16;

fn archives() -> Vec<Seed> {
    const ALL: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let everywhere = |edit: fn(u8) -> Edit| ALL.map(edit);
    vec![
        ("nothing", script(0, [])),
        ("content-flipped", script(SENT_BEFORE, everywhere(|file| edit(file, 0, Op::Flip, 0, 40)))),
        ("header-size-larger-than-the-file", script(0, [write(2, 1, Op::Overwrite, 124, b"77777777777\0")])),
        (
            "header-size-of-64-bits",
            script(
                0,
                [write(
                    2,
                    1,
                    Op::Overwrite,
                    124,
                    &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                )],
            ),
        ),
        ("header-kind-is-another", script(0, everywhere(|file| write(file, 1, Op::Overwrite, 156, b"L")))),
        ("header-name-empty", script(0, [number(1, 1, 0, 3, 0)])),
        ("header-name-leads-out", script(0, [write(1, 1, Op::Overwrite, 0, b"../../x\0")])),
        ("header-name-no-text", script(0, [write(1, 1, Op::Overwrite, 6, &[0xff, 0xfe])])),
        ("header-checksum-wrong", script(0, [edit(4, 2, Op::Flip, 0, 3)])),
        ("members-gone", script(SENT_BEFORE, [edit(1, 0, Op::Remove, 0, 0), edit(5, 0, Op::Remove, 0, 0)])),
        ("members-of-others", script(0, [edit(1, 0, Op::Become, 4, 0), edit(4, 0, Op::Become, 1, 0)])),
        ("member-format-of-later", script(0, [digits(0, 0, 0, 2)])),
        ("all-cut-in-the-middle", script(0, [edit(MEMBERS, 0, Op::Truncate, 0, 9000)])),
        ("all-cut-at-the-end", script(0, [edit(MEMBERS, 0, Op::Truncate, 0, from_end(1400))])),
        ("all-shifted", script(0, [write(MEMBERS, 0, Op::Insert, 1024, &[0; 40])])),
        ("all-zeros-in-front", script(0, [write(MEMBERS, 0, Op::Insert, 0, &[0; 512])])),
    ]
}

/// Files of the sound depot: the key is first, then `format`, and packs and manifests before refs.
fn sealed() -> Vec<Seed> {
    const ALL: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let everywhere = |edit: fn(u8) -> Edit| ALL.map(edit);
    let files = |edit: fn(u8) -> Edit| (1..16).map(edit).collect::<Vec<_>>();
    vec![
        ("nothing", script(0, [])),
        ("content-flipped", script(SENT_BEFORE, files(|file| edit(file, 0, Op::Flip, 0, 40)))),
        ("name-kind-is-another", script(0, files(|file| edit(file, 1, Op::Flip, 0, 0)))),
        ("name-leads-out", script(0, files(|file| write(file, 1, Op::Overwrite, 0, b"\x01refs/../../../x")))),
        ("name-no-text", script(0, files(|file| write(file, 1, Op::Overwrite, 18, &[0xff, 0xfe])))),
        ("name-long", script(0, files(|file| edit(file, 1, Op::Double, 20, 0)))),
        ("key-is-none", script(0, [edit(0, 0, Op::Flip, 0, 30)])),
        ("stored-header-flipped", script(0, everywhere(|file| edit(file, 2, Op::Flip, 0, 40)))),
        (
            "stored-header-many-stanzas",
            script(0, [edit(2, 2, Op::Double, 100, 22), edit(0, 2, Op::Double, 100, 22)]),
        ),
        ("stored-header-alone", script(0, files(|file| edit(file, 2, Op::Truncate, 0, 168)))),
        ("stored-end-flipped", script(0, everywhere(|file| edit(file, 2, Op::Flip, 0, from_end(1))))),
        ("stored-end-cut", script(SENT_BEFORE, files(|file| edit(file, 2, Op::Truncate, 0, from_end(1))))),
        ("stored-end-longer", script(0, files(|file| edit(file, 2, Op::Double, 16, from_end(16))))),
        ("stored-name-flipped", script(0, files(|file| edit(file, 3, Op::Flip, 0, 7)))),
        (
            "files-of-others",
            script(
                SENT_BEFORE,
                [edit(2, 0, Op::Become, 3, 0), edit(6, 0, Op::Become, 7, 0), edit(9, 0, Op::Become, 10, 0)],
            ),
        ),
        ("files-gone", script(0, [edit(3, 0, Op::Remove, 0, 0), edit(11, 0, Op::Remove, 0, 0)])),
    ]
}
