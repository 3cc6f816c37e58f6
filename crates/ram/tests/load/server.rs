//! The load's side: does what each line on standard input says, and answers.

use std::io::{BufRead, stdin};
use std::os::fd::AsRawFd;

use rustix::mm::Advice;

use super::Kind;
use super::area::Area;
use super::storm::{GATE, storm};

pub(super) const ASKED: &str = "WATARI_RAM_LOAD";
/// Tells our lines from those of the test harness around us.
pub(super) const MARK: &str = "load> ";

/// Serves until standard input ends, if this process was started to do so.
pub fn serve_if_asked() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let mut areas = Vec::new();
    for line in stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = obey(&mut areas, words[0], &words[1..]);
        println!("\n{MARK}{answer}");
    }
}

fn obey(areas: &mut Vec<Area>, verb: &str, words: &[&str]) -> String {
    if verb == "map" {
        let area = Area::map(Kind::from_name(words[0]), words[1].parse().unwrap(), words[2] == "huge");
        let fd = area.file.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let answer = format!("{} {} {fd}", area.address(), area.pages());
        areas.push(area);
        return answer;
    }
    if verb == "gate" {
        return format!("{} {}", (&raw const GATE.closed).addr(), (&raw const GATE.inside).addr());
    }
    let numbers: Vec<usize> = words.iter().map(|word| word.parse().unwrap()).collect();
    if verb == "storm" {
        storm(areas, numbers[0] as u64, numbers[1] as u64, numbers[2] as u64);
        return "done".into();
    }
    let (area, page) = (&areas[numbers[0]], numbers[1]);
    match verb {
        "store" => area.store(page, 0, numbers[2] as u64),
        "kernel" => area.kernel_store(page, numbers[2] as u8),
        "fill" => (0..numbers[1]).for_each(|page| area.store(page, 0, page as u64)),
        "load" => return area.load(page).to_string(),
        "drop" => area.drop_pages(page, numbers[2]),
        "dontneed" => area.advise(page, numbers[2], Advice::LinuxDontNeed),
        "remove" => area.advise(page, numbers[2], Advice::LinuxRemove),
        "pageout" => area.advise(page, numbers[2], Advice::LinuxPageOut),
        _ => panic!("what is {verb}?"),
    }
    "done".into()
}
