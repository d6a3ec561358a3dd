use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::stream;

use super::super::address::Prefixed;
use super::super::kernel::{
    Answer, Inet, LinkChange, LinkRecord, NewLink, NewPair, OperState, Origin, Route, Snapshot, StaticRoute, Statistics,
};
use super::*;

/// A kernel that answers and reports what a test says.
#[derive(Debug, Default)]
struct Scripted {
    /// Answers to the question for everything, the last one for ever.
    snapshots: Mutex<VecDeque<Snapshot>>,
    /// What is reported, until it is taken.
    events: Mutex<Option<mpsc::UnboundedReceiver<KernelEvent>>>,
    /// How often everything was asked for.
    asked: Mutex<usize>,
}

#[derive(Debug)]
struct ScriptedPort(Arc<Scripted>);

impl Port for ScriptedPort {
    fn snapshot(&self) -> Answer<'_, Snapshot> {
        *self.0.asked.lock().unwrap() += 1;
        let mut snapshots = self.0.snapshots.lock().unwrap();
        let snapshot = if snapshots.len() > 1 { snapshots.pop_front() } else { snapshots.front().cloned() };
        Box::pin(async { Ok(snapshot.unwrap_or_default()) })
    }

    fn default_routes(&self) -> Answer<'_, Vec<super::super::kernel::DefaultRoute>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn link_named<'a>(&'a self, _: &'a str) -> Answer<'a, Option<LinkRecord>> {
        Box::pin(async { Ok(None) })
    }

    fn make_link<'a>(&'a self, _: &'a NewLink, _: BorrowedFd<'a>) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn make_pair<'a>(&'a self, _: &'a NewPair, _: BorrowedFd<'a>) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn change_link<'a>(&'a self, _: u32, _: LinkChange<'a>) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn inet(&self, _: u32, _: Inet) -> Answer<'_, bool> {
        Box::pin(async { Ok(false) })
    }

    fn set_inet(&self, _: u32, _: Inet, _: bool) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn add_proxy(&self, _: u32, _: Ipv4Addr) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn remove_proxy(&self, _: u32, _: Ipv4Addr) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn add_route(&self, _: u32, _: StaticRoute) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn remove_link(&self, _: u32) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn add_address(&self, _: u32, _: Prefixed) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn add_default_route(&self, _: u32, _: Ipv4Addr, _: u32) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn remove_address(&self, _: u32, _: Prefixed) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn routes(&self, _: u32, _: Origin) -> Answer<'_, Vec<Route>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn set_route(&self, _: u32, _: Route) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn claim_route(&self, _: u32, _: Route) -> Answer<'_, bool> {
        Box::pin(async { Ok(true) })
    }

    fn remove_route(&self, _: u32, _: Route) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn set_mtu(&self, _: u32, _: u32) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn statistics(&self, link: u32) -> Answer<'_, Statistics> {
        let errno = Some(19);
        let error = KernelError { action: format!("ask for link {link}"), reason: "No such device".to_owned(), errno };
        Box::pin(async { Err(error) })
    }
}

#[derive(Debug)]
struct ScriptedKernel(Arc<Scripted>);

impl Kernel for ScriptedKernel {
    fn open_in(&self, _: BorrowedFd<'_>) -> Result<Opened, KernelError> {
        Closed.open()
    }

    fn open(&self) -> Result<Opened, KernelError> {
        let mut events = self.0.events.lock().unwrap().take().unwrap();
        let events = stream::poll_fn(move |context| events.poll_recv(context)).boxed();
        Ok(Opened { port: Arc::new(ScriptedPort(self.0.clone())), events })
    }
}

/// A kernel that lets nobody in.
#[derive(Debug)]
struct Closed;

impl Kernel for Closed {
    fn open_in(&self, _: BorrowedFd<'_>) -> Result<Opened, KernelError> {
        self.open()
    }

    fn open(&self) -> Result<Opened, KernelError> {
        Err(KernelError { action: "open a netlink socket".to_owned(), reason: "no".to_owned(), errno: None })
    }
}

