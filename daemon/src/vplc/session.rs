//! A command in a vPLC whose terminal or streams are somebody else's, and the output of a vPLC as it comes.
//!
//! Whoever has a session holds one end of a Unix socket; the daemon holds the other one, and passes on what comes from either side.
//! What goes over it are frames: their length as four bytes, the most significant first, then one byte that says what it is, then
//! the rest. `docs/vplc.md` lists them.

use std::io;
use std::os::unix::net::UnixStream as Socket;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::engine::{Attached, Engine, Errand, Fate, Piece, Size};
use crate::core::error::{Error, Kind};

/// Sessions at a time, of all vPLCs.
const SESSIONS: usize = 32;
/// Bytes of a frame.
const FRAME_LIMIT: usize = 1 << 17;
/// Bytes of output that go into one.
const PART: usize = 1 << 16;
/// How long a command may take to end whose caller has gone, before it is killed.
const FAREWELL: Duration = Duration::from_secs(3);
/// Between two looks at a command whose output has ended: the first pause, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// What goes over the socket of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// `i`, from the caller: for the command to read.
    Input(Bytes),
    /// `e`, from the caller: there is nothing more to read.
    EndOfInput,
    /// `s`, from the caller: the terminal has another size; rows and columns, two bytes each.
    Size(Size),
    /// `o`: what the command has written to its standard output or its terminal.
    Output(Bytes),
    /// `r`: what it has written to its standard error.
    Errors(Bytes),
    /// `x`: it has ended with this exit code, eight bytes with a sign. Nothing follows.
    Exit(i64),
    /// `f`: it is not known any more how it does, and why. Nothing follows.
    Lost(String),
}

impl Frame {
    fn encode(self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Self::Input(content) => put(&mut bytes, b'i', &content),
            Self::EndOfInput => bytes.put_u8(b'e'),
            Self::Size(size) => {
                bytes.put_u8(b's');
                bytes.put_u16(size.rows);
                bytes.put_u16(size.columns);
            }
            Self::Output(content) => put(&mut bytes, b'o', &content),
            Self::Errors(content) => put(&mut bytes, b'r', &content),
            Self::Exit(code) => {
                bytes.put_u8(b'x');
                bytes.put_i64(code);
            }
            Self::Lost(reason) => put(&mut bytes, b'f', reason.as_bytes()),
        }
        bytes.freeze()
    }

    fn decode(mut bytes: Bytes) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "a frame of a session is malformed");
        if bytes.is_empty() {
            return Err(invalid());
        }
        let kind = bytes.split_to(1);
        Ok(match (kind[0], bytes.len()) {
            (b'i', _) => Self::Input(bytes),
            (b'e', 0) => Self::EndOfInput,
            (b's', 4) => Self::Size(Size {
                rows: u16::from_be_bytes([bytes[0], bytes[1]]),
                columns: u16::from_be_bytes([bytes[2], bytes[3]]),
            }),
            (b'o', _) => Self::Output(bytes),
            (b'r', _) => Self::Errors(bytes),
            (b'x', 8) => Self::Exit(i64::from_be_bytes(bytes[..].try_into().map_err(|_| invalid())?)),
            (b'f', _) => Self::Lost(String::from_utf8_lossy(&bytes).into_owned()),
            _ => return Err(invalid()),
        })
    }
}

fn put(bytes: &mut BytesMut, kind: u8, content: &[u8]) {
    bytes.put_u8(kind);
    bytes.put_slice(content);
}

/// Where frames come from.
#[derive(Debug)]
pub struct FrameReader(FramedRead<OwnedReadHalf, LengthDelimitedCodec>);

impl FrameReader {
    /// The next frame; none if the other side has gone. Nothing is lost if somebody stops waiting for it.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        match self.0.next().await {
            Some(bytes) => Frame::decode(bytes?.freeze()).map(Some),
            None => Ok(None),
        }
    }
}

/// Where frames go.
#[derive(Debug)]
pub struct FrameWriter(FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>);

impl FrameWriter {
    /// Sends a frame.
    pub async fn send(&mut self, frame: Frame) -> io::Result<()> {
        self.0.send(frame.encode()).await
    }
}

/// Both directions of the socket of a session.
pub fn frames(socket: UnixStream) -> (FrameReader, FrameWriter) {
    let codec = || LengthDelimitedCodec::builder().max_frame_length(FRAME_LIMIT).new_codec();
    let (read, write) = socket.into_split();
    (FrameReader(FramedRead::new(read, codec())), FrameWriter(FramedWrite::new(write, codec())))
}

/// The sessions of the daemon.
#[derive(Debug, Clone)]
pub struct Sessions {
    engine: Arc<dyn Engine>,
    free: Arc<Semaphore>,
}

impl Sessions {
    /// None so far.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, free: Arc::new(Semaphore::new(SESSIONS)) }
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, Error> {
        let busy = |_| Error::new(Kind::Busy, format!("{SESSIONS} sessions are open, and there can be no more."));
        self.free.clone().try_acquire_owned().map_err(busy)
    }

    /// Runs a command in the runtime of a vPLC; returns the caller's end of the session. When the caller closes it, the command
    /// gets `SIGHUP`.
    pub async fn run(self, vplc: String, errand: Errand) -> Result<Socket, Error> {
        let permit = self.enter()?;
        let (ours, theirs) = sockets()?;
        let attached = self.engine.attach(&vplc, &errand).await?;
        tokio::spawn(async move {
            let id = attached.id.clone();
            let (mut from, mut to) = frames(ours);
            if let Some(last) = pass_on(&*self.engine, attached, &mut from, &mut to).await {
                // An error means that the caller has gone, too.
                drop(to.send(last).await);
            } else {
                hang_up(&*self.engine, &id).await;
            }
            drop(permit);
        });
        Ok(theirs)
    }

