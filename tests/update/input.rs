//! What is malformed on the bus or on disk: never a crash, no state called, no deployment left open, an error that names
//! the place.

use std::fs;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use orchestrator_tests::system::{System, outcome, stop_before};
use orchestratord::update::artifact::{ArtifactSpec, Compression};
use orchestratord_dbus::{ErrorPair, ManagerProxy, Options, error_reply};

/// A generator of numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides.max(1)).unwrap()).unwrap()
    }
}

/// The daemon is well: it answers, and no deployment is open.
async fn assert_well(system: &mut System, what: &str) {
    assert!(system.is_running(), "{what}: the daemon is gone");
    assert_eq!(system.update().await.state().await.unwrap(), "idle", "{what}");
    assert!(!system.path("state/deployment").exists(), "{what}");
}

async fn refused(system: &System, manifest: &str) -> ErrorPair {
    system.begin_text(manifest, Options::new()).await.unwrap_err()
}

/// What a careless hand makes of a Manifest.
const PIECES: [&str; 32] = [
    ":",
    "-",
    "  ",
    "\t",
    "\n",
    "{",
    "}",
    "[",
    "]",
    "#",
    "'",
    "\"",
    "&a ",
    "*a",
    "!!binary ",
    "? ",
    "| ",
    "---\n",
    "...\n",
    "%YAML 9.9\n",
    "null",
    "~",
    "0x10",
    "1e3",
    "-1",
    "101",
    "true",
    "<<: *a\n",
    "\u{feff}",
    "\u{2028}",
    "\u{7f}",
    "@",
];

fn mutated(good: &str, dice: &mut Dice) -> String {
    let mut characters: Vec<char> = good.chars().collect();
    for _ in 0..=dice.roll(3) {
        let place = dice.roll(characters.len());
        let end = (place + dice.roll(50)).min(characters.len());
        match dice.roll(5) {
            _ if characters.is_empty() => {}
            0 => drop(characters.remove(place)),
            1 => drop(characters.splice(place..place, PIECES[dice.roll(PIECES.len())].chars())),
            2 => characters.truncate(place),
            3 => drop(characters.drain(place..end)),
            _ => {
                let copy = characters[place..end].to_vec();
                drop(characters.splice(place..place, copy));
            }
        }
    }
    characters.into_iter().collect()
}

/// Two hundred of them against one daemon.
#[tokio::test]
async fn mutated_manifests_are_refused_or_harmless() {
    let mut system = System::demo().await;
    let good = system.manifest(2);
    system.install(2, Options::new()).await.unwrap().clean("done");
    system.forget_calls();
    let mut dice = Dice(0x5eed_0f0d_d1ce);
    let (mut refusals, mut harmless) = (0, 0);
    for round in 0..200 {
        let manifest = mutated(&good, &mut dice);
        match system.begin_text(&manifest, Options::new()).await {
            Ok(job) => {
                // Still a Manifest of what is installed.
                outcome(&job).await.clean("done");
                harmless += 1;
            }
            Err((name, message)) => {
                refusals += 1;
                let kind = name.rsplit('.').next().unwrap();
                let known = ["InvalidManifest", "NoSuitableArtifact", "InvalidArtifact", "Failed"];
                assert!(known.contains(&kind), "{name}: {message}\n{manifest}");
                // What is wrong with the text has a place in it; what does not fit the System is about all of it.
                if kind == "InvalidManifest" && !message.starts_with("The Manifest \"") {
                    let mut parts = message.splitn(4, ':');
                    assert_eq!(parts.next(), Some("manifest"), "{message}\n{manifest}");
                    for _ in 0..2 {
                        let number = parts.next().and_then(|part| part.parse::<u32>().ok());
                        assert!(number.is_some_and(|number| number > 0), "{message}\n{manifest}");
                    }
                }
                assert!(message.ends_with('.') && !message.contains('\n') && message.len() < 2_000, "{message}");
            }
        }
        assert_well(&mut system, &format!("round {round}:\n{manifest}")).await;
    }
    assert_eq!(system.full_trace(), [""; 0]);
    assert!(refusals > 100 && harmless > 0, "the dice are loaded: {refusals} refusals, {harmless} harmless");
    system.install(2, Options::new()).await.unwrap().clean("done");
}

