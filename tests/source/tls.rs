//! A real nginx: TLS, certificates of clients, ranges, redirects; and a proxy.

use std::fs;

use orchestrator_tests::servers::{Certificates, Nginx, Server};
use orchestrator_tests::system::System;
use serde_json::json;

use super::{bytes, install, install_well, one};

/// A System, and an nginx with the Artifact of release 2 whose authority is trusted.
async fn with_nginx() -> (System, Nginx, Certificates) {
    let mut system = one().await;
    let certificates = Certificates::make(&system.path("certificates"));
    let nginx = Nginx::start(&system.path("nginx"), &certificates);
    fs::write(nginx.files().join("rtos-2.mender"), bytes(&system, "rtos")).unwrap();
    system.configure("ServerCertificate", certificates.path("ca.pem").to_str().unwrap());
    (system, nginx, certificates)
}

async fn start(system: &mut System, url: &str) {
    system.configure("ArtifactSources", json!({"Url": url}));
    system.start_daemon().await;
}

/// The daemon refuses the server for this reason, and nothing was touched.
async fn refused(system: &mut System, url: &str, reason: &str) {
    start(system, url).await;
    let (code, stderr) = install(system).await;
    assert_eq!(code, 21, "{stderr}");
    assert!(stderr.contains(reason), "\"{reason}\" is not in: {stderr}");
    assert!(stderr.contains("/rtos-2.mender"), "{stderr}");
    assert_eq!(system.trace(), [""; 0]);
    system.assert_all_at(1);
    system.assert_cleaned_up();
    assert!(system.stop_daemon().await.success());
}

#[tokio::test]
async fn http_https_and_tls_1_2_are_spoken() {
    let (mut system, nginx, _certificates) = with_nginx().await;
    start(&mut system, &nginx.http()).await;
    install_well(&system).await;
    for url in [nginx.https(), nginx.old()] {
        assert!(system.stop_daemon().await.success());
        for file in ["provides", "payload"] {
            let path = system.home("R1").join(file);
            fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).unwrap();
        }
        system.set("R1", "provides", "rootfs-image.demo-rtos.version=rtos-1\n");
        start(&mut system, &url).await;
        install_well(&system).await;
    }
}

#[tokio::test]
async fn redirects_are_followed_up_but_not_down_and_not_for_ever() {
    let (mut system, nginx, _certificates) = with_nginx().await;
    refused(&mut system, &format!("{}/loop", nginx.http()), "it redirects more than 10 times").await;
    assert!(nginx.log().lines().count() < 20, "{}", nginx.log());
    let down = format!("{}/down", nginx.https());
    refused(&mut system, &down, "it redirects from https to a connection that is not encrypted").await;
    start(&mut system, &format!("{}/moved", nginx.http())).await;
    install_well(&system).await;
}

#[tokio::test]
async fn certificates_that_are_not_right_are_refused() {
    let (mut system, nginx, _certificates) = with_nginx().await;
    refused(&mut system, &nginx.expired(), "TLS: invalid peer certificate: certificate expired").await;
    refused(&mut system, &nginx.other(), "TLS: invalid peer certificate: certificate not valid for name \"localhost\"")
        .await;
    // Not tried again: it would be the same.
    assert!(!system.log().contains("trying again"), "{}", system.log());
    system.configure("ServerCertificate", system.path("certificates/alone.pem").to_str().unwrap());
    refused(&mut system, &nginx.https(), "TLS: invalid peer certificate: UnknownIssuer").await;
}

/// A server that has signed its certificate itself is trusted if its certificate is the one that is named.
#[tokio::test]
async fn a_certificate_without_an_authority_is_good_if_it_is_named() {
    let (mut system, nginx, certificates) = with_nginx().await;
    refused(&mut system, &nginx.alone(), "TLS: invalid peer certificate: UnknownIssuer").await;
    system.configure("ServerCertificate", certificates.path("alone.pem").to_str().unwrap());
    start(&mut system, &nginx.alone()).await;
    install_well(&system).await;
}

#[tokio::test]
async fn a_client_shows_its_certificate() {
    let (mut system, nginx, certificates) = with_nginx().await;
    refused(&mut system, &nginx.mutual(), "the server answers 400 Bad Request").await;
    let certificate = certificates.path("client.pem");
    let broken = system.path("broken.key");
    fs::write(&broken, "no key").unwrap();
    system.configure("HttpsClient", json!({"Certificate": certificate, "Key": broken}));
    start(&mut system, &nginx.mutual()).await;
    let (code, stderr) = install(&system).await;
    assert_eq!(code, 10, "{stderr}");
    assert!(stderr.contains("broken.key\" of \"HttpsClient.Key\" cannot be used"), "{stderr}");
    assert!(system.stop_daemon().await.success());
    system.configure("HttpsClient", json!({"Certificate": certificate, "Key": certificates.path("client.key")}));
    start(&mut system, &nginx.mutual()).await;
    install_well(&system).await;
}

/// The host is known to the proxy alone.
#[tokio::test]
async fn a_proxy_is_asked_except_for_hosts_that_need_none() {
    let mut system = one().await;
    let artifact = bytes(&system, "rtos");
    let proxy = Server::start(move |request, reply| match request.target.as_str() {
        "http://artifacts.invalid/rtos-2.mender" => reply.file(request, &artifact),
        _ => reply.send("502 Bad Gateway", &[], b""),
    });
    system.set_variable("HTTP_PROXY", &proxy.url());
    system.set_variable("NO_PROXY", "other.invalid .invalid");
    refused(&mut system, "http://artifacts.invalid", "Cannot get \"http://artifacts.invalid/rtos-2.mender\"").await;
    assert_eq!(proxy.requests().len(), 0);
    system.set_variable("NO_PROXY", "other.invalid");
    start(&mut system, "http://artifacts.invalid").await;
    install_well(&system).await;
    assert_eq!(proxy.requests().len(), 2);
}

/// nginx itself answers with the rest when a connection broke on the way through a relay.
#[tokio::test]
async fn a_cut_connection_is_taken_up_where_it_broke() {
    let (mut system, nginx, _certificates) = with_nginx().await;
    let relay = relay(&nginx.http(), 30_000);
    start(&mut system, &relay.url()).await;
    install_well(&system).await;
    let log = nginx.log();
    let parts: Vec<&str> = log.lines().filter(|line| line.contains(" 206 ")).collect();
    assert!(parts.len() >= 2, "{log}");
    assert!(parts.iter().all(|line| line.contains("bytes=")), "{log}");
    assert!(
        relay.requests().iter().skip(2).any(|request| request.header("if-range").is_some()),
        "{:?}",
        relay.requests()
    );
}

/// Passes requests on to a server, and of each answer no more than so many bytes.
fn relay(server: &str, most: usize) -> Server {
    use std::io::{Read, Write};
    let address = server.trim_start_matches("http://").to_owned();
    Server::start(move |request, reply| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let headers = request.headers.iter().filter(|(name, _)| name != "connection");
        let lines: Vec<String> = headers.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(stream, "GET {} HTTP/1.1\r\nConnection: close\r\n{}\r\n", request.target, lines.concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer.truncate(most);
        reply.raw(&answer);
    })
}
