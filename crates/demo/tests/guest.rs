//! The parts of the guest's program that can be tested without a guest.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../guest/disk.rs"]
mod disk;
#[allow(dead_code)]
#[path = "../guest/json.rs"]
mod json;
#[allow(dead_code)]
#[path = "../guest/options.rs"]
mod options;
#[allow(dead_code)]
#[path = "../guest/pace.rs"]
mod pace;
#[allow(dead_code)]
#[path = "../guest/page.rs"]
mod page;
#[allow(dead_code)]
#[path = "../guest/stamp.rs"]
mod stamp;

use json::{Json, quote};
use options::Options;

#[test]
fn the_agents_parser_understands_what_hosts_send() {
    let text = r#"{"execute": "guest-set-time", "arguments": {"time": 1763700000123456789, "x": [1, {}]}}"#;
    let request = Json::parse(text).unwrap();
    assert_eq!(request.get("execute").and_then(Json::text), Some("guest-set-time"));
    let time = request.get("arguments").and_then(|arguments| arguments.get("time")?.integer());
    assert_eq!(time, Some(1_763_700_000_123_456_789));
    assert_eq!(Json::parse(r#""A\n\"\\""#).unwrap().text(), Some("A\n\"\\"));
}

#[test]
fn the_agents_parser_refuses_what_is_not_json() {
    let deep = "[".repeat(100_000);
    for bad in ["", "{", "{\"a\"}", "[1,]", "\"\\u00\"", "\"\\x\"", "nul", "1 2", "--1", "\"\n\"", &deep] {
        assert_eq!(Json::parse(bad), None, "{bad:.20}");
    }
}

#[test]
fn options_are_numbers_and_sizes_or_refused() {
    let options = |text: &str| Options::parse(text.split(' ').map(str::to_owned));
    let good = options("mem=64M rate=2.5").unwrap();
    assert_eq!((good.bytes("mem"), good.bytes("disk")), (Ok(Some(64 << 20)), Ok(None)));
    assert_eq!((good.number("rate", 1.0), good.number("other", 1.0)), (Ok(2.5), Ok(1.0)));
    assert!(options("mem").is_err());
    let bad = options("mem=99999999999999G rate=-1").unwrap();
    assert!(bad.bytes("mem").is_err() && bad.number("rate", 1.0).is_err());
}

proptest::proptest! {
    #[test]
    fn what_is_quoted_reads_back_as_it_was(text in ".*") {
        proptest::prop_assert_eq!(Json::parse(&quote(&text)), Some(Json::Text(text)));
    }

    #[test]
    fn no_text_makes_the_agents_parser_panic(text in "[{}\\[\\]\":,0-9a-zé\\\\ ]{0,60}") {
        let _ = Json::parse(&text);
    }
}
