//! The network of a plant, and a Modbus client in it.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use crate::namespace::Namespace;
use crate::runtime::modbus_registers;

/// The port of Modbus over TCP.
const MODBUS: u16 = 502;
/// How long an answer may take; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a client asks that does not want to miss anything.
const PACE: Duration = Duration::from_millis(20);

/// The plant: a network namespace in which nothing is but its end of the cables.
#[derive(Debug)]
pub struct Plant(pub Namespace);

/// What a client saw that asked until it was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Polls {
    /// Answers.
    pub good: u32,
    /// Questions without one.
    pub failed: u32,
    /// The longest time from a question to its answer.
    pub longest: Duration,
}

/// A client at work.
#[derive(Debug)]
pub struct Poll {
    end: Arc<AtomicBool>,
    client: JoinHandle<Polls>,
}

impl Poll {
    /// Has a client ask again and again, in this namespace or in that of its caller.
    fn begin(namespace: Option<File>, mut ask: impl FnMut() -> bool + Send + 'static) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let told = end.clone();
        let client = thread::spawn(move || {
            if let Some(namespace) = namespace {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            }
            let mut polls = Polls::default();
            while !told.load(Ordering::SeqCst) {
                let begun = Instant::now();
                if ask() {
                    polls.good += 1;
                    polls.longest = polls.longest.max(begun.elapsed());
                } else {
                    polls.failed += 1;
                }
                thread::sleep(PACE);
            }
            polls
        });
        Self { end, client }
    }

    /// Ends it, and returns what it saw.
    pub fn end(self) -> Polls {
        self.end.store(true, Ordering::SeqCst);
        self.client.join().unwrap()
    }
}

impl Plant {
    /// A plant with a switch, the bridge `plant0`, and no cable in it. Here and below it has the first address of 192.0.2.0/24.
    pub fn with_switch() -> Self {
        let plant = Self(Namespace::new());
        plant.0.ip("link add plant0 type bridge");
        plant.0.ip("link set plant0 up");
        plant.0.ip("address add 192.0.2.1/24 dev plant0");
        plant
    }

    /// A plant that is the other end of a cable of this namespace.
    pub fn at(cable: &str, namespace: &Namespace) -> Self {
        let plant = Self(Namespace::new());
        namespace.ip(&format!("link set {cable} netns {}", plant.0.pid()));
        plant.0.ip(&format!("link set {cable} up"));
        plant.0.ip(&format!("address add 192.0.2.1/24 dev {cable}"));
        plant
    }

    /// Connects to the Modbus server of the device with this last byte of its address.
    pub fn connect(&self, host: u8) -> Option<TcpStream> {
        connect(File::open(self.0.path()).unwrap(), host)
    }

    /// The number of the program that runs on a device; none if none does.
    pub fn program(&self, host: u8) -> Option<u16> {
        modbus_registers(&mut self.connect(host)?).map(|[number, ..]| number)
    }

    /// Waits until a device answers, and returns how long that took and which program it has.
    pub fn await_answer(&self, host: u8, patience: Duration) -> (Duration, u16) {
        let begun = Instant::now();
        loop {
            if let Some(number) = self.program(host) {
                return (begun.elapsed(), number);
            }
            assert!(begun.elapsed() < patience, "192.0.2.{host} does not answer within {patience:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Polls every 20 ms over one connection until it is told to end.
    pub fn poll(&self, host: u8) -> Poll {
        let mut stream = self.connect(host).expect("a Modbus server");
        Poll::begin(None, move || modbus_registers(&mut stream).is_some())
    }

    /// Polls every 20 ms until it is told to end, each time over a connection of its own.
    pub fn poll_anew(&self, host: u8) -> Poll {
        let namespace = File::open(self.0.path()).unwrap();
        let ask = move || {
            let stream = TcpStream::connect_timeout(&address(host), PATIENCE).ok();
            stream.is_some_and(|mut stream| modbus_registers(&mut stream).is_some())
        };
        Poll::begin(Some(namespace), ask)
    }
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, host), MODBUS))
}

/// Connects from within a namespace; the socket stays in it.
fn connect(namespace: File, host: u8) -> Option<TcpStream> {
    let connect = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        TcpStream::connect_timeout(&address(host), PATIENCE).ok()
    };
    thread::spawn(connect).join().unwrap()
}
