//! DHCP servers: dnsmasq, and one that does what a test says.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};

use crate::rig::Namespace;

/// dnsmasq on `plant0`, until this is dropped.
pub struct Dnsmasq {
    child: Child,
    _place: tempfile::TempDir,
    leases: PathBuf,
}

impl Dnsmasq {
    /// Starts it with these options besides.
    pub fn start(plant: &Namespace, options: &[&str]) -> Self {
        let place = tempfile::TempDir::with_prefix("orchestrator-dnsmasq-").unwrap();
        let leases = place.path().join("leases");
        let mut command = plant.command("/usr/sbin/dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=0"]);
        command.args([
            "--interface=plant0",
            "--except-interface=lo",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
        ]);
        // It asks by ping whether an address is free, which takes three seconds.
        command.args(["--no-ping", "--dhcp-authoritative"]);
        command.arg(format!("--dhcp-leasefile={}", leases.display())).args(options);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { child: child.expect("\"dnsmasq\" (Debian: dnsmasq-base)"), _place: place, leases }
    }

    /// The leases it has granted, as it keeps them.
    pub fn leases(&self) -> String {
        std::fs::read_to_string(&self.leases).unwrap_or_default()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the server of a test does.
#[derive(Debug, Clone)]
pub struct Script {
    /// Whether it says nothing at all.
    pub silent: bool,
    /// Whether every request is refused.
    pub refuse: bool,
    /// The address that it has for everybody.
    pub address: Ipv4Addr,
    /// One that it offers until somebody declines it.
    pub first: Option<Ipv4Addr>,
    /// Seconds of a lease.
    pub seconds: u32,
    /// T1 and T2.
    pub times: (u32, u32),
    /// The router.
    pub router: Ipv4Addr,
    /// The name server.
    pub dns: Ipv4Addr,
    /// Whether each answer comes after many that are damaged, for others, or of somebody who must not be believed.
    pub noise: bool,
    /// Further options of each answer, as they are.
    pub odd: Vec<(u8, Vec<u8>)>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            silent: false,
            refuse: false,
            address: Ipv4Addr::new(192, 0, 2, 50),
            first: None,
            seconds: 3600,
            times: (1800, 3000),
            router: Ipv4Addr::new(192, 0, 2, 1),
            dns: Ipv4Addr::new(192, 0, 2, 1),
            noise: false,
            odd: Vec::new(),
        }
    }
}

/// A server on `plant0` that does what its script says, until this is dropped.
pub struct Scripted {
    script: Arc<Mutex<Script>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Starts it.
    pub fn start(plant: &Namespace, script: Script) -> Self {
        let namespace = File::open(plant.path()).unwrap();
        let (script, stop) = (Arc::new(Mutex::new(script)), Arc::new(AtomicBool::new(false)));
        let (ready, is_ready) = mpsc::channel();
        let (plan, end) = (script.clone(), stop.clone());
        let thread = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
            setsockopt(&socket.as_fd(), sockopt::BindToDevice, &"plant0".into()).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            ready.send(()).unwrap();
            let mut bytes = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut bytes) else { continue };
                let mut plan = plan.lock().unwrap();
                let Some(reply) = reply(&bytes[..length], &mut plan) else { continue };
                // To where it came from if the client has an address, as RFC 2131, 4.1 has it.
                let to = if peer.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::BROADCAST, 68)) } else { peer };
                for noise in if plan.noise { noise(&bytes[..length], &plan) } else { Vec::new() } {
                    // Some are too large for the wire.
                    socket.send_to(&noise, to).ok();
                }
                socket.send_to(&reply, to).unwrap();
            }
        });
        is_ready.recv().unwrap();
        Self { script, stop, thread: Some(thread) }
    }

    /// Changes what it does.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

const SERVER: [u8; 4] = [192, 0, 2, 1];

fn reply(request: &[u8], script: &mut Script) -> Option<Vec<u8>> {
    let kind = option(request, 53)?[0];
    if kind == 4 {
        script.first = None;
    }
    if script.silent {
        return None;
    }
    let address = script.first.unwrap_or(script.address);
    let requested = match option(request, 50) {
        Some(requested) => requested.to_vec(),
        None => request[12..16].to_vec(),
    };
    let answer = match kind {
        1 => 2,
        3 if script.refuse || (option(request, 54).is_some() && requested != address.octets()) => 6,
        3 => 5,
        _ => return None,
    };
    Some(compose(request, script, answer, address))
}

