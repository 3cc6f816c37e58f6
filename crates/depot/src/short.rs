//! The names of a store's files, short: ids as bytes, and what stands beside them always as one.

const OTHER: u8 = 1;
const PACK: u8 = 2;
const SNAPSHOT: u8 = 3;
const REF: u8 = 4;

/// A name in few bytes. None ends in zero, but for an id that does.
pub(crate) fn of(name: &str) -> Vec<u8> {
    let id = |front: &str, end: &str| hex(name.strip_prefix(front)?.strip_suffix(end)?, 32);
    if let Some(id) = id("packs/", ".pack") {
        return [vec![PACK], id].concat();
    }
    if let Some(id) = id("snapshots/", ".snap") {
        return [vec![SNAPSHOT], id].concat();
    }
    let of_machine = name.strip_prefix("refs/").and_then(|rest| rest.split_once('/'));
    if let Some((machine, rest)) = of_machine.and_then(|(id, rest)| Some((hex(id, 16)?, rest))) {
        return [vec![REF], machine, rest.as_bytes().to_vec()].concat();
    }
    [vec![OTHER], name.as_bytes().to_vec()].concat()
}

/// The name again, however many zeros were added to it.
pub(crate) fn expand(padded: &[u8]) -> Option<String> {
    let (kind, rest) = padded.split_first()?;
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8(bytes[..end].to_vec()).ok()
    };
    match *kind {
        OTHER => text(rest),
        PACK => Some(format!("packs/{}.pack", unhex(rest.get(..32)?))),
        SNAPSHOT => Some(format!("snapshots/{}.snap", unhex(rest.get(..32)?))),
        REF => Some(format!("refs/{}/{}", unhex(rest.get(..16)?), text(&rest[16..])?)),
        _ => None,
    }
}

fn hex(text: &str, bytes: usize) -> Option<Vec<u8>> {
    let decoded = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
    (decoded.len() == bytes).then_some(decoded)
}

fn unhex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_store_comes_back_however_it_is_padded() {
        let (pack, machine) = ("00ab".repeat(15) + "0000", "0f".repeat(16));
        for (name, length) in [
            ("format".to_owned(), 7),
            (format!("packs/{pack}.pack"), 33),
            (format!("snapshots/{pack}.snap"), 33),
            (format!("refs/{machine}/head"), 21),
            (format!("refs/{machine}/snapshots/18446744073709551615"), 47),
            (format!("refs/{machine}/tags/{}", "t".repeat(64)), 86),
            (format!("packs/{}.pack", pack.to_uppercase()), 76),
            ("refs/x/head".to_owned(), 12),
        ] {
            let mut short = of(&name);
            assert_eq!(short.len(), length, "{name}");
            for zeros in [0, 1, 50] {
                short.resize(short.len() + zeros, 0);
                assert_eq!(expand(&short), Some(name.clone()));
            }
        }
        assert_eq!(expand(&[PACK, 1]), None);
        assert_eq!(expand(&[]), None);
    }
}