fn link(index: u32, name: &str) -> LinkRecord {
    LinkRecord {
        index,
        name: name.to_owned(),
        kind: "ethernet".to_owned(),
        address: Vec::new(),
        mtu: 1500,
        oper_state: OperState::Up,
        up: true,
        carrier: true,
        parent: None,
        controller: None,
        alias: String::new(),
    }
}

fn snapshot(links: Vec<LinkRecord>) -> Snapshot {
    Snapshot { links, ..Snapshot::default() }
}

struct Bench {
    script: Arc<Scripted>,
    kernel: mpsc::UnboundedSender<KernelEvent>,
    handle: NetworkHandle,
    stop: CancellationToken,
    actor: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn start(snapshots: Vec<Snapshot>) -> Self {
        let (kernel, events) = mpsc::unbounded_channel();
        let script = Arc::new(Scripted {
            snapshots: Mutex::new(snapshots.into()),
            events: Mutex::new(Some(events)),
            asked: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (actor, handle) = Actor::new(
            Arc::new(ScriptedKernel(script.clone())),
            Path::new("/nonexistent"),
            Host::new(false),
            None,
            stop.clone(),
        );
        Self { script, kernel, handle, stop, actor: tokio::spawn(actor.run()) }
    }

    fn names(&self) -> Vec<String> {
        self.handle.status().borrow().links.values().map(|link| link.name.clone()).collect()
    }
}

#[tokio::test]
async fn what_came_together_is_shown_together() {
    let bench = Bench::start(vec![snapshot(vec![link(1, "lo")])]);
    bench.handle.ping().await.unwrap();
    assert_eq!(bench.names(), ["lo"]);
    let mut status = bench.handle.status();
    status.mark_unchanged();
    for index in 2..5 {
        bench.kernel.send(KernelEvent::Link(link(index, "eth"))).unwrap();
    }
    status.changed().await.unwrap();
    assert_eq!(bench.names(), ["lo", "eth", "eth", "eth"]);
    assert!(!status.borrow_and_update().links.is_empty() && !status.has_changed().unwrap());
    // A report that changes nothing is no news.
    bench.kernel.send(KernelEvent::Link(link(2, "eth"))).unwrap();
    bench.handle.ping().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), status.changed()).await.is_err());
    bench.stop.cancel();
    bench.actor.await.unwrap();
}

#[tokio::test]
async fn after_a_loss_nothing_old_is_applied_to_the_new() {
    let now = snapshot(vec![link(1, "lo")]);
    let bench = Bench::start(vec![snapshot(vec![link(1, "lo"), link(2, "eth0")]), now]);
    bench.handle.ping().await.unwrap();
    let mut status = bench.handle.status();
    status.mark_unchanged();
    // The kernel tells of the loss first; what is left in the socket is older, and eth0 is gone by now.
    bench.kernel.send(KernelEvent::Lost).unwrap();
    bench.kernel.send(KernelEvent::Link(link(2, "eth0"))).unwrap();
    status.changed().await.unwrap();
    assert_eq!(bench.names(), ["lo"]);
    assert!(*bench.script.asked.lock().unwrap() >= 3);
}

#[tokio::test]
async fn a_kernel_that_lets_nobody_in_is_no_reason_to_end() {
    let stop = CancellationToken::new();
    let (actor, handle) = Actor::new(Arc::new(Closed), Path::new("/nonexistent"), Host::new(false), None, stop.clone());
    let actor = tokio::spawn(actor.run());
    handle.ping().await.unwrap();
    assert!(handle.status().borrow().links.is_empty());
    let error = handle.statistics(1).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotSupported);
    stop.cancel();
    actor.await.unwrap();
}

#[tokio::test]
async fn an_error_of_the_kernel_is_a_sentence() {
    let bench = Bench::start(vec![]);
    let error = bench.handle.statistics(7).await.unwrap_err();
    assert_eq!(error.message, "Cannot ask for link 7: No such device.");
}
