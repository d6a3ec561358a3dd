//! A command in a vPLC, and the output of a vPLC as it comes.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;

use bytes::Bytes;
use orchestratord::core::error::Kind;
use orchestratord::vplc::engine::Size;
use orchestratord::vplc::session::{Frame, FrameReader, FrameWriter, frames};
use orchestratord_dbus::{Options, VplcProxy};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::failure::{Failure, SUCCESS};
use crate::interrupt::Interrupt;

/// Bytes that are read at once.
const BLOCK: usize = 1 << 15;

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::new(Kind::Failed, format!("{what}: {error}."))
}

fn no_json(json: bool) -> Result<(), Failure> {
    if json {
        return Err(Failure::new(
            Kind::InvalidArgs,
            "What a vPLC prints is shown as it comes; there is no JSON of it.",
        ));
    }
    Ok(())
}

/// A socket that the daemon handed over.
fn socket(handed: zbus::OwnedFd) -> Result<UnixStream, Failure> {
    let socket = Socket::from(OwnedFd::from(handed));
    let opened = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
    opened.map_err(|error| failed("Cannot use what orchestratord handed over", &error))
}

/// Prints what comes until it ends.
pub async fn follow(request: impl Future<Output = zbus::Result<zbus::OwnedFd>>, json: bool) -> Result<u8, Failure> {
    no_json(json)?;
    let mut interrupt = Interrupt::new()?;
    let mut output = socket(request.await.map_err(|error| Failure::from_bus(&error))?)?;
    let mut block = vec![0; BLOCK];
    loop {
        let length = tokio::select! {
            signal = interrupt.wait() => return Ok(signal),
            length = output.read(&mut block) => length.map_err(|error| failed("Cannot read the output", &error))?,
        };
        if length == 0 {
            return Ok(SUCCESS);
        }
        write(&mut io::stdout().lock(), &block[..length])?;
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    to.write_all(bytes).and_then(|()| to.flush()).map_err(|error| Failure::from_output(&error))
}

/// Runs a command in a vPLC; returns its exit code.
pub async fn shell(vplc: &VplcProxy<'_>, command: &[String], json: bool) -> Result<u8, Failure> {
    no_json(json)?;
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let mut options = Options::new();
    if terminal {
        let kind = std::env::var("TERM").ok().filter(|kind| !kind.is_empty()).unwrap_or_else(|| "dumb".to_owned());
        options.insert("terminal", kind.into());
        if let Some(size) = size() {
            options.insert("rows", u32::from(size.rows).into());
            options.insert("columns", u32::from(size.columns).into());
        }
    }
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let handed = vplc.shell(&words, options).await.map_err(|error| Failure::from_bus(&error))?;
    let (from, to) = frames(socket(handed)?);
    // From here on the command has the keys, also those that would end this program.
    let _raw = terminal.then(Raw::begin).transpose()?;
    let mut interrupt = Interrupt::new()?;
    tokio::select! {
        code = receive(from) => code,
        failure = send(to, terminal) => Err(failure),
        signal = interrupt.wait() => Ok(signal),
    }
}

/// Prints what the command writes, and returns its exit code.
async fn receive(mut from: FrameReader) -> Result<u8, Failure> {
    loop {
        match from.next().await.map_err(|error| failed("The session is broken", &error))? {
            Some(Frame::Output(bytes)) => write(&mut io::stdout().lock(), &bytes)?,
            Some(Frame::Errors(bytes)) => write(&mut io::stderr().lock(), &bytes)?,
            // Exit codes of processes have eight bits.
            Some(Frame::Exit(code)) => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            Some(Frame::Lost(reason)) => return Err(Failure::new(Kind::EngineFailed, reason)),
            Some(_) => {}
            None => return Err(Failure::left()),
        }
    }
}

/// Sends what is typed, and the size of the terminal when it changes. Ends only if that cannot be done.
async fn send(mut to: FrameWriter, terminal: bool) -> Failure {
    let mut resized = match signal(SignalKind::window_change()) {
        Ok(resized) => resized,
        Err(error) => return failed("Cannot wait for signals", &error),
    };
    let mut typed = typed();
    loop {
        let frame = tokio::select! {
            bytes = typed.recv() => bytes.map_or(Frame::EndOfInput, Frame::Input),
            _ = resized.recv(), if terminal => match size() {
                Some(size) => Frame::Size(size),
                None => continue,
            },
        };
        let last = frame == Frame::EndOfInput;
        // An error means that the command has ended, which is told elsewhere.
        if to.send(frame).await.is_err() || last {
            return std::future::pending().await;
        }
    }
}

/// What is typed, read by a thread of its own: standard input may be a file, which nobody can wait for.
fn typed() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut block = vec![0; BLOCK];
        while let Ok(length @ 1..) = io::stdin().lock().read(&mut block) {
            if sender.blocking_send(Bytes::copy_from_slice(&block[..length])).is_err() {
                break;
            }
        }
    });
    receiver
}

fn size() -> Option<Size> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Size { rows: size.ws_row, columns: size.ws_col })
}

/// A terminal that hands every key over as it is; dropping it makes it as it was.
struct Raw(Termios);

impl Raw {
    fn begin() -> Result<Self, Failure> {
        let set = || {
            let before = tcgetattr(io::stdin())?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
            Ok(Self(before))
        };
        set().map_err(|error: rustix::io::Errno| failed("Cannot prepare the terminal", &error.into()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nobody could do anything about it.
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.0).ok();
    }
}
