//! Commands that read.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::play::{Act, Bus, Daemon, Script, directory, manifest};
use crate::program::{PATIENCE, finish, orchestratorctl, run, text};

async fn played(script: Script) -> (Bus, Daemon) {
    let bus = Bus::start().await;
    let daemon = Daemon::start(&bus, script).await;
    (bus, daemon)
}

async fn read(bus: &Bus, line: &[&str]) -> String {
    let output = run(&mut orchestratorctl(bus), line).await;
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{output:?}");
    output.stdout
}

async fn read_json(bus: &Bus, line: &[&str]) -> Value {
    serde_json::from_str(&read(bus, &[&["--json"], line].concat()).await).unwrap()
}

fn inventory() -> Script {
    Script {
        entries: vec![
            ("rtos/R123", "rootfs-image.rtos-interface.version", "v1"),
            ("rtos/52:54", "mac", "52:54"),
            ("gateway/G13", "list", "b"),
            ("gateway/G13", "list", "a"),
        ],
        ..Script::default()
    }
}

#[tokio::test]
async fn status_shows_the_system() {
    let (bus, daemon) = played(Script::default()).await;
    assert_eq!(
        read(&bus, &["status"]).await,
        "State:          idle\nSystem type:    system-core-v1\nManifest:       system-core-v2\nStopped before: -\n\
         Active job:     -\nLast error:     -\n\n\
         COMPONENT    STATE  VERSION  INTERFACE          LAST ERROR\n\
         gateway.G13  idle   v1       gateway-interface  -\n\
         rtos.52:54   idle   v1       rtos-interface     -\n\
         rtos.R123    idle   v1       rtos-interface     -\n"
    );
    daemon.begin_job().await;
    daemon.play(&[Act::Step(0.455, "Order group 10: Download")]).await;
    let job = zbus::OwnedObjectPath::try_from("/org/orchestratord1/job/7").unwrap();
    let values = [
        ("ActiveJob", job.into_inner().into()),
        ("State", "waiting".into()),
        ("StoppedBefore", "ArtifactCommit".into()),
        ("LastError", ("org.orchestratord1.Error.Failed".to_owned(), "It broke.".to_owned()).into()),
    ];
    daemon.update(&values).await;
    let text = read(&bus, &["status"]).await;
    for line in [
        "State:          idle (deployment: waiting)\n",
        "Stopped before: ArtifactCommit\n",
        "Active job:     7 (install, 45 %, Order group 10: Download)\n",
        "Last error:     It broke.\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let status = read_json(&bus, &["status"]).await;
    assert_eq!((&status["version"], &status["state"]), (&json!("1.2.3"), &json!("idle")));
    assert_eq!(
        status["update"],
        json!({
            "state": "waiting", "stopped_before": "ArtifactCommit", "manifest": "system-core-v2",
            "system_type": "system-core-v1", "active_job": "/org/orchestratord1/job/7",
            "last_error": { "name": "org.orchestratord1.Error.Failed", "message": "It broke." },
        })
    );
    assert_eq!(status["active_job"]["step"], "Order group 10: Download");
    assert_eq!(status["components"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn components_are_listed() {
    let (bus, _daemon) = played(Script::default()).await;
    let text = read(&bus, &["components"]).await;
    assert!(text.starts_with("COMPONENT    STATE  VERSION"), "{text}");
    let components = read_json(&bus, &["components"]).await;
    assert_eq!(
        components["components"][2],
        json!({
            "type": "rtos", "id": "R123", "interface": "rtos-interface", "arguments": ["0"], "state": "idle",
            "version": "v1", "provides": { "rootfs-image.version": "v1" }, "progress": 0.0, "last_error": null,
        })
    );
}

#[tokio::test]
async fn jobs_are_listed() {
    let (bus, daemon) = played(Script::default()).await;
    assert_eq!(read(&bus, &["jobs"]).await, "JOB  KIND  STARTED  STATE  PROGRESS  RESULT  ERROR\n");
    daemon.begin_job().await;
    daemon.play(&[Act::End("failed", "org.orchestratord1.Error.Failed", "It broke.")]).await;
    assert_eq!(
        read(&bus, &["jobs"]).await,
        "JOB  KIND     STARTED               STATE  PROGRESS  RESULT  ERROR\n\
         7    install  2025-10-15T11:08:51Z  done   100 %     failed  It broke.\n"
    );
    assert_eq!(read_json(&bus, &["jobs"]).await["jobs"][0]["result"], "failed");
}

#[tokio::test]
async fn a_plan_is_a_table() {
    let (bus, daemon) = played(Script::default()).await;
    let file = manifest(&bus);
    let components = bus.file("c.yaml", "components: []\n");
    assert_eq!(
        read(&bus, &["plan", text(&file), "-t", text(&components)]).await,
        "ORDER  COMPONENT   ACTION     FROM  TO  SIZE     ARTIFACT\n\
         10     rtos.R123   install    v1    v2  1.5 KiB  /a/rtos-v2.mender\n\
         20     rtos.52:54  unchanged  v1    v2  -        -\n"
    );
    let plan = read_json(&bus, &["plan", text(&file)]).await;
    assert_eq!(
        plan["steps"][0],
        json!({
            "order": 10, "component_type": "rtos", "id": "R123", "action": "install", "interface": "rtos-interface",
            "from_version": "v1", "to_version": "v2", "artifact_name": "rtos-v2", "artifact": "/a/rtos-v2.mender",
            "size": 1536, "leg": 0, "reasons": [], "way_back": "",
        })
    );
    let calls = daemon.calls();
    let keys: Vec<_> = calls[0].options.keys().map(String::as_str).collect();
    assert_eq!(keys, ["base-directory", "topology-components"]);
    assert_eq!(calls[1].options["base-directory"], format!("\"{}\"", directory(&file)));
}

#[tokio::test]
async fn provides_and_inventory_are_sorted() {
    let (bus, daemon) = played(inventory()).await;
    assert_eq!(
        read(&bus, &["inventory"]).await,
        "COMPONENT    KEY                                  VALUE\n\
         gateway.G13  list                                 a\n\
         gateway.G13  list                                 b\n\
         rtos.52:54   mac                                  52:54\n\
         rtos.R123    rootfs-image.rtos-interface.version  v1\n"
    );
    let provides = read_json(&bus, &["provides"]).await;
    assert_eq!(provides["entries"][2], json!({ "type": "rtos", "id": "52:54", "key": "mac", "value": "52:54" }));
    assert_eq!(provides["errors"], json!([]));
    let scopes: Vec<_> = daemon.calls().into_iter().map(|call| call.options["scope"].clone()).collect();
    assert_eq!(scopes, ["\"all\"", "\"provides\""]);
}

#[tokio::test]
async fn a_silent_component_does_not_hide_the_others() {
    let (bus, _daemon) = played(Script { errors: vec!["The Component \"x.1\" did not answer."], ..inventory() }).await;
    let output = run(&mut orchestratorctl(&bus), &["provides"]).await;
    assert_eq!(output.code(), 15, "{output:?}");
    assert_eq!(output.stdout.lines().count(), 5);
    assert_eq!(output.stderr, "orchestratorctl: The Component \"x.1\" did not answer.\n");
}

#[tokio::test]
async fn reload_is_a_call() {
    let (bus, daemon) = played(Script::default()).await;
    assert_eq!(read(&bus, &["reload"]).await, "");
    assert_eq!(daemon.calls()[0].member, "Reload");
}

#[tokio::test]
async fn a_lost_reader_is_no_failure() {
    let (bus, _daemon) = played(inventory()).await;
    for line in ["status", "inventory", "watch"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = orchestratorctl(&bus);
        command.stdout(writer);
        let output = run(&mut command, &[line]).await;
        assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{line}: {output:?}");
    }
}

/// The next line of a `watch` that has this in it.
async fn line(lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>, what: &str) -> String {
    let search = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(what) {
                return Some(line);
            }
        }
        None
    };
    let found = tokio::time::timeout(PATIENCE, search).await;
    found.unwrap_or_else(|_| panic!("not seen: {what}")).unwrap_or_else(|| panic!("ended before {what}"))
}

#[tokio::test]
async fn watch_follows_jobs_and_restarts() {
    let (bus, daemon) = played(Script::default()).await;
    let mut child = orchestratorctl(&bus).arg("watch").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen = line(&mut lines, "daemon:").await;
    assert!(seen.len() > 21 && seen[20..].starts_with(" daemon: idle"), "{seen}");
    line(&mut lines, "deployment: idle, manifest system-core-v2").await;
    line(&mut lines, "rtos.R123: idle").await;
    daemon.begin_job().await;
    let acts = [
        Act::Step(0.5, "Order group 10"),
        Act::Component("R123", "ArtifactInstall", 0.5),
        Act::Log("error", "rtos.R123", "bad"),
        Act::End("rolled-back", "org.orchestratord1.Error.Failed", "It broke."),
    ];
    daemon.play(&acts).await;
    line(&mut lines, "job 7: install").await;
    line(&mut lines, "job 7: 50 % Order group 10").await;
    line(&mut lines, "rtos.R123: ArtifactInstall").await;
    line(&mut lines, "job 7: rtos.R123: error: bad").await;
    line(&mut lines, "job 7: rolled-back: It broke.").await;
    daemon.die().await;
    line(&mut lines, "orchestratord has left the bus").await;
    let daemon = Daemon::start(&bus, Script::default()).await;
    line(&mut lines, "daemon: idle").await;
    line(&mut lines, "rtos.R123: idle").await;
    daemon.update(&[("State", "busy".into())]).await;
    line(&mut lines, "deployment: busy").await;
    let id = i32::try_from(child.id().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), Signal::SIGINT).unwrap();
    let output = finish(child).await;
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{output:?}");
}

#[tokio::test]
async fn watch_speaks_json() {
    let (bus, daemon) = played(Script::default()).await;
    let mut child = orchestratorctl(&bus).args(["watch", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async |what: &str| -> Value { serde_json::from_str(&line(&mut lines, what).await).unwrap() };
    let snapshot = next("snapshot").await;
    assert_eq!((&snapshot["daemon"], &snapshot["components"][2]["id"]), (&json!("idle"), &json!("R123")));
    daemon.begin_job().await;
    daemon.play(&[Act::Step(0.5, "half"), Act::Log("info", "rtos.R123", "a \"b\""), Act::End("done", "", "")]).await;
    let added = next("added").await;
    assert_eq!((&added["event"], &added["job"]["kind"]), (&json!("job"), &json!("install")));
    assert_eq!(next("\"progress\"").await["job"]["progress"], 0.5);
    let mut log = next("\"log\"").await;
    assert_eq!(log["time"].take().as_str().unwrap().len(), 20);
    log.as_object_mut().unwrap().remove("time");
    assert_eq!(
        log,
        json!({ "event": "log", "job": 7, "severity": "info", "component": "rtos.R123", "message": "a \"b\"" })
    );
    assert_eq!(next("\"ended\"").await["job"]["result"], "done");
}
