use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::*;
use crate::vplc::handle::{VplcStatus, VplcsStatus};

/// Devices that are everywhere, in place of adapters.
const NULL: Device = Device { major: 1, minor: 3 };
const ZERO: Device = Device { major: 1, minor: 5 };

fn plug(dev: &Path, name: &str, device: &str) {
    let by_id = dev.join("serial/by-id");
    fs::create_dir_all(&by_id).unwrap();
    symlink(device, by_id.join(name)).unwrap();
}

#[test]
fn a_port_is_found_by_its_exact_name_only() {
    let dev = tempfile::tempdir().unwrap();
    let ports = Ports::new(dev.path());
    assert_eq!(ports.resolve("usb-FTDI_A1-if00").unwrap(), None);
    plug(dev.path(), "usb-FTDI_A1-if00", "/dev/null");
    plug(dev.path(), "usb-FTDI_A10-if00", "/dev/zero");
    plug(dev.path(), "gone", "/dev/there-is-no-such-adapter");
    plug(dev.path(), "no-device", "/etc/passwd");
    let port = ports.resolve("usb-FTDI_A1-if00").unwrap().unwrap();
    assert_eq!((port.device, port.path.as_path()), (NULL, Path::new("/dev/null")));
    assert_eq!(ports.resolve("usb-FTDI_A10-if00").unwrap().unwrap().device, ZERO);
    for name in ["usb-", "usb-FTDI_A", "FTDI_A1", "gone", "no-device"] {
        assert_eq!(ports.resolve(name).unwrap(), None, "{name}");
    }
    assert_eq!(ports.list().into_keys().collect::<Vec<_>>(), ["usb-FTDI_A1-if00", "usb-FTDI_A10-if00"]);
}

#[test]
fn what_is_no_name_is_refused() {
    let ports = Ports::new(Path::new("/dev"));
    for name in ["", ".", "..", "../../null", "a/b", "a\0b", "a\nb", &"x".repeat(256)] {
        assert!(matches!(ports.resolve(name), Err(SerialError::Name(_))), "{name:?}");
    }
}

fn wanted(device: &str, shared: bool) -> SerialPort {
    SerialPort { device: device.to_owned(), path: format!("{DIRECTORY}/{device}"), shared }
}

#[test]
fn a_port_has_one_owner_unless_all_share_it() {
    let mut claims = Claims::default();
    claims.add("a", &wanted("p", false));
    claims.add("b", &wanted("q", true));
    claims.allow("a", &[wanted("p", false), wanted("q", true)]).unwrap();
    let message = claims.allow("b", &[wanted("q", true), wanted("p", false)]).unwrap_err().to_string();
    assert_eq!(message, "The serial port \"p\" belongs to the vPLC \"a\", and is not shared by both.");
    claims.allow("b", &[wanted("p", true)]).unwrap_err();
    claims.allow("c", &[wanted("q", true), wanted("r", false)]).unwrap();
    // To share is the wish of all or of none.
    claims.allow("c", &[wanted("q", false)]).unwrap_err();
    claims.allow("b", &[wanted("q", false)]).unwrap();
}

/// vPLCs that have these ports, shared or not, and were given these devices.
fn vplcs(ports: &[(&str, &str, bool, &str)]) -> Claims {
    let mut status = VplcsStatus::default();
    for (vplc, port, shared, device) in ports {
        let port = PortStatus { device: (*device).to_owned(), ..PortStatus::unplugged(wanted(port, *shared)) };
        let vplc = VplcStatus { name: (*vplc).to_owned(), serial: vec![port], ..VplcStatus::default() };
        status.vplcs.insert(vplc.name.clone(), Arc::new(vplc));
    }
    Claims::of(&status)
}

#[test]
fn one_device_under_two_names_has_one_owner_all_the_same() {
    let dev = tempfile::tempdir().unwrap();
    plug(dev.path(), "p", "/dev/null");
    plug(dev.path(), "q", "/dev/null");
    plug(dev.path(), "r", "/dev/zero");
    let plugged = Ports::new(dev.path()).list();
    let may =
        |claims: &Claims, vplc: &str, port: &str, shared| claims.check(vplc, &plugged[port], shared, &plugged).is_ok();
    // Who comes first has it, and keeps it, also if the other one had another device before.
    for (first, second) in
        [("/dev/null", ""), ("/dev/null", "/dev/zero"), ("", "/dev/null"), ("/dev/zero", "/dev/null")]
    {
        let claims = vplcs(&[("a", "p", false, first), ("b", "q", false, second)]);
        let expected = (first == "/dev/null", second == "/dev/null");
        assert_eq!((may(&claims, "a", "p", false), may(&claims, "b", "q", false)), expected, "{first} {second}");
    }
    // Both at once: one of them.
    let claims = vplcs(&[("a", "p", false, ""), ("b", "q", false, "")]);
    assert!(may(&claims, "a", "p", false) && !may(&claims, "b", "q", false));
    // Others are no hindrance, and sharing is none.
    let claims = vplcs(&[("a", "r", false, "/dev/zero"), ("b", "q", false, "")]);
    assert!(may(&claims, "b", "q", false));
    let claims = vplcs(&[("a", "p", true, "/dev/null"), ("b", "q", true, "/dev/null")]);
    assert!(may(&claims, "a", "p", true) && may(&claims, "b", "q", true));
}

#[test]
fn the_rules_name_kinds_of_adapters_and_no_right_to_make_nodes() {
    assert!(device_rules([]).is_empty());
    let port = |major, minor| Port { name: "p".to_owned(), path: "/dev/p".into(), device: Device { major, minor } };
    let (usb, on_board) = (port(188, 3), port(4, 64));
    assert_eq!(device_rules([None]), ["c 166:* rw", "c 188:* rw"]);
    assert_eq!(device_rules([Some(&usb), Some(&on_board), Some(&on_board)]), ["c 166:* rw", "c 188:* rw", "c 4:64 rw"]);
}

#[tokio::test]
async fn ports_come_and_go_also_where_no_directory_was() {
    let dev = tempfile::tempdir().unwrap();
    let place = Ports::new(dev.path());
    let (sender, mut ports) = watch::channel(place.list());
    let follow = async {
        let error = follow(&place, &sender).await;
        panic!("{error:?}");
    };
    let change = async {
        let mut becomes = async |names: &[&str]| {
            let seen = ports.wait_for(|ports| ports.keys().map(String::as_str).eq(names.iter().copied()));
            drop(tokio::time::timeout(Duration::from_mins(1), seen).await.expect("in time").unwrap());
        };
        let by_id = dev.path().join("serial/by-id");
        for _ in 0..3 {
            plug(dev.path(), "p", "/dev/null");
            becomes(&["p"]).await;
            plug(dev.path(), "q", "/dev/zero");
            becomes(&["p", "q"]).await;
            fs::remove_file(by_id.join("p")).unwrap();
            becomes(&["q"]).await;
            // udev removes the directories with the last adapter.
            fs::remove_dir_all(dev.path().join("serial")).unwrap();
            becomes(&[]).await;
        }
        // udev replaces a link in one step.
        plug(dev.path(), "p", "/dev/null");
        becomes(&["p"]).await;
        symlink("/dev/zero", by_id.join(".p")).unwrap();
        fs::rename(by_id.join(".p"), by_id.join("p")).unwrap();
        let replaced = ports.wait_for(|ports| ports.get("p").is_some_and(|port| port.device == ZERO));
        drop(tokio::time::timeout(Duration::from_mins(1), replaced).await.expect("in time").unwrap());
    };
    tokio::select! {
        () = follow => {}
        () = change => {}
    }
}
