use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::core::error::Kind;
use crate::network::kernel::{
    AddressRecord, Answer, DefaultRoute, Inet, KernelError, LinkChange, NewLink, NewPair, OperState, Origin, Route,
    Snapshot, StaticRoute, Statistics, Upper,
};

/// Two namespaces of one kernel: what is asked of it is done to plain tables.
#[derive(Debug, Default)]
struct Tables {
    links: BTreeMap<(bool, u32), LinkRecord>,
    made: Vec<NewLink>,
    changes: usize,
    /// The change with this number is the last thing that works: what comes after it fails, as if the daemon had died.
    dies_after: Option<usize>,
}

/// A port: into the host, or into the namespace of the NIC.
#[derive(Debug, Clone)]
struct Script {
    tables: Arc<Mutex<Tables>>,
    inside: bool,
}

fn failure(errno: i32) -> KernelError {
    KernelError { action: "do it".to_owned(), reason: "no".to_owned(), errno: Some(errno) }
}

impl Script {
    fn links(&self) -> Vec<LinkRecord> {
        let tables = self.tables.lock().unwrap();
        tables.links.iter().filter(|((inside, _), _)| *inside == self.inside).map(|(_, link)| link.clone()).collect()
    }

    fn change(&self, index: u32, change: LinkChange<'_>) -> Result<(), KernelError> {
        let mut tables = self.tables.lock().unwrap();
        tables.changes += 1;
        if tables.dies_after.is_some_and(|last| tables.changes > last) {
            return Err(failure(5));
        }
        let mut link = tables.links.remove(&(self.inside, index)).ok_or_else(|| failure(19))?;
        let inside = if change.namespace.is_some() { !self.inside } else { self.inside };
        if change.namespace.is_some() {
            link.up = false;
        }
        let name = change.name.unwrap_or(&link.name).to_owned();
        if tables.links.iter().any(|((there, _), other)| *there == inside && other.name == name) {
            tables.links.insert((self.inside, index), link);
            return Err(failure(17));
        }
        link.name = name;
        link.up = change.up.unwrap_or(link.up);
        link.mtu = change.mtu.unwrap_or(link.mtu);
        tables.links.insert((inside, index), link);
        Ok(())
    }
}

fn done<'a, T: Send + 'a>(answer: Result<T, KernelError>) -> Answer<'a, T> {
    Box::pin(async { answer })
}

impl Port for Script {
    fn snapshot(&self) -> Answer<'_, Snapshot> {
        done(Ok(Snapshot { links: self.links(), addresses: Vec::<AddressRecord>::new(), routes: Vec::new() }))
    }
    fn default_routes(&self) -> Answer<'_, Vec<DefaultRoute>> {
        done(Ok(Vec::new()))
    }
    fn link_named<'a>(&'a self, name: &'a str) -> Answer<'a, Option<LinkRecord>> {
        done(Ok(self.links().into_iter().find(|link| link.name == name)))
    }
    fn make_link<'a>(&'a self, link: &'a NewLink, _: BorrowedFd<'a>) -> Answer<'a, ()> {
        let mut tables = self.tables.lock().unwrap();
        let mut made = record(90, &link.name);
        made.parent = Some(link.parent);
        made.kind = match link.upper {
            Upper::Macvlan(_) => "macvlan".to_owned(),
            Upper::Vlan(_) => "vlan".to_owned(),
        };
        if let Some(mac) = link.mac {
            made.address = mac.0.to_vec();
        }
        tables.links.insert((!self.inside, 90), made);
        tables.made.push(link.clone());
        done(Ok(()))
    }
    fn make_pair<'a>(&'a self, _: &'a NewPair, _: BorrowedFd<'a>) -> Answer<'a, ()> {
        done(Err(failure(95)))
    }
    fn change_link<'a>(&'a self, link: u32, change: LinkChange<'a>) -> Answer<'a, ()> {
        done(self.change(link, change))
    }
    fn inet(&self, _: u32, _: Inet) -> Answer<'_, bool> {
        done(Ok(false))
    }
    fn set_inet(&self, _: u32, _: Inet, _: bool) -> Answer<'_, ()> {
        done(Ok(()))
    }
    fn add_proxy(&self, _: u32, _: Ipv4Addr) -> Answer<'_, ()> {
        done(Ok(()))
    }
    fn remove_proxy(&self, _: u32, _: Ipv4Addr) -> Answer<'_, ()> {
        done(Ok(()))
    }
    fn add_route(&self, _: u32, _: StaticRoute) -> Answer<'_, ()> {
        done(Ok(()))
    }
    fn remove_link(&self, link: u32) -> Answer<'_, ()> {
        self.tables.lock().unwrap().links.remove(&(self.inside, link));
        done(Ok(()))
    }
    fn add_address(&self, _: u32, _: Prefixed) -> Answer<'_, ()> {
        done(Ok(()))
    }
    fn add_default_route(&self, _: u32, _: Ipv4Addr, _: u32) -> Answer<'_, ()> {
        done(Ok(()))
    }
    fn remove_address(&self, _: u32, _: Prefixed) -> Answer<'_, ()> {
        done(Ok(()))
    }
    fn routes(&self, _: u32, _: Origin) -> Answer<'_, Vec<Route>> {
        done(Ok(Vec::new()))
    }
    fn set_route(&self, _: u32, _: Route) -> Answer<'_, ()> {
        done(Ok(()))
    }
    fn claim_route(&self, _: u32, _: Route) -> Answer<'_, bool> {
        done(Ok(true))
    }
    fn remove_route(&self, _: u32, _: Route) -> Answer<'_, ()> {
        done(Ok(()))
    }
    fn set_mtu(&self, _: u32, _: u32) -> Answer<'_, ()> {
        done(Ok(()))
    }
    fn statistics(&self, _: u32) -> Answer<'_, Statistics> {
        done(Ok(Statistics::default()))
    }
}

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn record(index: u32, name: &str) -> LinkRecord {
    LinkRecord {
        index,
        name: name.to_owned(),
        kind: "ethernet".to_owned(),
        address: MAC.0.to_vec(),
        mtu: 1500,
        oper_state: OperState::Up,
        up: true,
        carrier: true,
        parent: None,
        controller: None,
        alias: String::new(),
    }
}

