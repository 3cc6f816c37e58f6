//! WebDriver BiDi (<https://www.w3.org/TR/webdriver-bidi/>) from the side that gives commands, one after the other.

use std::mem;
use std::net::TcpStream;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::lab::PATIENCE;

pub struct Bidi {
    socket: WebSocket<TcpStream>,
    /// The number of the last command.
    number: u64,
    /// What was told meanwhile.
    events: Vec<Value>,
}

impl Bidi {
    /// The browser that listens on this port of loopback.
    pub fn connect(port: u16) -> Bidi {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = client(format!("ws://127.0.0.1:{port}/session"), stream).unwrap();
        let mut bidi = Bidi { socket, number: 0, events: Vec::new() };
        bidi.command("session.new", json!({ "capabilities": {} }));
        bidi
    }

    /// Gives a command that must succeed; its result.
    pub fn command(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let command = json!({ "id": self.number, "method": method, "params": params });
        self.socket.send(Message::text(command.to_string())).unwrap();
        loop {
            let message = self.socket.read().unwrap_or_else(|e| panic!("{method}: {e}"));
            let Message::Text(message) = message else { continue };
            let mut told: Value = serde_json::from_str(&message).unwrap();
            if told["type"] == "event" {
                self.events.push(told);
            } else if told["id"] == self.number {
                assert_eq!(told["type"], "success", "{method}: {told}");
                return told["result"].take();
            }
        }
    }

    /// The events that were told before the last command's result.
    pub fn events(&mut self) -> Vec<Value> {
        mem::take(&mut self.events)
    }
}
