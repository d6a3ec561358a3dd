//! Artifacts of a Release of a Mender server, with tokens from a file or over the bus.

use std::fs;

use orchestrator_tests::bus::Bus;
use orchestrator_tests::servers::{Authentication, Item, MenderServer, POLICY, Server};
use orchestrator_tests::system::System;
use orchestratord::update::artifact::ArtifactSpec;
use serde_json::json;

use super::{bytes, hurry, install, install_well, one};

/// A System whose server has release 2, and a token file.
async fn with_file() -> (System, MenderServer) {
    let mut system = one().await;
    let server = MenderServer::start("first");
    bytes(&system, "rtos");
    server.add(Item::of("id-2", &system.artifact("rtos", 2)));
    let file = system.path("etc/token");
    fs::write(&file, "first\n").unwrap();
    system.configure("ArtifactSources", json!({"ServerUrl": server.url(), "TokenFile": file}));
    system.start_daemon().await;
    (system, server)
}

/// A System with the authentication service on its bus.
async fn with_service(server: &MenderServer, token: &str, next: &[&str]) -> (System, Authentication) {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("authentication.conf");
    fs::write(&policy, POLICY).unwrap();
    let bus = Bus::with_policies(&[&policy]);
    let mut system = System::on(bus, &[("rtos", "R1", 1)]).await;
    hurry(&mut system);
    bytes(&system, "rtos");
    server.add(Item::of("id-2", &system.artifact("rtos", 2)));
    let url = server.url();
    let with_server = |token: &str| if token.is_empty() { String::new() } else { url.clone() };
    let own = with_server(token);
    let next: Vec<(&str, String)> = next.iter().map(|token| (*token, with_server(token))).collect();
    let next: Vec<(&str, &str)> = next.iter().map(|(token, server)| (*token, server.as_str())).collect();
    let service = Authentication::start(system.bus(), (token, &own), &next).await;
    system.start_daemon().await;
    (system, service)
}

#[tokio::test]
async fn a_release_is_installed_and_no_secret_is_logged() {
    let (system, server) = with_file().await;
    install_well(&system).await;
    let requests = server.requests();
    let listed = requests.iter().find(|request| request.target.contains("release_name")).unwrap();
    assert_eq!(listed.target, "/api/devices/v1/deployments/artifacts?release_name=rtos-2&device_type=rtos");
    assert!(requests.iter().filter(|request| request.target.starts_with("/storage")).count() >= 2, "{requests:?}");
    let log = system.log();
    assert!(!log.contains("first") && !log.contains("secret-"), "{log}");
}

#[tokio::test]
async fn a_link_that_expires_is_replaced_and_the_download_goes_on() {
    let (system, server) = with_file().await;
    // The first download is that of the header.
    server.expire_after(1, 20_000);
    install_well(&system).await;
    let storage: Vec<_> =
        server.requests().into_iter().filter(|request| request.target.starts_with("/storage")).collect();
    let parts: Vec<(usize, &str)> =
        storage.iter().map(|request| (request.from(), request.target.rsplit('-').next().unwrap())).collect();
    // The rest is asked for by the old link, which is refused, and then by a new one.
    assert_eq!(parts, [(0, "0"), (0, "1"), (20_000, "1"), (20_000, "2")]);
    assert!(!system.log().contains("secret-"), "{}", system.log());
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let server = MenderServer::start("second");
    let (system, service) = with_service(&server, "first", &["second"]).await;
    install_well(&system).await;
    assert_eq!(service.fetches(), 1);

    let server = MenderServer::start("never");
    let (system, service) = with_service(&server, "first", &["second"]).await;
    let (code, stderr) = install(&system).await;
    assert_eq!(code, 21, "{stderr}");
    assert!(stderr.contains("401 Unauthorized, also to a new token"), "{stderr}");
    assert_eq!(service.fetches(), 1);
    system.assert_all_at(1);
}

