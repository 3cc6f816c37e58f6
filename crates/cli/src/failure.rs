//! How a command ends when it does not end well.

use std::io::{self, Write};
use std::process::ExitCode;

use watari_types::{ErrorKind, ErrorReport};

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something went wrong, and this is to be said.
    Report(ErrorReport),
    /// Everything was said already.
    Said,
    /// Nobody reads what we write any more.
    ClosedPipe,
}

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<ErrorReport> for Failure {
    fn from(report: ErrorReport) -> Self {
        Failure::Report(report)
    }
}

impl From<watari_node::Error> for Failure {
    fn from(error: watari_node::Error) -> Self {
        Failure::Report(error.report())
    }
}

impl From<watari_keeper::Error> for Failure {
    fn from(error: watari_keeper::Error) -> Self {
        Failure::Report(error.report())
    }
}

impl Failure {
    /// That the operating system refused to do `what`.
    pub(crate) fn io(what: &str, error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::ClosedPipe;
        }
        ErrorReport::new(ErrorKind::Io, format!("cannot {what}: {error}"), "").into()
    }

    /// Says what went wrong, and returns the exit code.
    pub(crate) fn tell(self, json: bool) -> ExitCode {
        match self {
            Failure::ClosedPipe => ExitCode::SUCCESS,
            Failure::Said => ExitCode::FAILURE,
            Failure::Report(report) if json => {
                print_json(&serde_json::json!({ "error": report }));
                ExitCode::FAILURE
            }
            Failure::Report(report) => {
                let mut text = format!("error: {}\n", one_line(&report.message));
                if !report.hint.is_empty() {
                    text.push_str(&format!("hint: {}\n", one_line(&report.hint)));
                }
                // There is nobody left to tell if this fails.
                let _ = io::stderr().write_all(text.as_bytes());
                ExitCode::FAILURE
            }
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Says that the command line was not understood, or gives the help that was asked for.
pub(crate) fn tell_usage(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() || !json {
        let _ = error.print();
        return ExitCode::from(error.exit_code().clamp(0, 255) as u8);
    }
    let text = error.to_string();
    let message = text.lines().take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(" ");
    let message = one_line(message.trim_start_matches("error: "));
    print_json(&serde_json::json!({
        "error": { "kind": "usage", "message": message, "hint": "`watari help` lists the commands" }
    }));
    ExitCode::from(2)
}

fn print_json(value: &serde_json::Value) {
    let _ = writeln!(io::stdout(), "{value}");
}
