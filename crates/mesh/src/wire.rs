//! What one node asks of another: one stream for each request, which begins with a line of JSON each way.
//!
//! ```text
//!   {"protocol":4,"program":"0.1.0","ask":"holdings"} ─►   its length before it, as four bytes, little-endian
//!                                        ◄─ {"ok":{…}} or {"error":{"kind","message","hint"}}
//! ```
//! What follows depends on what was asked: nothing, or an [exchange](crate::exchange). A node that speaks another version of
//! the protocol says so, which is why every version begins like this.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use watari_types::{ErrorKind, ErrorReport, Generation, MachineId, MachineName};

use crate::Error;
use crate::handover::{Arriving, Call};
use crate::roll::Records;

/// By which connections of this program are known.
pub(crate) const ALPN: &[u8] = b"watari";
/// The version of what is described here and in [`exchange`](crate::exchange), and of what keepers say to each other.
pub const PROTOCOL: u32 = 4;
/// A thousand members, with all that is known of each.
const MOST_BYTES: u32 = 4 << 20;
/// A request of somebody who is no member.
const MOST_BYTES_OF_STRANGERS: u32 = 16 << 10;

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Ask {
    /// To be let in.
    Join {
        /// What the ticket says.
        #[serde(with = "hex")]
        secret: [u8; 16],
    },
    /// To say who belongs to the mesh if that is not what this stands for, and to be told.
    Roll {
        #[serde(with = "hex")]
        digest: [u8; 32],
        records: Option<Box<Records>>,
    },
    /// To take the one who asks out of the mesh.
    Leave,
    /// About who may run a machine.
    Handover { machine: MachineId, call: Box<Call> },
    /// To be ready for a machine, and to pass on what its two keepers say to each other from then on.
    Migrate { machine: MachineId, arriving: Box<Arriving> },
    /// To pass on what is wanted of a machine that was lent, and what is given.
    Lend { machine: MachineId },
    /// To pass on what somebody asks there, in HTTP, who watches a machine, and may use it or not.
    Watch { machine: MachineId, may_control: bool },
    /// What it has.
    Holdings,
    /// To take a snapshot, of which pages come over lanes of this name.
    Take {
        #[serde(with = "hex")]
        lanes: [u8; 16],
    },
    /// To give one, over lanes of this name.
    Give {
        rev: String,
        #[serde(with = "hex")]
        lanes: [u8; 16],
    },
    /// To take what follows as part of what is being taken under this name. There is no answer.
    Lane {
        #[serde(with = "hex")]
        name: [u8; 16],
    },
}

/// A request as it is sent.
#[derive(Debug, Serialize, Deserialize)]
struct Asked<T> {
    protocol: u32,
    program: String,
    #[serde(flatten)]
    ask: T,
}

/// What every version of a request has.
#[derive(Debug, Deserialize)]
struct Nothing {}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer<T> {
    Ok(T),
    Error(ErrorReport),
}

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Its machines.
    pub machines: Vec<HeldMachine>,
    /// Bytes of its store.
    pub store_bytes: u64,
}

/// A machine that a node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldMachine {
    /// Its id.
    pub id: MachineId,
    /// What it is called there.
    pub name: MachineName,
    /// What it does there.
    pub state: String,
    /// The snapshot it descends from there.
    pub generation: Option<Generation>,
}

async fn write(write: &mut (impl AsyncWrite + Unpin), line: &impl Serialize) -> Result<(), Error> {
    let line = serde_json::to_vec(line).map_err(Error::cut)?;
    let length = (line.len() as u32).to_le_bytes();
    let all = [&length[..], &line].concat();
    write.write_all(&all).await.map_err(Error::cut)
}

async fn read(read: &mut (impl AsyncRead + Unpin), most: u32) -> Result<Vec<u8>, Error> {
    let bytes = read.read_u32_le().await.map_err(Error::cut)?;
    if bytes > most {
        return Err(Error::Refused(ErrorReport::new(
            ErrorKind::Forbidden,
            "the other node says too much at once",
            "",
        )));
    }
    let mut line = vec![0; bytes as usize];
    read.read_exact(&mut line).await.map_err(Error::cut)?;
    Ok(line)
}

/// Says something that has no answer.
pub(crate) async fn say(send: &mut (impl AsyncWrite + Unpin), program: &str, ask: &Ask) -> Result<(), Error> {
    write(send, &Asked { protocol: PROTOCOL, program: program.to_owned(), ask }).await
}

