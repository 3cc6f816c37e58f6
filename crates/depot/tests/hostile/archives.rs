//! Archives edited below their checksums, and made right again above.
//!
//! Each member is a file that may be edited: in layer 0 its content, in layer 1 its header, in layer 2 again, with the
//! checksum as it was. The last of the files is the whole archive, whose layer 0 is all of it.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use super::store::scene::folder;
use super::store::script::{Op, Script};

const BLOCK: usize = 512;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;

const CONTENT: u8 = 0;
const HEADER: u8 = 1;
const HEADER_ALONE: u8 = 2;

#[derive(Clone)]
struct Member {
    header: Vec<u8>,
    content: Vec<u8>,
}

/// A sound one, taken apart.
static MEMBERS: LazyLock<Vec<Member>> = LazyLock::new(|| {
    let folder = folder();
    let path = folder.path().join("depot.tar");
    super::fresh(&path, None);
    let archive = fs::read(path).unwrap();
    let members = taken_apart(&archive);
    assert_eq!(put_together(&members), archive);
    members
});

/// Puts the archive there, after a script; its length.
pub(crate) fn put(path: &Path, script: &Script) -> usize {
    let count = MEMBERS.len() + 1;
    let mut members = Vec::new();
    for (number, member) in MEMBERS.iter().enumerate() {
        let edits = script.of(number, count);
        let mut member = member.clone();
        match edits.fate() {
            Some(edit) if edit.op == Op::Become => {
                member.content = MEMBERS[usize::from(edit.value) % MEMBERS.len()].content.clone();
            }
            Some(_) => continue,
            None => {}
        }
        edits.apply(CONTENT, &mut member.content);
        member.header[SIZE].copy_from_slice(format!("{:011o}\0", member.content.len()).as_bytes());
        edits.apply(HEADER, &mut member.header);
        member.header.resize(BLOCK, 0);
        sum(&mut member.header);
        edits.apply(HEADER_ALONE, &mut member.header);
        members.push(member);
    }
    let mut archive = put_together(&members);
    script.of(count - 1, count).apply(0, &mut archive);
    fs::write(path, &archive).unwrap();
    archive.len()
}

fn taken_apart(archive: &[u8]) -> Vec<Member> {
    let (mut members, mut rest) = (Vec::new(), archive);
    while rest[0] != 0 {
        let (header, after) = rest.split_at(BLOCK);
        let digits = std::str::from_utf8(&header[SIZE]).unwrap().trim_end_matches('\0');
        let bytes = usize::from_str_radix(digits, 8).unwrap();
        members.push(Member { header: header.to_vec(), content: after[..bytes].to_vec() });
        rest = &after[bytes.next_multiple_of(BLOCK)..];
    }
    members
}

fn put_together(members: &[Member]) -> Vec<u8> {
    let mut archive = Vec::new();
    for member in members {
        archive.extend(&member.header);
        archive.extend(&member.content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.extend([0; 2 * BLOCK]);
    archive
}

/// Makes a header's checksum right.
fn sum(header: &mut [u8]) {
    header[CHECKSUM].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[CHECKSUM].copy_from_slice(format!("{sum:07o}\0").as_bytes());
}
