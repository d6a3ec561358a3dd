//! Names, and the places they are looked for in.

use std::fs;

use orchestrator_tests::servers::Server;
use orchestrator_tests::system::System;
use orchestratord_dbus::Options;
use serde_json::json;

use super::{bytes, hurry, install, install_well, named, one};

#[tokio::test]
async fn a_directory_such_as_a_stick_serves_names() {
    let mut system = one().await;
    let stick = system.path("stick");
    fs::create_dir(&stick).unwrap();
    system.configure("ArtifactSources", json!({"Directory": stick}));
    system.start_daemon().await;

    let (code, stderr) = install(&system).await;
    assert_eq!(code, 14, "{stderr}");
    let directory = format!(
        "There is no Artifact \"rtos-2\" for the Component type \"rtos\" in the directory \"{}\"",
        stick.display()
    );
    assert!(stderr.contains(&directory), "{stderr}");
    assert!(stderr.contains("or the Mender server"), "{stderr}");
    assert!(stderr.contains("The Mender client is not there"), "{stderr}");

    fs::copy(system.artifact("rtos", 2), stick.join("rtos-2.mender")).unwrap();
    let plan = system.update().await.plan(&named(&system, 2).0, Options::new()).await.unwrap();
    assert!(format!("{plan:?}").contains(stick.join("rtos-2.mender").to_str().unwrap()), "{plan:?}");
    install_well(&system).await;
}

/// A name that would lead out of the directory leads nowhere.
#[tokio::test]
async fn a_name_cannot_leave_its_directory() {
    let mut system = one().await;
    let stick = system.path("stick");
    fs::create_dir(&stick).unwrap();
    system.configure("ArtifactSources", json!({"Directory": stick}));
    system.start_daemon().await;
    let manifest = named(&system, 2).0.replace("artifact_name: rtos-2", "artifact_name: ../releases/rtos-2");
    assert!(system.artifact("rtos", 2).exists());
    let (name, message) = system.begin_text(&manifest, Options::new()).await.unwrap_err();
    assert_eq!(name, "org.orchestratord1.Error.NoSuitableArtifact", "{message}");
}

/// Directory first, then the address; a path goes before both, and a path that leads nowhere gives way to the name.
#[tokio::test]
async fn places_are_asked_in_order() {
    let mut system = System::new(&[("gateway", "G13", 10), ("rtos", "R1", 20)]).await;
    hurry(&mut system);
    let stick = system.path("stick");
    fs::create_dir(&stick).unwrap();
    let (gateway, rtos) = (bytes(&system, "gateway"), bytes(&system, "rtos"));
    fs::write(stick.join("gateway-2.mender"), gateway).unwrap();
    let server = Server::start(move |request, reply| match request.target.as_str() {
        "/a/rtos-2.mender" => reply.file(request, &rtos),
        _ => reply.send("404 Not Found", &[], b""),
    });
    system.configure("ArtifactSources", json!({"Directory": stick, "Url": format!("{}/a", server.url())}));
    system.start_daemon().await;
    let both = named(&system, 2)
        .0
        .replace("artifact_name: rtos-2", "artifact_name: rtos-2\n    artifact_path: /nonexistent.mender");
    let job = system.begin_text(&both, Options::new()).await.unwrap();
    orchestrator_tests::system::outcome(&job).await.clean("done");
    system.assert_all_at(2);
    let targets: Vec<String> = server.requests().into_iter().map(|request| request.target).collect();
    // Once for the header, once for all of it; nothing for what the directory has.
    assert_eq!(targets, ["/a/rtos-2.mender", "/a/rtos-2.mender"]);
}

#[tokio::test]
async fn what_the_server_does_not_have_is_no_suitable_artifact() {
    let mut system = one().await;
    let server = Server::start(|_, reply| reply.send("404 Not Found", &[], b"nothing here"));
    system.configure("ArtifactSources", json!({"Url": server.url()}));
    system.start_daemon().await;
    let (code, stderr) = install(&system).await;
    assert_eq!(code, 14, "{stderr}");
    assert!(stderr.contains(&format!("the server \"{}/\"", server.url())), "{stderr}");
    system.assert_all_at(1);
}

/// The header is enough to plan: what comes after it is not waited for.
#[tokio::test]
async fn a_plan_reads_no_more_than_the_header() {
    let mut system = one().await;
    let artifact = bytes(&system, "rtos");
    let header = artifact.len() / 2;
    let server = Server::start(move |request, reply| {
        reply.part_of_file(request, &artifact, header);
        reply.hang();
    });
    system.configure("ArtifactSources", json!({"Url": server.url()}));
    system.start_daemon().await;
    let plan = system.update().await.plan(&named(&system, 2).0, Options::new()).await.unwrap();
    assert!(format!("{plan:?}").contains("/rtos-2.mender"), "{plan:?}");
    assert_eq!(server.requests().len(), 1);
}

/// After a restart in the middle, what is left needs no server: the deployment goes back.
#[tokio::test]
async fn a_rollback_after_a_restart_needs_no_network() {
    let mut system = one().await;
    let artifact = bytes(&system, "rtos");
    let server = Server::start(move |request, reply| reply.file(request, &artifact));
    system.configure("ArtifactSources", json!({"Url": server.url()}));
    system.start_daemon().await;
    system.set("R1", "ArtifactInstall.hang", "");
    let job = system.begin_text(&named(&system, 2).0, Options::new()).await.unwrap();
    system.wait_for_call("R1", "ArtifactInstall").await;
    drop((server, job));
    system.cut_power();
    system.unset("R1", "ArtifactInstall.hang");
    system.start_daemon().await;
    assert_eq!(system.wait_for_rest().await, "idle");
    system.assert_all_at(1);
    system.assert_cleaned_up();
    // The place of the Artifact stood in the record that was read.
    assert_eq!(system.count("R1", "ArtifactRollback"), 1);
}
