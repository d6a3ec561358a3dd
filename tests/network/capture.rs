//! What goes over the wire: frames taken off a namespace, and read without the code that is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::rig::{Namespace, until};

/// A frame, and when it was seen since the capture began.
type Frame = (Duration, Vec<u8>);

/// Everything that the links of a namespace send and receive, until this is dropped.
pub struct Capture {
    frames: Arc<Mutex<Vec<Frame>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Begins to capture; nothing that is sent after this returns is missed.
    pub fn start(net: &Namespace) -> Self {
        let namespace = File::open(net.path()).unwrap();
        let (frames, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (ready, is_ready) = mpsc::channel();
        let (to, end) = (frames.clone(), stop.clone());
        let thread = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let all = Some(SockProtocol::EthAll);
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all).unwrap();
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20)).unwrap();
            let began = Instant::now();
            ready.send(()).unwrap();
            let mut bytes = [0; 4096];
            while !end.load(Ordering::Relaxed) {
                if let Ok(length) = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                    to.lock().unwrap().push((began.elapsed(), bytes[..length].to_vec()));
                }
            }
        });
        is_ready.recv().unwrap();
        Self { frames, stop, thread: Some(thread) }
    }

    /// The DHCP messages so far.
    pub fn dhcp(&self) -> Vec<Dhcp> {
        self.frames.lock().unwrap().iter().filter_map(|(at, frame)| Dhcp::read(*at, frame)).collect()
    }

    /// When an address was announced for the first time, which is when it was set.
    pub fn announced(&self, address: Ipv4Addr) -> Option<Duration> {
        let frames = self.frames.lock().unwrap();
        let announces = |frame: &[u8]| arp_line(frame) == Some(format!("ARP announcement of {address}"));
        frames.iter().find(|(_, frame)| announces(frame)).map(|(at, _)| *at)
    }

    /// The hardware addresses that have answered ARP for an address.
    pub fn answered_for(&self, wanted: Ipv4Addr) -> BTreeSet<String> {
        let frames = self.frames.lock().unwrap();
        let answers = frames.iter().map(|(_, frame)| frame).filter(|frame| {
            frame.len() >= 42
                && frame[12..14] == [0x08, 0x06]
                && frame[20..22] == [0, 2]
                && address(frame, 28) == wanted
        });
        answers.map(|frame| colons(&frame[22..28])).collect()
    }

    /// Waits for a message of the client that fits, and returns the first one.
    pub async fn said(&self, what: &str, fits: impl Fn(&Dhcp) -> bool) -> Dhcp {
        until(what, async || self.dhcp().into_iter().find(&fits)).await
    }

    /// Checks that a station sent nothing from an address but these: no IPv4, no ARP.
    #[track_caller]
    pub fn assert_only(&self, mac: &str, leased: &[&str]) {
        let mut own_frames = 0;
        for (at, frame) in self.frames.lock().unwrap().iter() {
            if colons(&frame[6..12]) != mac {
                continue;
            }
            own_frames += 1;
            let source = match frame[12..14] {
                [0x08, 0x00] => address(frame, 26),
                [0x08, 0x06] => address(frame, 28),
                _ => continue,
            };
            let fine = source.is_unspecified() || leased.contains(&source.to_string().as_str());
            assert!(fine, "{source} was on the wire after {at:?} without a lease: {frame:02x?}");
        }
        assert!(own_frames > 0, "{mac} was not seen at all");
    }

    /// DHCP and ARP as people read it.
    pub fn transcript(&self, title: &str) -> String {
        let mut text = format!("{title}\n");
        let mut first = None;
        for (at, frame) in self.frames.lock().unwrap().iter() {
            let line = match Dhcp::read(*at, frame) {
                Some(message) => message.line(),
                None => match arp_line(frame) {
                    Some(line) => line,
                    None => continue,
                },
            };
            let from = *first.get_or_insert(*at);
            writeln!(text, "{:9.4}  {line}", at.saturating_sub(from).as_secs_f64()).unwrap();
        }
        text
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A DHCP message.
#[derive(Debug, Clone)]
pub struct Dhcp {
    /// When it was seen.
    pub at: Duration,
    /// What it says, such as `DISCOVER`.
    pub kind: &'static str,
    /// The address it comes from.
    pub from: Ipv4Addr,
    /// The address it goes to.
    pub to: Ipv4Addr,
    /// `ciaddr`
    pub client: Ipv4Addr,
    /// `yiaddr`
    pub yours: Ipv4Addr,
    /// Options.
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl Dhcp {
    fn read(at: Duration, frame: &[u8]) -> Option<Self> {
        if frame.len() < 282 || frame[12..14] != [0x08, 0x00] || frame[23] != 17 {
            return None;
        }
        let ports = (u16::from_be_bytes([frame[34], frame[35]]), u16::from_be_bytes([frame[36], frame[37]]));
        if !matches!(ports, (68, 67) | (67, 68)) {
            return None;
        }
        let mut options = BTreeMap::new();
        let mut rest = &frame[282..];
        while let [number, length, more @ ..] = rest {
            if *number == 255 {
                break;
            }
            let (value, more) = more.split_at_checked(usize::from(*length))?;
            options.insert(*number, value.to_vec());
            rest = more;
        }
        let kind = ["DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK", "RELEASE"];
        let kind = kind.get(usize::from(*options.get(&53)?.first()?).checked_sub(1)?)?;
        let [from, to, client, yours] = [26, 30, 54, 58].map(|at| address(frame, at));
        Some(Self { at, kind, from, to, client, yours, options })
    }

    /// An option that is an address.
    pub fn option(&self, number: u8) -> Option<Ipv4Addr> {
        self.options.get(&number).map(|value| address(value, 0))
    }

    fn line(&self) -> String {
        let mut line = format!("{} > {}  DHCP {}", self.from, self.to, self.kind);
        for (name, address) in [("ciaddr", self.client), ("yiaddr", self.yours)] {
            if !address.is_unspecified() {
                write!(line, " {name} {address}").unwrap();
            }
        }
        for (name, number) in [("requested", 50), ("server", 54)] {
            if let Some(address) = self.option(number) {
                write!(line, " {name} {address}").unwrap();
            }
        }
        if let Some(seconds) = self.options.get(&51) {
            write!(line, " lease {} s", u32::from_be_bytes(seconds[..].try_into().unwrap())).unwrap();
        }
        line
    }
}

fn arp_line(frame: &[u8]) -> Option<String> {
    if frame.len() < 42 || frame[12..14] != [0x08, 0x06] {
        return None;
    }
    let (sender, target) = (address(frame, 28), address(frame, 38));
    Some(match (frame[21], sender) {
        (1, sender) if sender.is_unspecified() => format!("ARP probe for {target}"),
        (1, sender) if sender == target => format!("ARP announcement of {sender}"),
        (1, sender) => format!("ARP who has {target}, asks {sender}"),
        (_, sender) => format!("ARP {sender} is at {}", colons(&frame[22..28])),
    })
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
