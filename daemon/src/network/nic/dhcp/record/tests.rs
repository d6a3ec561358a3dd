use std::net::Ipv4Addr;

use super::super::lease::Options;
use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

fn lease(seconds: u32) -> Lease {
    let time = seconds.to_be_bytes().to_vec();
    let options = Options::from([(1, vec![255, 255, 255, 0]), (54, vec![192, 0, 2, 1]), (51, time)]);
    Lease::read(Ipv4Addr::new(192, 0, 2, 50), &options).unwrap()
}

fn change(path: &std::path::Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn a_lease_is_known_again_for_as_long_as_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nics/plc0.lease");
    let held =
        Held { lease: lease(3600), since: Duration::from_millis(u64::try_from(since_boot().as_millis()).unwrap()) };
    Record::new(path.clone(), MAC).keep(&held).unwrap();
    let load = |mac| Record::new(path.clone(), mac).load();
    assert_eq!(load(MAC), Some(Remembered::Holds(held.clone())));
    assert_eq!(load(Mac([2, 0, 0, 0, 0, 8])), None, "the lease of another station");
    // After a reboot only the time of the world counts, and nothing is sure.
    change(&path, |kept| kept["boot"] = "another".into());
    assert_eq!(load(MAC), Some(Remembered::MayHold(held.lease.clone())));
    change(&path, |kept| kept["since_epoch"] = 0.into());
    assert_eq!(load(MAC), Some(Remembered::Over(held.lease.clone())));
    // A lease without an end has none.
    change(&path, |kept| kept["lease"]["seconds"] = serde_json::Value::Null);
    assert!(matches!(load(MAC), Some(Remembered::MayHold(_))));
    fs::write(&path, "{").unwrap();
    assert_eq!(load(MAC), None);
    Record::new(path.clone(), MAC).forget().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_lease_whose_time_is_over_does_not_hold() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plc0.lease");
    Record::new(path.clone(), MAC).keep(&Held { lease: lease(4), since: Duration::ZERO }).unwrap();
    assert!(matches!(Record::new(path, MAC).load(), Some(Remembered::Over(_))));
}

#[test]
fn flash_is_spared_while_nothing_but_the_time_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plc0.lease");
    let mut record = Record::new(path.clone(), MAC);
    let at = |seconds| Held { lease: lease(3600), since: Duration::from_secs(seconds) };
    record.keep(&at(100)).unwrap();
    fs::remove_file(&path).unwrap();
    record.keep(&at(159)).unwrap();
    assert!(!path.exists());
    record.keep(&at(160)).unwrap();
    assert!(path.exists());
    fs::remove_file(&path).unwrap();
    record.keep(&Held { lease: lease(1800), ..at(161) }).unwrap();
    assert!(path.exists());
}
