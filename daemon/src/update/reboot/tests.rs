//! Real commands, real files.

use std::fs;

use super::*;

fn host(words: &[&str]) -> CommandHost {
    CommandHost::new(words.iter().map(ToString::to_string).collect(), BOOT_ID_PATH)
}

#[test]
fn boot_id_of_the_kernel_is_a_uuid_and_stays() {
    let id = host(&["true"]).boot_id().unwrap();
    assert_eq!(id.len(), 36, "{id}");
    assert_eq!(read_boot_id(Path::new(BOOT_ID_PATH)).unwrap(), id);
}

#[test]
fn boot_id_is_read_afresh_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("boot-id");
    let host = CommandHost::new(Vec::new(), &file);
    fs::write(&file, "first\n").unwrap();
    assert_eq!(host.boot_id().unwrap(), "first");
    fs::write(&file, "second").unwrap();
    assert_eq!(host.boot_id().unwrap(), "second");
}

#[test]
fn a_file_without_a_boot_id_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("boot-id");
    let missing = read_boot_id(&file).unwrap_err();
    assert!(matches!(missing, RebootError::BootId { .. }), "{missing}");
    for text in ["", "\n", "two words\n", "a\nb\n", &"x".repeat(129)] {
        fs::write(&file, text).unwrap();
        let error = read_boot_id(&file).unwrap_err();
        assert!(matches!(error, RebootError::NoBootId { .. }), "{text:?}: {error}");
        assert!(error.to_string().contains(&format!("\"{}\"", file.display())), "{error}");
    }
    fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(matches!(read_boot_id(&file), Err(RebootError::BootId { .. })));
}

#[tokio::test]
async fn a_command_that_succeeds_is_an_accepted_reboot() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("asked");
    host(&["touch", file.to_str().unwrap()]).reboot().await.unwrap();
    assert!(file.exists());
}

#[tokio::test]
async fn a_command_that_fails_is_named_with_its_status() {
    let error = host(&["sh", "-c", "exit 3"]).reboot().await.unwrap_err();
    assert_eq!(error.to_string(), "The reboot command \"sh -c exit 3\" failed: exit status: 3.");
    assert_eq!(Error::from(error).kind, Kind::RebootFailed);
    let error = host(&["sh", "-c", "kill -9 $$"]).reboot().await.unwrap_err();
    assert!(error.to_string().contains("signal: 9"), "{error}");
}

#[tokio::test]
async fn a_command_that_cannot_start_is_named() {
    let error = host(&["/nonexistent/reboot", "-f"]).reboot().await.unwrap_err();
    assert!(error.to_string().starts_with("Cannot start the reboot command \"/nonexistent/reboot -f\""), "{error}");
    assert!(matches!(host(&[]).reboot().await, Err(RebootError::NoCommand)));
}

#[tokio::test]
async fn a_command_that_stays_until_the_shutdown_is_accepted_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (go, done) = (directory.path().join("go"), directory.path().join("done"));
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    nix::unistd::mkfifo(&done, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("read go < {}; echo $go > {}", go.display(), done.display());
    let mut host = host(&["sh", "-c", &script]);
    host.patience = Duration::from_millis(20);
    host.reboot().await.unwrap();
    // It lives: it takes the word and passes it on.
    fs::write(&go, "alive\n").unwrap();
    assert_eq!(fs::read_to_string(&done).unwrap(), "alive\n");
}
