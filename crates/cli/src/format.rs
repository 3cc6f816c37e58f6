//! Numbers as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// An amount of bytes: `1.2 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // From 1023.95 on, one decimal would show 1024.0 of the smaller unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time span given in milliseconds: `0.84 ms`, `12.3 ms`, `1.52 s`.
pub(crate) fn milliseconds(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.2} ms"),
        10.0..1000.0 => format!("{ms:.1} ms"),
        _ => format!("{:.2} s", ms / 1e3),
    }
}

/// How long ago something happened that is given in milliseconds since 1970.
pub(crate) fn age(unix_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    span(now.saturating_sub(unix_ms) / 1000)
}

fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3600 => (seconds / 60, "min"),
        3600..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

/// `1 page`, `2 pages`.
pub(crate) fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// A path in a guest's file system: what would move a terminal's cursor, or is no text, is escaped.
pub(crate) fn path(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\'' | '"' => text.push(letter),
                _ => text.extend(letter.escape_debug()),
            }
        }
        chunk.invalid().iter().for_each(|byte| text += &format!("\\x{byte:02x}"));
    }
    text
}

/// Enough of an id to tell it from others.
pub(crate) fn short(id: impl ToString) -> String {
    id.to_string().chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_the_largest_unit_that_fits() {
        let shown = [0, 1023, 1024, 1536, (1 << 20) - 1, 1 << 20, 1 << 30, u64::MAX].map(bytes);
        assert_eq!(
            shown,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "1.0 GiB", "16384.0 PiB"]
        );
    }

    #[test]
    fn paths_cannot_speak_to_the_terminal() {
        assert_eq!(path("/tmp/größe \"1\"".as_bytes()), "/tmp/größe \"1\"");
        assert_eq!(path(b"/a\nb\x1b[2J\\"), r"/a\nb\u{1b}[2J\\");
        assert_eq!(path("/\u{202e}fdp\u{9b}".as_bytes()), r"/\u{202e}fdp\u{9b}");
        assert_eq!(path(b"/\xff\xc3/\xc3\xa9"), r"/\xff\xc3/é");
    }

    #[test]
    fn times_keep_three_figures() {
        assert_eq!([0.123, 12.34, 1523.0].map(milliseconds), ["0.12 ms", "12.3 ms", "1.52 s"]);
        assert_eq!([5, 119, 7200, 400_000].map(span), ["5 s ago", "1 min ago", "2 h ago", "4 days ago"]);
        assert_eq!([count(1, "page"), count(0, "page")], ["1 page", "0 pages"]);
    }
}
