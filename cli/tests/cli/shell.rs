//! Help, completions and man pages.

use tokio::process::Command;

use crate::program::{PROGRAM, on_bus, run, text};

#[tokio::test]
async fn usage_errors_have_exit_code_2() {
    for line in [&["fly"][..], &[], &["install"], &["install", "m", "--stop-before", "Download"]] {
        let output = run(&mut on_bus(Command::new(PROGRAM), "unix:path=/nonexistent"), line).await;
        assert_eq!((output.code(), output.stdout.as_str()), (2, ""), "{output:?}");
    }
}

#[tokio::test]
async fn help_is_a_page() {
    let output = run(&mut on_bus(Command::new(PROGRAM), "unix:path=/nonexistent"), &["--help"]).await;
    assert_eq!(output.code(), 0);
    for word in ["Exit codes:", "install", "watch", "artifact", "--json"] {
        assert!(output.stdout.contains(word), "{word} in {}", output.stdout);
    }
    assert!(!output.stdout.contains('`'), "{}", output.stdout);
}

#[tokio::test]
async fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        for (program, word) in [("orchestratorctl", "stop-before"), ("mender-orchestrator", "show-inventory")] {
            let line = ["completions", shell, "--program", program];
            let output = run(&mut on_bus(Command::new(PROGRAM), "unix:path=/nonexistent"), &line).await;
            assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{output:?}");
            assert!(output.stdout.contains(word) && output.stdout.contains(program), "{shell} {program}");
        }
    }
}

#[tokio::test]
async fn man_pages_are_written() {
    let place = tempfile::tempdir().unwrap();
    let mut command = on_bus(Command::new(PROGRAM), "unix:path=/nonexistent");
    let output = run(&mut command, &["man", text(place.path())]).await;
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{output:?}");
    for (page, word) in [
        ("orchestratorctl.1", "Exit codes"),
        ("orchestratorctl-install.1", "stop\\-before"),
        ("orchestratorctl-status.1", "Manifest"),
        ("mender-orchestrator.1", "show\\-inventory"),
        ("mender-orchestrator-install.1", "exit\\-on\\-reboot"),
    ] {
        let text = std::fs::read_to_string(place.path().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(word), "{word} in {page}: {text}");
    }
    let mut command = on_bus(Command::new(PROGRAM), "unix:path=/nonexistent");
    let output = run(&mut command, &["man", "/nonexistent"]).await;
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("\"/nonexistent\""), "{output:?}");
}