    /// The last lines of output of a vPLC and all that comes; returns the reading end of a socket. It ends when the runtime ends.
    pub async fn follow(self, vplc: String, lines: u32) -> Result<Socket, Error> {
        let permit = self.enter()?;
        let (mut ours, theirs) = sockets()?;
        let mut output = self.engine.follow(&vplc, lines).await?;
        tokio::spawn(async move {
            let mut none = [0];
            loop {
                let (mut read, mut write) = ours.split();
                tokio::select! {
                    // Nobody is to write, so this is the end of the reader.
                    _ = read.read(&mut none) => break,
                    piece = output.next() => {
                        let Some(Ok(Piece::Output(bytes) | Piece::Errors(bytes))) = piece else { break };
                        if write.write_all(&bytes).await.is_err() {
                            break;
                        }
                    }
                }
            }
            drop(permit);
        });
        Ok(theirs)
    }
}

/// A pair of connected sockets: ours, and that of the caller.
fn sockets() -> Result<(UnixStream, Socket), Error> {
    let pair = || {
        let (ours, theirs) = Socket::pair()?;
        ours.set_nonblocking(true)?;
        Ok::<_, io::Error>((UnixStream::from_std(ours)?, theirs))
    };
    pair().map_err(|error| Error::new(Kind::Failed, format!("A socket cannot be made: {error}.")))
}

/// Passes on what comes from both sides until the command has ended, and returns what is to be said last; none if the caller has
/// gone.
async fn pass_on(
    engine: &dyn Engine,
    attached: Attached,
    from: &mut FrameReader,
    to: &mut FrameWriter,
) -> Option<Frame> {
    let Attached { id, input, mut output } = attached;
    let downwards = async {
        while let Some(piece) = output.next().await {
            let (mut bytes, frame): (Bytes, fn(Bytes) -> Frame) = match piece {
                Ok(Piece::Output(bytes)) => (bytes, Frame::Output),
                Ok(Piece::Errors(bytes)) => (bytes, Frame::Errors),
                Err(error) => return Some(Frame::Lost(error.to_string())),
            };
            while !bytes.is_empty() {
                let part = bytes.split_to(bytes.len().min(PART));
                to.send(frame(part)).await.ok()?;
            }
        }
        // Its output may end before the engine knows of its end, or long before that if it closes it.
        let mut pause = FIRST_PAUSE;
        loop {
            match engine.fate(&id).await {
                Ok(Fate::Ended(code)) => return Some(Frame::Exit(code)),
                Ok(Fate::Runs(_)) => sleep(pause).await,
                Err(error) => return Some(Frame::Lost(error.to_string())),
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    };
    let upwards = async {
        let mut input = Some(input);
        // What is malformed ends the session as a caller does who goes away.
        while let Ok(Some(frame)) = from.next().await {
            match frame {
                Frame::Input(bytes) => {
                    let Some(open) = &mut input else { continue };
                    if open.write_all(&bytes).await.is_err() || open.flush().await.is_err() {
                        // The command does not read any more.
                        input = None;
                    }
                }
                Frame::EndOfInput => {
                    if let Some(mut open) = input.take() {
                        drop(open.shutdown().await);
                    }
                }
                Frame::Size(size) => {
                    if let Err(error) = engine.resize(&id, size).await {
                        tracing::debug!("{error}");
                    }
                }
                _ => return,
            }
        }
    };
    tokio::select! {
        last = downwards => last,
        () = upwards => None,
    }
}

/// Ends a command whose caller has gone, as the end of a terminal does.
async fn hang_up(engine: &dyn Engine, id: &str) {
    for signal in [Signal::HUP, Signal::KILL] {
        match send(engine, id, signal).await {
            Ok(true) => sleep(FAREWELL).await,
            Ok(false) => return,
            Err(error) => return tracing::warn!("A command whose caller has gone cannot be ended. {error}"),
        }
    }
}

/// Sends a signal to a command; returns whether it still ran.
async fn send(engine: &dyn Engine, id: &str, signal: Signal) -> Result<bool, Error> {
    let failed =
        |error: rustix::io::Errno| Error::new(Kind::Failed, format!("Its process cannot be told to: {error}."));
    let Fate::Runs(pid) = engine.fate(id).await? else { return Ok(false) };
    let process = Pid::from_raw(pid).ok_or_else(|| failed(rustix::io::Errno::SRCH))?;
    let process = match pidfd_open(process, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        process => process.map_err(failed)?,
    };
    // If the engine still says so, the descriptor is that of the command, and not of a later process with its number.
    if engine.fate(id).await? != Fate::Runs(pid) {
        return Ok(false);
    }
    match pidfd_send_signal(process, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(false),
        sent => sent.map(|()| true).map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written() {
        for frame in [
            Frame::Input(Bytes::from_static(b"ls\n")),
            Frame::EndOfInput,
            Frame::Size(Size { rows: 24, columns: 80 }),
            Frame::Output(Bytes::new()),
            Frame::Errors(Bytes::from_static(b"\0\xff")),
            Frame::Exit(-1),
            Frame::Lost("gone".to_owned()),
        ] {
            assert_eq!(Frame::decode(frame.clone().encode()).unwrap(), frame);
        }
        for malformed in [&b""[..], b"?", b"ex", b"s123", b"x1234567"] {
            assert!(Frame::decode(Bytes::copy_from_slice(malformed)).is_err(), "{malformed:?}");
        }
    }
}