fn parent(kind: &str) -> ParentLink {
    ParentLink {
        index: 2,
        kind: kind.to_owned(),
        mac: Some(MAC),
        mtu: 1500,
        carrier: true,
        switched_off: 0,
        default_route: false,
        is_port: false,
        carries: None,
        addresses: Vec::new(),
    }
}

/// A host with `eth0`, and a site for a NIC of this type on it.
fn site(directory: &Path, kind: &str) -> (Site, Script, Script) {
    let tables = Tables { links: BTreeMap::from([((false, 2), record(2, "eth0"))]), ..Tables::default() };
    let tables = Arc::new(Mutex::new(tables));
    let (host, port) = (Script { tables: tables.clone(), inside: false }, Script { tables, inside: true });
    let text = format!("kind: nic\nname: plc0\nparent: eth0\npid: 1\naddresses: [192.0.2.7/24]\n{kind}\n");
    let site = Site {
        host: Arc::new(host.clone()),
        port: Arc::new(port.clone()),
        namespace: Arc::new(home().unwrap()),
        spec: Spec::parse(&text).unwrap(),
        mac: Mac([2, 0, 0, 0, 0, 7]),
        store: Store::new(directory),
    };
    (site, host, port)
}

fn names(port: &Script) -> Vec<(String, bool)> {
    port.links().into_iter().map(|link| (link.name, link.up)).collect()
}

async fn back(site: &Site, with_namespace: bool) {
    let port = with_namespace.then_some(site.port.as_ref());
    give_up(site.host.as_ref(), port, &site.store, &site.spec, site.mac, None).await;
}

#[test]
fn each_refusal_has_its_own_kind() {
    let (dedicated, macvlan) = (LinkKind::Dedicated, LinkKind::Macvlan(Mode::Bridge));
    let refused = |kind: LinkKind, parent: &ParentLink| kind.check("eth0", parent).map_err(|error| error.kind);
    for kind in [dedicated, macvlan, LinkKind::Vlan(7), LinkKind::Routed] {
        assert_eq!(refused(kind, &parent("ethernet")), Ok(()));
        assert_eq!(refused(kind, &parent("loopback")), Err(Kind::UnsuitableLink));
        let expected = if kind == LinkKind::Routed { Ok(()) } else { Err(Kind::UnsuitableLink) };
        assert_eq!(refused(kind, &parent("wireless")), expected);
        assert_eq!(refused(kind, &ParentLink { is_port: true, ..parent("ethernet") }), expected);
    }
    for kind in [dedicated, macvlan] {
        let message = kind.check("wlan0", &parent("wireless")).unwrap_err().message;
        assert!(message.contains("use the type \"routed\""), "{message}");
    }
    let default = ParentLink { default_route: true, ..parent("ethernet") };
    let carrier = ParentLink { carries: Some("eth0.7".to_owned()), ..parent("ethernet") };
    assert_eq!((refused(dedicated, &default), refused(macvlan, &default)), (Err(Kind::DefaultRoute), Ok(())));
    assert_eq!((refused(dedicated, &carrier), refused(macvlan, &carrier)), (Err(Kind::LinkInUse), Ok(())));
    assert_eq!(refused(dedicated, &parent("bridge")), Err(Kind::UnsuitableLink));
}

