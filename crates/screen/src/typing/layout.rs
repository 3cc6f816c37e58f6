//! Layouts: what the keys of a keyboard type. `layouts/NAME.txt` is made of xkeyboard-config by `scripts/layouts`.
//!
//! The first line is what people call the layout. Each further one is a key, as browsers name it, and what it types alone, with
//! Shift, with AltGr and with both: a character (or `U+` and its number, where it cannot be seen), `none`, or a dead key, which is a
//! dotted circle with the mark that the next letter gets.

use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_normalization::char::decompose_canonical;

use crate::qnum;

/// What stands for any letter below a mark.
const ANY: char = '\u{25cc}';
/// What dead keys type when Space follows. The acute accent and the diaeresis become quotation marks on some systems, and what they
/// are called on others: these are only typed where they do what there is no other key for.
const ALONE: [(char, char); 13] = [
    ('`', '\u{300}'),
    ('\'', '\u{301}'),
    ('^', '\u{302}'),
    ('~', '\u{303}'),
    ('¯', '\u{304}'),
    ('˘', '\u{306}'),
    ('˙', '\u{307}'),
    ('"', '\u{308}'),
    ('°', '\u{30a}'),
    ('˝', '\u{30b}'),
    ('ˇ', '\u{30c}'),
    ('¸', '\u{327}'),
    ('˛', '\u{328}'),
];

macro_rules! tables {
    ($($name:literal),*) => { &[$(($name, include_str!(concat!("../../layouts/", $name, ".txt")))),*] };
}

const TABLES: &[(&str, &str)] = tables![
    "be", "br", "ca", "ch", "ch-fr", "cz", "de", "dk", "es", "fi", "fr", "gb", "hu", "it", "jp", "latam",
    "nl", "no", "pl", "pt", "ru", "se", "sk", "tr", "us", "us-intl"
];

static LAYOUTS: LazyLock<Vec<Layout>> =
    LazyLock::new(|| TABLES.iter().filter_map(|(name, table)| Layout::parse(name, table)).collect());

/// All layouts, in the order of their names.
pub fn layouts() -> &'static [Layout] {
    &LAYOUTS
}

/// What the keys of a keyboard type.
#[derive(Debug, PartialEq)]
pub struct Layout {
    name: &'static str,
    title: &'static str,
    typed: HashMap<char, Press>,
    /// Dead keys, by the marks that they put on letters.
    dead: HashMap<char, Press>,
}

/// A key, with what is held meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Press {
    pub(super) key: u32,
    pub(super) shift: bool,
    pub(super) alt_gr: bool,
}

impl Layout {
    /// The layout of that name.
    pub fn named(name: &str) -> Option<&'static Layout> {
        layouts().iter().find(|layout| layout.name == name)
    }

    /// A short name, such as `de`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What people call it, in English.
    pub fn title(&self) -> &'static str {
        self.title
    }

    fn parse(name: &'static str, table: &'static str) -> Option<Layout> {
        let mut lines = table.lines();
        let title = lines.next()?.strip_prefix("# ")?;
        let mut layout = Layout { name, title, typed: HashMap::new(), dead: HashMap::new() };
        let rows: Option<Vec<_>> = lines.map(row).collect();
        let rows = rows?;
        // What is reached with fewer keys goes first.
        for (level, (alt_gr, shift)) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            for (key, texts) in &rows {
                let press = Press { key: *key, shift, alt_gr };
                match texts.get(level) {
                    None | Some(Typed::Nothing) => {}
                    Some(Typed::Text(text)) => drop(layout.typed.entry(*text).or_insert(press)),
                    Some(Typed::Mark(mark)) => drop(layout.dead.entry(*mark).or_insert(press)),
                }
            }
        }
        Some(layout)
    }

    /// The keys to press for a character, one after the other. A dead key that is reached without AltGr goes before a key that is
    /// reached with it: keyboards have it printed on them, and all systems know it.
    pub(super) fn presses(&self, character: char) -> Option<Vec<Press>> {
        let direct = self.typed.get(&character).map(|press| vec![*press]);
        let is_plain = |presses: &Vec<Press>| presses.iter().all(|press| !press.alt_gr);
        if direct.as_ref().is_some_and(is_plain) {
            return direct;
        }
        let composed = self.composed(character);
        if composed.as_ref().is_some_and(is_plain) { composed } else { direct.or(composed) }
    }

    fn composed(&self, character: char) -> Option<Vec<Press>> {
        let (letter, mark) = match ALONE.iter().find(|(alone, _)| *alone == character) {
            Some((_, mark)) => (' ', *mark),
            None => parts(character)?,
        };
        Some(vec![*self.dead.get(&mark)?, *self.typed.get(&letter)?])
    }
}

/// A letter and the one mark that is on it.
fn parts(character: char) -> Option<(char, char)> {
    let mut parts = Vec::new();
    decompose_canonical(character, |part| parts.push(part));
    match parts[..] {
        [letter, mark] => Some((letter, mark)),
        _ => None,
    }
}

enum Typed {
    Nothing,
    Text(char),
    Mark(char),
}

fn row(line: &str) -> Option<(u32, Vec<Typed>)> {
    let (code, texts) = line.split_once(' ')?;
    let texts: Option<Vec<Typed>> = texts.split(' ').map(typed).collect();
    Some((qnum(code)?, texts?))
}

fn typed(text: &str) -> Option<Typed> {
    let mut characters = text.chars();
    match (characters.next()?, characters.next(), characters.next()) {
        (one, None, None) => Some(Typed::Text(one)),
        (ANY, Some(mark), None) => Some(Typed::Mark(mark)),
        _ if text == "none" => Some(Typed::Nothing),
        _ => {
            let number = u32::from_str_radix(text.strip_prefix("U+")?, 16).ok()?;
            char::from_u32(number).map(Typed::Text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_understood() {
        let names: Vec<&str> = layouts().iter().map(Layout::name).collect();
        assert_eq!(names, TABLES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        assert!(names.is_sorted());
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/layouts");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
        assert_eq!(files.filter(|file| file.to_string_lossy().ends_with(".txt")).count(), names.len());
        for layout in layouts() {
            assert!(layout.title.len() > 3, "{layout:?}");
            assert!("0123456789-/?!:. ".chars().all(|c| layout.presses(c).is_some()), "{}", layout.name);
        }
    }

    #[test]
    fn latin_layouts_type_all_of_ascii() {
        for layout in layouts().iter().filter(|layout| layout.name != "ru") {
            let missing: String = (' '..='~').filter(|c| layout.presses(*c).is_none()).collect();
            assert_eq!(missing, "", "{}", layout.name);
        }
    }

    #[test]
    fn what_is_no_table_is_none() {
        for table in [
            "",
            "German",
            "# German\nKeyA",
            "# German\nKeyÄ a",
            "# German\nKeyA  a",
            "# German\nKeyA ab",
            "# German\nKeyA U+D800",
            "# German\nKeyA U+",
        ] {
            assert_eq!(Layout::parse("de", table), None, "{table:?}");
        }
        assert!(Layout::parse("de", "# German\nKeyA a none U+00A0 ◌́").is_some());
    }
}
