//! What a console printed last, and what of it somebody is told next.

use std::collections::VecDeque;

/// So much is kept, in bytes: who is further behind than that begins anew.
const KEPT: usize = 1 << 20;
/// Nobody is told more at once, and a newcomer is told so much of what was printed before, in bytes.
pub(super) const RECENT: usize = 64 << 10;

/// The last bytes that were printed, which are counted.
#[derive(Default)]
pub(super) struct Recent {
    kept: VecDeque<u8>,
    end: u64,
}

/// What somebody is told next.
#[derive(Debug, PartialEq)]
pub(super) struct Piece {
    /// It does not continue what that one was told before; so many bytes of what was printed since are left out.
    pub(super) begins: Option<u64>,
    pub(super) bytes: Vec<u8>,
    /// How many bytes had been printed by its end.
    pub(super) end: u64,
}

impl Recent {
    /// More was printed.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let last = &bytes[bytes.len().saturating_sub(KEPT)..];
        let surplus = (self.kept.len() + last.len()).saturating_sub(KEPT);
        self.kept.drain(..surplus);
        self.kept.extend(last);
    }

    /// How many bytes were printed.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// What is next for who was told everything up to `at`, or nothing at all so far.
    pub(super) fn next(&self, at: Option<u64>) -> Option<Piece> {
        let behind = at.map(|at| self.end - at);
        match behind.and_then(|behind| usize::try_from(behind).ok()) {
            Some(0) => None,
            Some(behind) if behind <= self.kept.len() => {
                let start = self.kept.len() - behind;
                let bytes: Vec<u8> = self.kept.range(start..start + behind.min(RECENT)).copied().collect();
                let end = self.end - (behind - bytes.len()) as u64;
                Some(Piece { begins: None, bytes, end })
            }
            _ => {
                let start = self.kept.len().saturating_sub(RECENT);
                let mut bytes: Vec<u8> = self.kept.range(start..).copied().collect();
                if bytes.len() as u64 != self.end {
                    bytes.drain(..clean_start(&bytes));
                }
                let skipped = behind.map_or(0, |behind| behind - bytes.len() as u64);
                Some(Piece { begins: Some(skipped), bytes, end: self.end })
            }
        }
    }
}

/// Where the first line begins in bytes that were cut out of others. Without one, where a terminal is not in the middle of an escape
/// sequence or, at least, of a character.
pub(super) fn clean_start(bytes: &[u8]) -> usize {
    let line = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
    let escape = || bytes.iter().position(|byte| *byte == 0x1b);
    let character = || bytes.iter().position(|byte| byte & 0xc0 != 0x80);
    line.or_else(escape).or_else(character).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_begins_with_whole_lines_and_goes_on_from_there() {
        let mut recent = Recent::default();
        assert_eq!(recent.next(None), Some(Piece { begins: Some(0), bytes: vec![], end: 0 }));
        recent.push(b"one\ntw");
        let piece = recent.next(None).unwrap();
        assert_eq!(piece, Piece { begins: Some(0), bytes: b"one\ntw".into(), end: 6 });
        assert_eq!(recent.next(Some(piece.end)), None);
        recent.push(b"o\n");
        assert_eq!(recent.next(Some(6)), Some(Piece { begins: None, bytes: b"o\n".into(), end: 8 }));
        let line = "a line with ünïcode\n";
        recent.push(line.repeat(10_000).as_bytes());
        let piece = recent.next(None).unwrap();
        let text = String::from_utf8(piece.bytes).unwrap();
        assert!(text.starts_with(line) && text.len() <= RECENT && text.len() > RECENT - line.len());
        assert_eq!((piece.begins, piece.end), (Some(0), recent.end()));
    }

    #[test]
    fn who_is_slow_gets_everything_that_is_kept_and_else_the_newest_and_the_count_of_what_is_not() {
        let (mut recent, mut all, mut told) = (Recent::default(), Vec::new(), Vec::new());
        for line in 0..200_000 {
            let line = format!("line {line}\n").into_bytes();
            recent.push(&line);
            all.extend(line);
        }
        let mut at = Some(all.len() as u64 - KEPT as u64);
        while let Some(piece) = recent.next(at) {
            assert!(piece.begins.is_none() && piece.bytes.len() <= RECENT);
            told.extend(piece.bytes);
            at = Some(piece.end);
        }
        assert!(told == all[all.len() - KEPT..]);

        let piece = recent.next(Some(100)).unwrap();
        assert!(all.ends_with(&piece.bytes) && piece.bytes.starts_with(b"line "));
        let skipped = piece.begins.unwrap();
        assert_eq!(100 + skipped + piece.bytes.len() as u64, piece.end);
        assert_eq!(recent.next(Some(piece.end)), None);
        // More at once than is kept.
        recent.push(&all);
        assert!(recent.next(Some(piece.end)).unwrap().begins.is_some());
    }

    #[test]
    fn neither_characters_nor_escape_sequences_are_cut() {
        assert_eq!(clean_start(b"31m red\nnext"), 8);
        assert_eq!(clean_start(b"31m red\x1b[0m"), 7);
        assert_eq!(clean_start(&"ü.".as_bytes()[1..]), 1);
        assert_eq!(clean_start(b"\x80\x80"), 2);
        assert_eq!(clean_start(b""), 0);
    }
}
