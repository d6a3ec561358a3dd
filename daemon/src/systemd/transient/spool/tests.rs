use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::*;

fn spool() -> (TempDir, Spool) {
    let directory = TempDir::new().unwrap();
    let spool = Spool::open(directory.path().join("run/calls")).unwrap();
    (directory, spool)
}

fn rest(outlet: Outlet) -> Vec<u8> {
    let mut rest = Vec::new();
    outlet.rest(|bytes| rest.extend_from_slice(bytes));
    rest
}

#[tokio::test]
async fn the_next_daemon_reads_on() {
    let (directory, spool) = spool();
    let (mut inlets, mut outlets) = spool.make("a").unwrap();
    inlets.stdout.write_all(b"one").unwrap();
    let mut buffer = [0; 16];
    assert_eq!(outlets.stdout.read(&mut buffer).await, 3);
    assert_eq!(&buffer[..3], b"one");
    drop((outlets, spool));
    // Nobody reads, and nobody who writes notices.
    inlets.stdout.write_all(b"two").unwrap();
    inlets.stderr.write_all(b"three").unwrap();

    let spool = Spool::open(directory.path().join("run/calls")).unwrap();
    assert_eq!(spool.tags().unwrap(), ["a"]);
    let outlets = spool.find("a");
    assert_eq!(rest(outlets.stdout), b"two");
    assert_eq!(rest(outlets.stderr), b"three");
    spool.remove("a");
    assert!(spool.tags().unwrap().is_empty());
    assert_eq!(rest(spool.find("a").stdout), b"");
}

#[tokio::test]
async fn a_call_made_again_has_streams_of_its_own() {
    let (_directory, spool) = spool();
    let (mut former, _outlets) = spool.make("a").unwrap();
    former.stdout.write_all(b"old").unwrap();
    let (mut inlets, outlets) = spool.make("a").unwrap();
    inlets.stdout.write_all(b"new").unwrap();
    assert_eq!(rest(outlets.stdout), b"new");
}

#[tokio::test]
async fn a_writer_that_nobody_ended_is_not_waited_for() {
    let (_directory, spool) = spool();
    let (inlets, outlets) = spool.make("a").unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut inlet = inlets.stdout;
    let writer =
        std::thread::spawn(move || while !stopped.load(Ordering::Relaxed) && inlet.write_all(&[b'x'; 4096]).is_ok() {});
    let taken = rest(outlets.stdout).len();
    assert!(taken <= REST_LIMIT + 8192, "{taken}");
    stop.store(true, Ordering::Relaxed);
    // It may be stuck in a full pipe.
    while !writer.is_finished() {
        rest(spool.find("a").stdout);
    }
    writer.join().unwrap();
}

#[test]
fn what_programs_print_is_nobody_elses_business() {
    let (directory, _spool) = spool();
    let mode = |path: &str| directory.path().join(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("run/calls"), 0o700);
}