#[tokio::test]
async fn a_vlan_is_asked_for_with_its_number() {
    let directory = tempfile::tempdir().unwrap();
    let (site, host, port) = site(directory.path(), "type: vlan\nvlan: 7");
    assert_eq!(site.make(&parent("ethernet")).await.unwrap(), Made { link: 90, fresh: true });
    let made = host.tables.lock().unwrap().made.clone();
    let expected =
        NewLink { name: "plc0".to_owned(), parent: 2, mac: Some(site.mac), mtu: None, upper: Upper::Vlan(7) };
    assert_eq!(made, [expected]);
    back(&site, true).await;
    assert!(port.links().is_empty());
}

#[tokio::test]
async fn a_passthru_link_has_the_address_of_the_parent() {
    let directory = tempfile::tempdir().unwrap();
    let (site, host, _) = site(directory.path(), "mode: passthru");
    site.make(&parent("ethernet")).await.unwrap();
    assert_eq!(host.tables.lock().unwrap().made[0].mac, None);
    // The same again is taken over.
    assert_eq!(site.make(&parent("ethernet")).await.unwrap().link, 90);
    assert_eq!(host.tables.lock().unwrap().made.len(), 1);
}

#[tokio::test]
async fn a_dedicated_link_moves_and_comes_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (site, host, port) = site(directory.path(), "type: dedicated\nmtu: 9000");
    host.change(2, LinkChange { up: Some(false), ..LinkChange::default() }).unwrap();
    assert_eq!(site.make(&parent("ethernet")).await.unwrap(), Made { link: 2, fresh: true });
    assert_eq!((names(&host), names(&port)), (vec![], vec![("plc0".to_owned(), true)]));
    assert_eq!(port.links()[0].mtu, 9000);
    // A daemon that starts anew knows it again, and takes it over as it is.
    assert_eq!(still_taken(&host, &site.store, &site.spec).await.unwrap().link, "eth0");
    assert_eq!(site.make(&parent("ethernet")).await.unwrap().link, 2);
    back(&site, true).await;
    assert_eq!((names(&host), names(&port)), (vec![("eth0".to_owned(), false)], vec![]));
    assert_eq!((host.links()[0].mtu, site.store.taken("plc0").unwrap()), (1500, None));
}

#[tokio::test]
async fn wherever_the_daemon_dies_the_link_comes_back() {
    for died_after in 0..2 {
        let directory = tempfile::tempdir().unwrap();
        let (site, host, port) = site(directory.path(), "type: dedicated");
        host.tables.lock().unwrap().dies_after = Some(died_after);
        let made = site.make(&parent("ethernet")).await;
        assert_eq!(made.is_ok(), died_after > 0);
        // It was on record before it moved.
        assert!(site.store.taken("plc0").unwrap().is_some());
        if died_after > 0 {
            back(&site, true).await;
            assert!(site.store.taken("plc0").unwrap().is_some(), "what is not back is not forgotten");
        }
        host.tables.lock().unwrap().dies_after = None;
        still_taken(&host, &site.store, &site.spec).await;
        back(&site, true).await;
        assert_eq!((names(&host), names(&port)), (vec![("eth0".to_owned(), true)], vec![]));
        assert_eq!(site.store.taken("plc0").unwrap(), None);
    }
}

#[tokio::test]
async fn a_link_that_the_kernel_brought_home_gets_its_name_back() {
    for brought_as in ["plc0", "dev2"] {
        let directory = tempfile::tempdir().unwrap();
        let (site, host, port) = site(directory.path(), "type: dedicated");
        site.make(&parent("ethernet")).await.unwrap();
        // As the end of a namespace does it.
        let change =
            LinkChange { namespace: Some(site.namespace.as_fd()), name: Some(brought_as), ..LinkChange::default() };
        port.change(2, change).unwrap();
        assert_eq!(names(&host), [(brought_as.to_owned(), false)]);
        assert!(still_taken(&host, &site.store, &site.spec).await.is_none());
        assert_eq!(names(&host), [("eth0".to_owned(), true)]);
        assert_eq!(site.store.taken("plc0").unwrap(), None);
    }
}

#[tokio::test]
async fn a_name_that_is_gone_at_home_is_no_reason_to_stay_away() {
    let directory = tempfile::tempdir().unwrap();
    let (site, host, port) = site(directory.path(), "type: dedicated");
    site.make(&parent("ethernet")).await.unwrap();
    let other = LinkRecord { address: vec![2, 0, 0, 0, 0, 9], ..record(5, "eth0") };
    host.tables.lock().unwrap().links.insert((false, 5), other);
    back(&site, true).await;
    assert_eq!(names(&host), [("dev0".to_owned(), true), ("eth0".to_owned(), true)]);
    assert!(port.links().is_empty());
}

#[tokio::test]
async fn without_its_namespace_a_link_is_not_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let (site, _, _) = site(directory.path(), "type: dedicated");
    site.make(&parent("ethernet")).await.unwrap();
    back(&site, false).await;
    assert!(site.store.taken("plc0").unwrap().is_some());
}
