//! Conversations over the network, to see whether they last.

use std::io::{self, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// What is said comes back.
const ECHO: u16 = 7;
/// Numbered lines come without end, as fast as they are taken.
const LINES: u16 = 19;

/// Serves both, for ever.
pub fn run() -> Result<(), String> {
    thread::spawn(|| serve(LINES, lines));
    serve(ECHO, echo)
}

fn serve(port: u16, talk: fn(TcpStream) -> io::Result<()>) -> Result<(), String> {
    let listener = TcpListener::bind(("0.0.0.0", port)).map_err(|e| format!("port {port}: {e}"))?;
    for stream in listener.incoming().flatten() {
        // Whoever is not served any more has gone.
        thread::spawn(move || talk(stream));
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            n => stream.write_all(&bytes[..n])?,
        }
    }
}

fn lines(stream: TcpStream) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, stream);
    for line in 1u64.. {
        writeln!(out, "line {line}")?;
    }
    Ok(())
}