/// Asks, and waits for the answer.
pub(crate) async fn ask<T: DeserializeOwned>(
    send: &mut (impl AsyncWrite + Unpin),
    receive: &mut (impl AsyncRead + Unpin),
    program: &str,
    ask: &Ask,
) -> Result<T, Error> {
    say(send, program, ask).await?;
    answered(receive).await
}

/// Waits for the answer to what was asked.
pub(crate) async fn answered<T: DeserializeOwned>(
    receive: &mut (impl AsyncRead + Unpin),
) -> Result<T, Error> {
    let line = read(receive, MOST_BYTES).await?;
    match serde_json::from_slice(&line) {
        Ok(Answer::Ok(answer)) => Ok(answer),
        Ok(Answer::Error(report)) => Err(Error::Refused(report)),
        Err(_) => Err(Error::Refused(nonsense("answers"))),
    }
}

/// Reads what is asked.
///
/// # Errors
/// It cannot be understood; the report is to be answered.
pub(crate) async fn asked(
    receive: &mut (impl AsyncRead + Unpin),
    is_member: bool,
    program: &str,
) -> Result<Ask, Error> {
    let line = read(receive, if is_member { MOST_BYTES } else { MOST_BYTES_OF_STRANGERS }).await?;
    understand(&line, program).map_err(Error::Unwanted)
}

/// What is asked with this line.
pub(crate) fn understand(line: &[u8], program: &str) -> Result<Ask, ErrorReport> {
    let Ok(Asked { protocol, program: theirs, ask: Nothing {} }) = serde_json::from_slice(line) else {
        return Err(nonsense("asks"));
    };
    if protocol != PROTOCOL {
        let theirs: String = theirs.chars().filter(|c| !c.is_control()).take(40).collect();
        let message = format!(
            "this node speaks protocol {PROTOCOL} (watari {program}), the other one {protocol} (watari {theirs})"
        );
        return Err(ErrorReport::new(
            ErrorKind::Forbidden,
            message,
            "run the same version of Watari on both",
        ));
    }
    let asked: Asked<Ask> = serde_json::from_slice(line).map_err(|_| nonsense("asks"))?;
    Ok(asked.ask)
}

fn nonsense(does: &str) -> ErrorReport {
    let hint = "is it another version of Watari? `watari nodes` shows them";
    ErrorReport::new(
        ErrorKind::Forbidden,
        format!("the other node {does} what this one does not understand"),
        hint,
    )
}

/// Answers what was asked.
pub(crate) async fn answer<T: Serialize>(
    send: &mut (impl AsyncWrite + Unpin),
    answer: Result<T, ErrorReport>,
) -> Result<(), Error> {
    write(send, &answer.map_or_else(Answer::Error, Answer::Ok)).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_version_is_told_so() {
        let report = understand(br#"{"protocol":7,"program":"9.9","wish":[1]}"#, "0.1.0").unwrap_err();
        assert_eq!(report.kind, ErrorKind::Forbidden);
        assert!(
            report.message.ends_with("protocol 4 (watari 0.1.0), the other one 7 (watari 9.9)"),
            "{report}"
        );
    }

    #[test]
    fn the_bytes_of_a_request_stay_what_they_are() {
        let asked = Asked { protocol: PROTOCOL, program: "0.1.0".to_owned(), ask: &Ask::Holdings };
        let line = serde_json::to_string(&asked).unwrap();
        assert_eq!(line, r#"{"protocol":4,"program":"0.1.0","ask":"holdings"}"#);
        let give = r#"{"protocol":4,"program":"0.1.0","ask":"give","rev":"web@3","lanes":"00000000000000000000000000000000"}"#;
        assert!(matches!(understand(give.as_bytes(), ""), Ok(Ask::Give { rev, .. }) if rev == "web@3"));
        let join = Asked { protocol: PROTOCOL, program: String::new(), ask: &Ask::Join { secret: [7; 16] } };
        let line = serde_json::to_string(&join).unwrap();
        assert_eq!(
            line,
            format!(r#"{{"protocol":4,"program":"","ask":"join","secret":"{}"}}"#, "07".repeat(16))
        );
    }

    proptest! {
        #[test]
        fn any_line_is_understood_or_refused(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = understand(&line, "0.1.0");
        }
    }
}