/// An answer of this kind, for this address.
fn compose(request: &[u8], script: &Script, answer: u8, address: Ipv4Addr) -> Vec<u8> {
    let mut reply = vec![0; 240];
    reply[0] = 2;
    reply[1..8].copy_from_slice(&request[1..8]);
    reply[28..44].copy_from_slice(&request[28..44]);
    reply[236..].copy_from_slice(&[99, 130, 83, 99]);
    let mut add = |number: u8, value: &[u8]| {
        reply.extend_from_slice(&[number, u8::try_from(value.len()).unwrap()]);
        reply.extend_from_slice(value);
    };
    add(53, &[answer]);
    add(54, &SERVER);
    if answer == 6 {
        add(56, b"not here");
    } else {
        add(1, &[255, 255, 255, 0]);
        add(3, &script.router.octets());
        add(6, &script.dns.octets());
        for (number, seconds) in [(51, script.seconds), (58, script.times.0), (59, script.times.1)] {
            add(number, &seconds.to_be_bytes());
        }
        for (number, value) in &script.odd {
            add(*number, value);
        }
        reply[16..20].copy_from_slice(&address.octets());
    }
    reply.push(255);
    reply
}

/// The address that only noise leases.
pub const NOISE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);

/// Answers to this request that nobody may believe.
fn noise(request: &[u8], script: &Script) -> Vec<Vec<u8>> {
    let script = Script { odd: Vec::new(), ..script.clone() };
    let kind = option(request, 53).map_or(0, |kind| kind[0]);
    // One that would be good, but for what becomes of it.
    let good = compose(request, &script, if kind == 1 { 2 } else { 5 }, NOISE);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut reply = good.clone();
        change(&mut reply);
        reply
    };
    let with = |number: u8, value: &[u8]| {
        let mut reply = good.clone();
        let end = reply.len() - 1;
        reply.splice(end..end, [&[number, u8::try_from(value.len()).unwrap()][..], value].concat());
        reply
    };
    let refusal = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut reply = compose(request, &script, 6, NOISE);
        change(&mut reply);
        reply
    };
    let mut all = vec![
        changed(&|reply| reply[28] ^= 4),
        changed(&|reply| reply[4] ^= 1),
        changed(&|reply| reply[0] = 1),
        changed(&|reply| reply[1] = 6),
        changed(&|reply| reply[2] = 16),
        changed(&|reply| reply[236] = 0),
        changed(&|reply| reply[242] = 9),
        refusal(&|reply| reply[28] ^= 4),
        refusal(&|reply| reply[4] ^= 1),
        vec![0; 1400],
        vec![255; 1400],
        Vec::new(),
        // Twice the same option: it is of twice the length then.
        with(51, &3600_u32.to_be_bytes()),
    ];
    // No address of a host.
    for address in [[0, 0, 0, 0], [255; 4], [127, 0, 0, 1], [224, 0, 0, 1], [192, 0, 2, 255], [192, 0, 2, 0]] {
        all.push(changed(&|reply| reply[16..20].copy_from_slice(&address)));
    }
    // Masks with holes, no time at all, no server. Where the options are is known: 53, 54, 1, 3, 6, 51.
    all.push(changed(&|reply| reply[251..255].copy_from_slice(&[255, 0, 255, 0])));
    all.push(changed(&|reply| reply[251..255].copy_from_slice(&[0; 4])));
    all.push(changed(&|reply| reply[269..273].copy_from_slice(&[0; 4])));
    all.push(changed(&|reply| reply[245..249].copy_from_slice(&[0; 4])));
    // Cut off, up to the end of the server's address.
    all.extend((0..249).step_by(7).map(|length| good[..length].to_vec()));
    all
}

fn option(message: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = message.get(240..)?;
    while let [number, length, more @ ..] = rest {
        if *number == 255 {
            return None;
        }
        let (value, more) = more.split_at_checked(usize::from(*length))?;
        if *number == wanted {
            return Some(value);
        }
        rest = more;
    }
    None
}
