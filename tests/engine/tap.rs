//! What stands between the daemon and its engine, sees each request, and does harm to one of them.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// The harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// The engine says no.
    Refuse,
    /// The connection ends before the engine has heard of it.
    Cut,
    /// The engine has done it, and the connection ends before it says so.
    Deafen,
    /// The engine hears nothing of it until the tap is released, and the daemon nothing of the engine.
    HoldBefore,
    /// The engine has done it, and the daemon hears nothing until the tap is released.
    HoldAfter,
}

#[derive(Debug, Default)]
struct State {
    /// Requests since the tap was set, in words.
    seen: Vec<String>,
    /// The number of the request that the harm is for.
    target: Option<(usize, Harm)>,
    /// A request is held.
    held: bool,
}

/// A socket behind which the engine is.
#[derive(Debug, Clone)]
pub struct Tap(Arc<Mutex<State>>);

impl Tap {
    /// Listens on this socket, until the process ends.
    pub fn new(socket: &Path, engine: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let tap = Self(Arc::default());
        let (accepting, engine) = (tap.clone(), engine.to_owned());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (tap, engine) = (accepting.clone(), engine.clone());
                // An error is an end of one of the two, which is what they are here for.
                thread::spawn(move || client.and_then(|client| tap.serve(client, &engine)));
            }
            Ok::<(), io::Error>(())
        });
        tap
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From now on, this happens to the request with this number, counted from 0; none for none.
    pub fn set(&self, target: Option<(usize, Harm)>) {
        *self.state() = State { target, ..State::default() };
    }

    /// The requests since then.
    pub fn seen(&self) -> Vec<String> {
        self.state().seen.clone()
    }

    /// Whether a request is held.
    pub fn holds(&self) -> bool {
        self.state().held
    }

    /// Whether what was to happen has happened.
    pub fn has_struck(&self) -> bool {
        self.state().target.is_none()
    }

    fn serve(&self, mut client: UnixStream, engine: &Path) -> io::Result<()> {
        let head = head(&mut client)?;
        let harm = words(&head).and_then(|words| {
            let mut state = self.state();
            state.seen.push(words);
            let number = state.seen.len() - 1;
            state.target.take_if(|(target, _)| *target == number).map(|(_, harm)| harm)
        });
        match harm {
            Some(Harm::Refuse) => {
                let body = r#"{"message":"the tap says no"}"#;
                let head =
                    "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nConnection: close\r\n";
                return write!(client, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
            }
            Some(Harm::Cut) => return Ok(()),
            Some(Harm::HoldBefore) => {
                self.hold();
                return Ok(());
            }
            _ => {}
        }
        let mut engine = UnixStream::connect(engine)?;
        engine.write_all(&head)?;
        let (mut upwards, mut from_client) = (engine.try_clone()?, client.try_clone()?);
        thread::spawn(move || {
            // An error ends it as the end of the request does.
            drop(io::copy(&mut from_client, &mut upwards));
            drop(upwards.shutdown(Shutdown::Write));
        });
        if matches!(harm, Some(Harm::Deafen | Harm::HoldAfter)) {
            // The engine answers when it is done.
            let mut answer = [0; 12];
            engine.read_exact(&mut answer)?;
            if harm == Some(Harm::HoldAfter) {
                self.hold();
            }
            return client.shutdown(Shutdown::Both);
        }
        let copied = io::copy(&mut engine, &mut client);
        drop(client.shutdown(Shutdown::Both));
        copied.map(drop)
    }

    /// Until the tap is set anew.
    fn hold(&self) {
        self.state().held = true;
        while self.holds() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The head of a request, as far as it has come with the end of the head.
fn head(client: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut block = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let length = client.read(&mut block)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&block[..length]);
    }
    Ok(head)
}

/// The request in words, with "ID" for each id; none if it is about the engine itself.
fn words(head: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(head).lines().next()?.to_owned();
    let mut parts = line.split(' ');
    let (method, target) = (parts.next()?, parts.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if ["events", "_ping", "version"].iter().any(|end| path.ends_with(end)) {
        return None;
    }
    let is_id = |part: &&str| {
        part.trim_start_matches("sha256:").len() == 64
            && part.bytes().rev().take(64).all(|byte| byte.is_ascii_hexdigit())
    };
    // The version of the API comes first, once the two sides have agreed on one.
    let is_version = |part: &&str| part.is_empty() || part.strip_prefix("v1.").is_some();
    let path: Vec<&str> =
        path.split('/').skip_while(is_version).map(|part| if is_id(&part) { "ID" } else { part }).collect();
    let name = query.split('&').find_map(|pair| pair.strip_prefix("name=")).unwrap_or_default();
    Some(format!("{method} {} {name}", path.join("/")).trim_end().to_owned())
}