#[tokio::test]
async fn a_broken_manifest_is_refused_with_line_column_and_key() {
    let mut system = System::demo().await;
    let good = system.manifest(2);
    let nested = "[".repeat(20_000);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n\
                f: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    let order = "manifest:9:14: \"component_types.gateway.update_strategy.order\"";
    let cases = [
        (String::new(), "empty"),
        ("[]".to_owned(), "manifest:1:1: "),
        ("a: 'x".to_owned(), "manifest:1:"),
        (good.replace("kind: manifest", "kind: topology"), "manifest:2:7: \"kind\""),
        (good.replace("mender/v1", "mender/v2"), "manifest:1:14: \"api_version\""),
        (good.replace("name: release-2\n", ""), "\"name\" is missing"),
        (good.replace("name: release-2", "name: [1]"), "manifest:3:7: \"name\" must be a string"),
        (good.replace("[test-system]", "[]"), "manifest:4:26: \"system_types_compatible\""),
        (good.replace("[test-system]", "[other]"), "test-system"),
        (good.replace("order: 10", "order: '10'"), order),
        (good.replace("order: 10", "order: 0"), order),
        (good.replace("order: 10", "order: 101"), order),
        (good.replace("order: 10", "order: 1.5"), order),
        (good.replace("  rtos:\n", "  gateway:\n"), "manifest:10:3: The key \"component_types.gateway\""),
        (good.replace("  rtos:\n", "  other:\n"), "\"rtos\""),
        (good.replace("    artifact_path", "    artifact_pfad"), "component_types.gateway"),
        (format!("{good}---\n{good}"), "second YAML document"),
        (format!("{good}deep: {nested}\n"), "manifest:14:"),
        ("a: &a [*a]\n".to_owned(), "manifest:1:"),
        (bomb.to_owned(), "values"),
    ];
    system.wait_for_call("R998", "Provides").await;
    system
        .wait_until("the daemon has looked around", || {
            system.lines().iter().filter(|line| line.starts_with("end")).count() == 6
        })
        .await;
    system.forget_calls();
    for (manifest, expected) in cases {
        let (name, message) = refused(&system, &manifest).await;
        let shown: String = manifest.chars().take(300).collect();
        assert_eq!(name, "org.orchestratord1.Error.InvalidManifest", "{message}\n{shown}");
        assert!(message.contains(expected), "{message}\n{shown}");
        assert_well(&mut system, &shown).await;
    }
    let long = format!("{good}# {}\n", "x".repeat(1024 * 1024));
    let (name, message) = refused(&system, &long).await;
    assert_eq!(name, "org.freedesktop.DBus.Error.InvalidArgs", "{message}");
    assert!(message.contains("at most 1048576"), "{message}");
    // Not one program was run for them: a Manifest is looked at before anybody is asked.
    assert_eq!(system.lines(), [""; 0]);
}

#[tokio::test]
async fn wrong_options_are_refused() {
    let mut system = System::demo().await;
    let manifest = system.manifest(2);
    let options: [Options<'_>; 8] = [
        Options::from([("nonsense", 1_u32.into())]),
        Options::from([("stop-before", "Cleanup".into())]),
        Options::from([("stop-before", vec!["ArtifactReboot"].into())]),
        Options::from([("reboot", "never".into())]),
        Options::from([("reboot", true.into())]),
        Options::from([("base-directory", "relative/path".into())]),
        Options::from([("base-directory", "".into())]),
        Options::from([("topology-components", 7_u32.into())]),
    ];
    for options in options {
        let what = format!("{options:?}");
        let (name, message) = system.begin_text(&manifest, options).await.unwrap_err();
        assert_eq!(name, "org.freedesktop.DBus.Error.InvalidArgs", "{what}: {message}");
        assert_well(&mut system, &what).await;
    }
    assert_eq!(system.full_trace(), [""; 0]);
}