#[tokio::test]
async fn a_token_is_fetched_if_there_is_none() {
    let server = MenderServer::start("first");
    let (system, service) = with_service(&server, "", &["first"]).await;
    install_well(&system).await;
    assert!(service.fetches() >= 1);

    let server = MenderServer::start("first");
    let (system, _service) = with_service(&server, "", &[""]).await;
    let (code, stderr) = install(&system).await;
    assert_eq!(code, 21, "{stderr}");
    assert!(stderr.contains("The Mender client has no token for its server"), "{stderr}");
}

#[tokio::test]
async fn a_refused_token_in_a_file_is_an_error() {
    let (system, server) = with_file().await;
    server.accept("other");
    let (code, stderr) = install(&system).await;
    assert_eq!(code, 21, "{stderr}");
    assert!(stderr.contains("holds a token that the server does not accept"), "{stderr}");
    assert!(!stderr.contains("first"), "{stderr}");
    fs::write(system.path("etc/token"), "other").unwrap();
    install_well(&system).await;
}

/// Who is redirected to another host tells it nothing.
#[tokio::test]
async fn a_redirect_to_another_host_does_not_get_the_token() {
    let mut system = one().await;
    let other = Server::start(|_, reply| reply.send("200 OK", &[], b"[]"));
    let address = other.url();
    let server = Server::start(move |request, reply| {
        reply.send("307 Temporary Redirect", &[("Location", format!("{address}{}", request.target))], b"");
    });
    let file = system.path("etc/token");
    fs::write(&file, "first").unwrap();
    system.configure("ArtifactSources", json!({"ServerUrl": server.url(), "TokenFile": file}));
    system.start_daemon().await;
    let (code, stderr) = install(&system).await;
    assert_eq!(code, 14, "{stderr}");
    let asked = |server: &Server| server.requests().first().map(|request| request.header("authorization").is_some());
    assert_eq!((asked(&server), asked(&other)), (Some(true), Some(false)));
}

/// Of several Artifacts of a Release the smallest that fits is taken; what does not fit, or has no Provides, is not.
#[tokio::test]
async fn the_smallest_that_fits_is_taken() {
    let (system, server) = with_file().await;
    let delta = ArtifactSpec {
        depends: [("rootfs-image.demo-rtos.version".to_owned(), vec!["rtos-0".to_owned()])].into(),
        files: Vec::new(),
        ..system.spec("rtos", 2)
    };
    let path = system.path("releases/delta.mender");
    orchestratord::update::artifact::write(&delta, None, &path).unwrap();
    server.add(Item::of("id-1-delta", &path));
    let mut old = Item::of("id-0-old", &path);
    old.value["artifact_provides"] = serde_json::Value::Null;
    server.add(old);
    let plan =
        system.update().await.plan(&super::named(&system, 2).0, orchestratord_dbus::Options::new()).await.unwrap();
    assert!(format!("{plan:?}").contains("id-2"), "{plan:?}");
    install_well(&system).await;
}

#[tokio::test]
async fn an_artifact_that_is_not_what_the_server_said_is_refused() {
    let (system, server) = with_file().await;
    for (key, value, reason) in [
        ("size", json!(10), "but its size was told to be 10 bytes"),
        ("clears_artifact_provides", json!(["everything.*"]), "other clears_artifact_provides than the server says"),
    ] {
        let mut item = Item::of("id-2", &system.artifact("rtos", 2));
        item.value[key] = value;
        server.replace(item);
        let (code, stderr) = install(&system).await;
        assert!([13, 21].contains(&code), "{stderr}");
        assert!(stderr.contains(reason), "\"{reason}\" is not in: {stderr}");
        assert!(!stderr.contains("secret-"), "{stderr}");
        assert_eq!(system.trace(), [""; 0]);
    }
    system.assert_all_at(1);
}

#[tokio::test]
async fn a_release_that_the_server_does_not_have_is_no_suitable_artifact() {
    let (system, _server) = with_file().await;
    let manifest = super::named(&system, 2).0.replace("rtos-2", "rtos-7");
    let (name, message) = system.begin_text(&manifest, orchestratord_dbus::Options::new()).await.unwrap_err();
    assert_eq!(name, "org.orchestratord1.Error.NoSuitableArtifact", "{message}");
    assert!(message.contains("\"rtos-7\"") && message.contains("the Mender server"), "{message}");
}
