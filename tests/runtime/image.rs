//! The image of the stub for container engines.

use std::fs;
use std::process::Command;

use orchestrator_tests::runtime::write_image;
use orchestrator_tests::skip;

#[test]
fn the_image_has_all_that_the_stub_needs() {
    let test = "the_image_has_all_that_the_stub_needs";
    if !nix::unistd::geteuid().is_root() {
        return skip(test, "it takes root to change the root directory");
    }
    let directory = tempfile::tempdir().unwrap();
    let tar = directory.path().join("image.tar");
    write_image(&tar);
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let unpacked = Command::new("tar").arg("-C").arg(&root).arg("-xf").arg(&tar).status().unwrap();
    assert!(unpacked.success());
    // The name of an address that is none ends it, but only once everything it needs is loaded.
    let ended =
        Command::new("chroot").arg(&root).arg("/usr/bin/stub-runtime").env("STUB_HTTPS", "nowhere").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("an address"), "{said}");
    let shell = Command::new("chroot").arg(&root).args(["/bin/sh", "-c", "ls /workdir"]).output().unwrap();
    assert!(shell.status.success());
}