#[tokio::test]
async fn a_broken_topology_is_named_with_its_place_and_can_be_mended_while_the_daemon_runs() {
    let mut system = System::demo().await;
    let path = system.path("etc/topology.yaml");
    let good = fs::read_to_string(&path).unwrap();
    let file = path.display().to_string();
    let manifest = system.manifest(2);
    let broken: Vec<(Vec<u8>, String)> = vec![
        (Vec::new(), format!("{file}:1:1: ")),
        (b"\xff\xfe".to_vec(), "UTF-8".to_owned()),
        (b"a: b\0c".to_vec(), "NUL".to_owned()),
        (good.replace("kind: topology", "kind: manifest").into(), format!("{file}:2:7: \"kind\"")),
        (good.replace("system_type: test-system\n", "").into(), "\"system_type\" is missing".to_owned()),
        (good.replace("interface: demo-gateway", "interface: ../../bin/sh").into(), format!("{file}:6:16: ")),
        (good.replace("[G13]", "G13").into(), format!("{file}:7:21: \"components[0].interface_args\"")),
        (good.split("components:").next().unwrap().into(), "components".to_owned()),
        (good.replace("components:", "components: 7 #").into(), format!("{file}:4:")),
        (vec![b'#'; 2 * 1024 * 1024], "larger than".to_owned()),
    ];
    for (text, expected) in broken {
        fs::write(&path, &text).unwrap();
        let shown = String::from_utf8_lossy(&text[..text.len().min(300)]).into_owned();
        let (name, message) = refused(&system, &manifest).await;
        assert_eq!(name, "org.orchestratord1.Error.InvalidTopology", "{message}\n{shown}");
        assert!(message.contains(&expected), "{message}\n{shown}");
        assert_well(&mut system, &shown).await;
    }
    for what in ["a FIFO", "a directory", "nothing"] {
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).ok();
        match what {
            "a FIFO" => mkfifo(&path, Mode::S_IRWXU).unwrap(),
            "a directory" => fs::create_dir(&path).unwrap(),
            _ => {}
        }
        let (name, message) = refused(&system, &manifest).await;
        assert_eq!(name, "org.orchestratord1.Error.InvalidTopology", "{what}: {message}");
        assert!(message.contains(&file), "{message}");
        assert_well(&mut system, what).await;
    }
    assert_eq!(system.full_trace(), [""; 0]);

    // A daemon starts without one, says so, and takes it once it is there.
    assert!(system.stop_daemon().await.success());
    system.start_daemon().await;
    assert!(system.update().await.last_error().await.unwrap().1.contains(&file));
    assert_eq!(system.update().await.system_type().await.unwrap(), "");
    fs::write(&path, &good).unwrap();
    system.update().await.reload(Options::new()).await.unwrap();
    assert_eq!(system.update().await.last_error().await.unwrap().1, "");
    assert_eq!(system.update().await.system_type().await.unwrap(), "test-system");
    system.install(2, Options::new()).await.unwrap().clean("done");
}

#[tokio::test]
async fn a_broken_configuration_keeps_the_daemon_from_starting_and_from_reloading() {
    let mut system = System::demo().await;
    let path = system.path("etc/mender-orchestrator.conf");
    let file = path.display().to_string();
    let good = fs::read_to_string(&path).unwrap();
    let runner = "\"Runner\": \"process\"";
    let broken = [
        ("{".to_owned(), format!("{file}:1:")),
        ("[]".to_owned(), format!("{file}:1:1: ")),
        (good.replace("\"process\"", "\"docker\""), format!("{file}:")),
        (good.replace(runner, "\"InterfaceTimeoutSeconds\": \"1\""), "InterfaceTimeoutSeconds".to_owned()),
        (good.replace(runner, "\"InterfaceTimeoutSeconds\": 0"), "InterfaceTimeoutSeconds".to_owned()),
        (good.replace(runner, "\"ArtifactVerifyKey\": \"/nonexistent.pem\""), "/nonexistent.pem".to_owned()),
        (good.replace("\"RebootCommand\": [", "\"RebootCommand\": [], \"Other\": ["), "RebootCommand".to_owned()),
    ];
    for (text, expected) in &broken {
        fs::write(&path, text).unwrap();
        let (name, message) = error_reply(&system.update().await.reload(Options::new()).await.unwrap_err()).unwrap();
        assert_eq!(name, "org.orchestratord1.Error.InvalidConfiguration", "{message}");
        assert!(message.contains(expected), "{message}\n{text}");
    }
    // It goes on with what it had.
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert!(system.stop_daemon().await.success());
    for (text, expected) in &broken {
        fs::write(&path, text).unwrap();
        system.spawn_daemon();
        let status = system.wait_for_end().await;
        assert!(!status.success(), "{text}");
        let log = system.log();
        assert!(log.lines().last().unwrap().contains(expected), "{expected}: {log}");
    }
}

fn damaged(good: &[u8], reach: usize, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=dice.roll(3) {
        let place = dice.roll(reach.min(bytes.len()));
        match dice.roll(5) {
            _ if bytes.is_empty() => {}
            0 => bytes.truncate(place),
            1 => drop(bytes.drain(place..(place + dice.roll(600)).min(bytes.len()))),
            2 => bytes.insert(place, 0),
            _ => bytes[place] ^= u8::try_from(1 + dice.roll(255)).unwrap(),
        }
    }
    bytes
}

