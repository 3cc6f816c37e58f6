//! QEMU's RAM blocks, as its monitor prints them.

/// The block that is the guest's main memory.
pub const RAM_BLOCK_MAIN: &str = "m0";

/// One RAM block of a QEMU process: guest memory, video memory, a ROM, a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RamBlock {
    /// Its name, unique within the machine and the same in every process with the same layout.
    pub name: String,
    /// How many bytes of it are in use.
    pub used: u64,
    /// How many bytes it may grow to.
    pub max: u64,
    /// Where it begins in QEMU's address space.
    pub host_address: u64,
    /// Whether the *guest* cannot write to it. QEMU itself can, and does when the machine is reset.
    pub read_only: bool,
}

/// Parses HMP's `info ramblock` (QEMU 8.1 and later, which print the host address).
///
/// ```text
///               Block Name    PSize              Offset               Used              Total                HVA  RO
///                       m0    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000 0x00007f857be00000  rw
/// ```
pub(crate) fn parse(text: &str) -> Option<Vec<RamBlock>> {
    let mut lines = text.lines();
    lines.next().filter(|header| header.contains("Block Name") && header.contains("HVA"))?;
    lines.filter(|line| !line.trim().is_empty()).map(parse_line).collect()
}

/// A name may contain blanks, so the columns are counted from the right.
fn parse_line(line: &str) -> Option<RamBlock> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name @ .., _page_size, _unit, _offset, used, max, host_address, access] = words.as_slice() else {
        return None;
    };
    let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let read_only = match *access {
        "ro" => true,
        "rw" => false,
        _ => return None,
    };
    if name.is_empty() {
        return None;
    }
    Some(RamBlock {
        name: name.join(" "),
        used: hex(used)?,
        max: hex(max)?,
        host_address: hex(host_address)?,
        read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU_10: &str = concat!(
        "              Block Name    PSize              Offset               Used              Total                HVA  RO\r\n",
        "                      m0    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000 0x00007f857be00000  rw\r\n",
        "   0000:00:01.0/vga.vram    4 KiB  0x0000000008080000 0x0000000001000000 0x0000000001000000 0x00007f857a800000  rw\r\n",
        "    /rom@etc/acpi/tables    4 KiB  0x00000000090c0000 0x0000000000020000 0x0000000000200000 0x00007f857a200000  ro\r\n",
    );

    #[test]
    fn every_block_is_read_with_its_size_in_use_and_its_address() {
        let blocks = parse(QEMU_10).unwrap();
        assert_eq!(blocks.len(), 3);
        assert_eq!((blocks[0].name.as_str(), blocks[0].read_only), (RAM_BLOCK_MAIN, false));
        let tables = RamBlock {
            name: "/rom@etc/acpi/tables".into(),
            used: 0x20000,
            max: 0x200000,
            host_address: 0x7f85_7a20_0000,
            read_only: true,
        };
        assert_eq!(blocks[2], tables);
    }

    #[test]
    fn a_table_without_host_addresses_or_with_a_broken_line_is_refused_whole() {
        assert_eq!(parse("Block Name PSize Offset Used Total\n m0 4 KiB 0x0 0x1 0x1\n"), None);
        assert_eq!(parse(&format!("{QEMU_10}\n garbage\n")), None);
        assert_eq!(parse(""), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(Block Name HVA\n)?[ -~\n]{0,200}") {
            let _ = parse(&text);
        }
    }
}
