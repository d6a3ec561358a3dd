//! The tracked XML is the contract; what the daemon answers to introspection equals it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use orchestrator_tests::bus::Bus;
use orchestrator_tests::repository;
use orchestrator_tests::scripted::{Daemon, component, link, nic, system, vplc};
use zbus::fdo::IntrospectableProxy;

const INTERFACES: [(&str, &str); 10] = [
    ("org.orchestratord1.Manager", "/org/orchestratord1"),
    ("org.orchestratord1.Update", "/org/orchestratord1"),
    ("org.orchestratord1.Network", "/org/orchestratord1"),
    ("org.orchestratord1.Host", "/org/orchestratord1"),
    ("org.orchestratord1.Nic", "/org/orchestratord1/nic/plc0"),
    ("org.orchestratord1.Vplcs", "/org/orchestratord1"),
    ("org.orchestratord1.Vplc", "/org/orchestratord1/vplc/press1"),
    ("org.orchestratord1.Link", "/org/orchestratord1/link/2"),
    ("org.orchestratord1.Component", "/org/orchestratord1/component/gateway/_31"),
    ("org.orchestratord1.Job", "/org/orchestratord1/job/1"),
];

fn tracked(interface: &str) -> PathBuf {
    repository().join(format!("dbus-interfaces/xml/{interface}.xml"))
}

/// One file per interface, as live introspection has it.
async fn live() -> BTreeMap<&'static str, String> {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![component("gateway", "1")])).await;
    let job = daemon.domain.jobs.begin("install", "system", 0);
    daemon.network.status.send_modify(|status| drop(status.links.insert(2, link(2, "eth0"))));
    daemon.network.status.send_modify(|status| drop(status.nics.insert("plc0".to_owned(), nic("plc0"))));
    daemon.vplcs.status.send_modify(|status| drop(status.vplcs.insert("press1".to_owned(), vplc("press1"))));
    daemon.flush().await;
    let client = bus.connect().await;
    let mut files = BTreeMap::new();
    for (interface, path) in INTERFACES {
        let object = IntrospectableProxy::builder(&client).destination("org.orchestratord1").path(path);
        let xml = object.build().await.unwrap().introspect().await.unwrap();
        let begin = xml.find(&format!("  <interface name=\"{interface}\">")).unwrap_or_else(|| panic!("{path}: {xml}"));
        let close = "  </interface>\n";
        let end = begin + xml[begin..].find(close).unwrap() + close.len();
        let head = &xml[..xml.find("<node>").unwrap()];
        files.insert(interface, format!("{}\n<node>\n{}</node>\n", head.trim(), &xml[begin..end]));
    }
    drop(job);
    files
}

/// `UPDATE_XML=1 cargo test -p orchestrator-tests --test bus introspection` writes the files anew.
#[tokio::test]
async fn the_tracked_xml_equals_live_introspection() {
    let live = live().await;
    if std::env::var_os("UPDATE_XML").is_some() {
        for (interface, xml) in &live {
            fs::write(tracked(interface), xml).unwrap();
        }
    }
    for (interface, xml) in live {
        let file = tracked(interface);
        let tracked = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            tracked,
            xml,
            "{} is not what the daemon answers; \"UPDATE_XML=1 cargo test -p orchestrator-tests --test bus\" writes it",
            file.display()
        );
    }
}

#[tokio::test]
async fn every_member_is_documented_and_the_comments_are_valid_xml() {
    for (interface, xml) in live().await {
        let lines: Vec<&str> = xml.lines().map(str::trim).collect();
        let mut members = 0;
        for (number, line) in lines.iter().enumerate() {
            if ["<method ", "<signal ", "<property "].iter().any(|tag| line.starts_with(tag)) {
                assert_eq!(lines[number - 1], "-->", "{interface}: {line} has no comment");
                members += 1;
            }
        }
        assert!(members > 2, "{interface}");
        for comment in xml.split("<!--").skip(1) {
            let (text, _) = comment.split_once("-->").unwrap();
            assert!(!text.contains("--"), "{interface}: a comment of XML may not contain two hyphens: {text}");
        }
    }
}