/// Every byte of it may be wrong.
#[tokio::test]
async fn mutated_artifacts_are_refused_or_fail_or_are_harmless() {
    let mut system = System::start(&[("rtos", "R1", 1)]).await;
    for compression in [Compression::None, Compression::Gzip] {
        let spec = ArtifactSpec { compression, ..system.spec("rtos", 2) };
        system.write_artifact("rtos", 2, &spec);
        let good = fs::read(system.artifact("rtos", 2)).unwrap();
        let mut dice = Dice(0x0a27_1fac);
        let (mut early, mut late) = (0, 0);
        for round in 0..30 {
            // The first kilobytes hold what is read at selection.
            let reach = if round % 2 == 0 { 6_000 } else { good.len() };
            fs::write(system.artifact("rtos", 2), damaged(&good, reach, &mut dice)).unwrap();
            let what = format!("{compression:?} round {round}");
            match system.begin(2, Options::new()).await {
                Err((name, message)) => {
                    early += 1;
                    let kind = name.rsplit('.').next().unwrap();
                    let known = ["InvalidArtifact", "NotSupported", "NoSuitableArtifact"];
                    assert!(known.contains(&kind), "{what}: {name}: {message}");
                    assert!(message.contains("rtos-2.mender") || kind == "NoSuitableArtifact", "{what}: {message}");
                    assert_eq!(system.full_trace(), [""; 0], "{what}");
                }
                Ok(job) => {
                    let outcome = outcome(&job).await;
                    if outcome.result == "done" {
                        system.assert_all_at(2);
                        fs::remove_dir_all(system.home("R1").join("payload")).unwrap();
                        system.set("R1", "provides", "rootfs-image.demo-rtos.version=rtos-1\n");
                    } else {
                        late += 1;
                        let message = outcome.faulty("failed", "InvalidArtifact");
                        assert!(message.contains("rtos-2.mender"), "{what}: {message}");
                        assert_eq!(system.count("R1", "ArtifactInstall"), 0, "{what}");
                    }
                }
            }
            system.forget_calls();
            assert_well(&mut system, &what).await;
            system.assert_all_at(1);
        }
        assert!(early > 3 && late > 3, "{compression:?}: {early} refused, {late} failed in Download");
    }
}

/// What the daemon keeps may be damaged by somebody else; it starts all the same, and says what it cannot know.
#[tokio::test]
async fn a_damaged_record_is_set_aside_and_the_system_reported_inconsistent() {
    for (file, content) in [("plan.json", &b"{"[..]), ("plan.json", b""), ("journal", b"nonsense"), ("journal", b"")] {
        let mut system = System::demo().await;
        system.install(2, stop_before(&["ArtifactCommit"])).await.unwrap().clean("stopped");
        assert!(system.stop_daemon().await.success());
        fs::write(system.path("state/deployment").join(file), content).unwrap();
        system.start_daemon().await;
        assert_eq!(system.update().await.state().await.unwrap(), "idle");
        let manager = ManagerProxy::new(system.connection()).await.unwrap();
        assert_eq!(manager.state().await.unwrap(), "degraded", "{file}");
        assert!(system.path("state/deployment.damaged").is_dir());
        // The first who asks gets to know, and no more than the first.
        let told = system.resume(Options::new()).await.unwrap();
        assert!(told.faulty("inconsistent", "Inconsistent").contains(file), "{told:?}");
        assert!(system.resume(Options::new()).await.unwrap_err().0.ends_with("NothingInProgress"));
        system.install(3, Options::new()).await.unwrap().clean("done");
        system.assert_all_at(3);
        assert_eq!(manager.state().await.unwrap(), "idle");
    }
}

#[tokio::test]
async fn damaged_notes_about_the_past_do_not_keep_the_daemon_from_starting() {
    let mut system = System::demo().await;
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert!(system.stop_daemon().await.success());
    fs::write(system.path("state/last.json"), "{\"manifest\": 7}").unwrap();
    fs::write(system.path("state/manifests/current"), "../../../etc/passwd").unwrap();
    system.start_daemon().await;
    assert!(system.update().await.last_error().await.unwrap().1.contains("last.json"));
    assert_eq!(system.update().await.manifest().await.unwrap(), "");
    system.install(3, Options::new()).await.unwrap().clean("done");
    assert_eq!(system.update().await.manifest().await.unwrap(), "release-3");
    assert_eq!(system.update().await.last_error().await.unwrap().1, "");
}
