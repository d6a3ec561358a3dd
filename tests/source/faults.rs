//! Bad networks and bad servers: each ends in an error that says so, nothing is half done, and nothing stays behind.

use std::fs;
use std::process::Command;
use std::time::Duration;

use orchestrator_tests::servers::{Reply, Request, Server};
use orchestrator_tests::system::System;
use orchestratord::update::artifact::{ArtifactSpec, SigningKey, write};
use serde_json::json;

use super::{bytes, hurry, install, install_well, one};

/// A System of a Component that installs well and one after it, whose Artifact comes from a server like this. The cache is on.
async fn two(answer: impl Fn(&Request, &mut Reply, &[u8]) + Send + Sync + 'static) -> (System, Server) {
    let mut system = System::new(&[("gateway", "G13", 10), ("rtos", "R1", 20)]).await;
    hurry(&mut system);
    let (gateway, rtos) = (bytes(&system, "gateway"), bytes(&system, "rtos"));
    let server = Server::start(move |request, reply| match request.target.as_str() {
        "/gateway-2.mender" => reply.file(request, &gateway),
        _ => answer(request, reply, &rtos),
    });
    let cache = system.path("cache");
    fs::create_dir(&cache).unwrap();
    system.configure("ArtifactSources", json!({"Url": server.url()}));
    system.configure("ArtifactsCache", json!({"Enabled": true, "Path": cache}));
    system.start_daemon().await;
    (system, server)
}

/// The second Artifact cannot be had: the first Component goes back, and of the second nothing has begun.
async fn rolls_back(system: &System, code: i32, reason: &str) -> String {
    let (found, stderr) = install(system).await;
    assert_eq!(found, code, "{stderr}");
    assert!(stderr.contains(reason), "\"{reason}\" is not in: {stderr}");
    assert_eq!(system.count("R1", "ArtifactInstall"), 0);
    assert_eq!(system.count("G13", "ArtifactRollback"), 1);
    system.assert_all_at(1);
    system.assert_cleaned_up();
    let files: Vec<String> = fs::read_dir(system.path("cache"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(files.iter().all(|file| file.ends_with(".mender")), "partial files stay behind: {files:?}");
    stderr
}

/// Nothing was touched.
async fn refuses(system: &System, code: i32, reason: &str) {
    let (found, stderr) = install(system).await;
    assert_eq!(found, code, "{stderr}");
    assert!(stderr.contains(reason), "\"{reason}\" is not in: {stderr}");
    assert_eq!(system.trace(), [""; 0]);
    system.assert_all_at(1);
    system.assert_cleaned_up();
}

/// The first request for it is for its header, and gets all.
fn after_the_plan(
    answer: impl Fn(&Request, &mut Reply, &[u8]) + Send + Sync,
) -> impl Fn(&Request, &mut Reply, &[u8]) + Send + Sync {
    let planned = std::sync::atomic::AtomicBool::new(false);
    move |request, reply, bytes| {
        if planned.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return answer(request, reply, bytes);
        }
        reply.file(request, bytes);
    }
}

#[tokio::test]
async fn a_server_that_always_cuts_is_given_up() {
    let (system, server) = two(after_the_plan(|request, reply, bytes| {
        reply.part_of_file(request, bytes, 9_000.min(bytes.len() - request.from() - 1));
    }))
    .await;
    rolls_back(&system, 21, "end of file before message length reached (tried 3 times)").await;
    // Each try went on where the one before had ended.
    let from: Vec<usize> =
        server.requests().iter().filter(|request| request.target == "/rtos-2.mender").map(Request::from).collect();
    assert_eq!(from[..4], [0, 0, 9_000, 18_000], "{from:?}");
}

#[tokio::test]
async fn a_server_that_ends_is_given_up() {
    let (system, server) = two(after_the_plan(|request, reply, bytes| {
        if request.from() > 0 {
            return reply.send("503 Service Unavailable", &[("Retry-After", "0".to_owned())], b"");
        }
        reply.part_of_file(request, bytes, 20_000);
    }))
    .await;
    rolls_back(&system, 21, "the server answers 503 Service Unavailable (tried 3 times)").await;
    drop(server);
}

#[tokio::test]
async fn an_artifact_that_is_truncated_on_the_server_is_refused() {
    let (system, _server) = two(|request, reply, bytes| reply.file(request, &bytes[..40_000])).await;
    rolls_back(&system, 13, "The Artifact is truncated").await;
}

#[tokio::test]
async fn a_wrong_byte_is_found_and_nothing_of_it_is_kept() {
    let (system, server) = two(|request, reply, bytes| {
        let mut bytes = bytes.to_vec();
        let place = bytes.len() - 20_000;
        bytes[place] ^= 1;
        reply.file(request, &bytes);
    })
    .await;
    let stderr = rolls_back(&system, 13, "The Artifact is damaged").await;
    assert!(stderr.contains(&format!("{}/rtos-2.mender", server.url())), "{stderr}");
    // What is in the cache is the sound one only.
    assert_eq!(fs::read_dir(system.path("cache")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_wrong_length_is_found() {
    // More bytes than the Artifact has.
    let (system, _server) = two(|request, reply, bytes| reply.file(request, &[bytes, b"rest"].concat())).await;
    rolls_back(&system, 13, "has bytes other than zero after its end").await;
}

#[tokio::test]
async fn another_length_than_at_the_plan_is_a_change() {
    let (system, _server) =
        two(after_the_plan(|request, reply, bytes| reply.file(request, &[bytes, &[0; 512]].concat()))).await;
    rolls_back(&system, 21, "but its size was told to be").await;
}

#[tokio::test]
async fn another_artifact_than_at_the_plan_is_refused() {
    let mut system = one().await;
    let first = bytes(&system, "rtos");
    let other = ArtifactSpec { meta_data: Some(b"{\"other\": 1}".to_vec()), ..system.spec("rtos", 2) };
    system.write_artifact("rtos", 2, &other);
    let mut second = bytes(&system, "rtos");
    // A tar may end in more zeros than it has to.
    let longer = first.len().max(second.len());
    let padded = |bytes: &mut Vec<u8>| bytes.resize(longer, 0);
    let mut first = first;
    padded(&mut first);
    padded(&mut second);
    let answer = after_the_plan(move |request, reply, _| reply.file(request, &second));
    let server = Server::start(move |request, reply| answer(request, reply, &first));
    system.configure("ArtifactSources", json!({"Url": server.url()}));
    system.start_daemon().await;
    let (code, stderr) = install(&system).await;
    assert_eq!(code, 13, "{stderr}");
    assert!(stderr.contains("/rtos-2.mender\" has changed since it was selected"), "{stderr}");
    // Not even a tree was made for it.
    assert_eq!(system.trace(), [""; 0]);
    system.assert_all_at(1);
    system.assert_cleaned_up();
}

#[tokio::test]
async fn a_server_that_lies_about_ranges_is_not_believed() {
    type Lie = fn(&Request, &mut Reply, &[u8]);
    let lies: [(&str, Lie); 4] = [
        ("where 20000 to", |request, reply, bytes| {
            let range = ("Content-Range", format!("bytes {}-{}/{}", request.from() - 1, bytes.len() - 1, bytes.len()));
            reply.send("206 Partial Content", &[range], &bytes[request.from() - 1..]);
        }),
        ("it has changed on the server", |request, reply, bytes| {
            let range = ("Content-Range", format!("bytes {}-{}/{}", request.from(), bytes.len() - 1, bytes.len() + 7));
            reply.send("206 Partial Content", &[range], &bytes[request.from()..]);
        }),
        ("the server does not say which part", |request, reply, bytes| {
            reply.send("206 Partial Content", &[], &bytes[request.from()..]);
        }),
        ("it has changed on the server", |_, reply, bytes| {
            reply.send("200 OK", &[("ETag", "\"2\"".to_owned())], bytes);
        }),
    ];
    for (reason, lie) in lies {
        let (system, _server) = two(after_the_plan(move |request, reply, bytes| {
            if request.from() > 0 {
                return lie(request, reply, bytes);
            }
            reply.part_of_file(request, bytes, 20_000);
        }))
        .await;
        rolls_back(&system, 21, reason).await;
    }
}

#[tokio::test]
async fn a_range_that_the_server_refuses_ends_the_download() {
    let (system, _server) = two(after_the_plan(|request, reply, bytes| {
        if request.from() > 0 {
            return reply.send(
                "416 Range Not Satisfiable",
                &[("Content-Range", format!("bytes */{}", bytes.len()))],
                b"",
            );
        }
        reply.part_of_file(request, bytes, 20_000);
    }))
    .await;
    rolls_back(&system, 21, "the server refuses the bytes from 20000 on").await;
}

/// A server that knows no ranges sends all again; what came before is passed over.
#[tokio::test]
async fn a_server_without_ranges_is_good_enough() {
    let (system, server) = two(after_the_plan(|request, reply, bytes| {
        let tag = ("ETag", "\"1\"".to_owned());
        let most = if request.from() > 0 { bytes.len() } else { 20_000 };
        reply.head("200 OK", &[tag, ("Content-Length", bytes.len().to_string())]);
        reply.raw(&bytes[..most]);
    }))
    .await;
    install_well(&system).await;
    let requests = server.requests();
    let last = requests.iter().rfind(|request| request.target == "/rtos-2.mender").unwrap();
    assert_eq!((last.from(), last.header("if-range")), (20_000, Some("\"1\"")));
    assert_eq!(last.header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn what_a_server_has_encoded_or_has_no_size_is_refused() {
    type Answer = fn(&Request, &mut Reply, &[u8]);
    let answers: [(&str, Answer); 3] = [
        ("nobody asked for", |_, reply, bytes| reply.send("200 OK", &[("Content-Encoding", "gzip".to_owned())], bytes)),
        ("the server does not tell its size", |_, reply, bytes| {
            reply.head("200 OK", &[]);
            reply.raw(bytes);
        }),
        ("the server answers 401 Unauthorized", |_, reply, _| reply.send("401 Unauthorized", &[], b"")),
    ];
    for (reason, answer) in answers {
        let (system, _server) = two(answer).await;
        refuses(&system, 21, reason).await;
    }
}

#[tokio::test]
async fn a_server_that_drips_or_hangs_is_left() {
    let (system, _server) = two(after_the_plan(|_, reply, bytes| {
        reply.head("200 OK", &[("Content-Length", bytes.len().to_string()), ("ETag", "\"1\"".to_owned())]);
        reply.drip(Duration::from_millis(100));
    }))
    .await;
    rolls_back(&system, 21, "bytes in 2 s (tried 3 times)").await;

    let (system, _server) = two(|_, reply, _| reply.hang()).await;
    refuses(&system, 21, "no answer within 2 s (tried 3 times)").await;
}

/// A download that waits for its server ends when the Job is cancelled.
#[tokio::test]
async fn a_download_that_waits_can_be_cancelled() {
    let (mut system, _server) = two(after_the_plan(|request, reply, bytes| {
        reply.part_of_file(request, bytes, 20_000);
        reply.hang();
    }))
    .await;
    assert!(system.stop_daemon().await.success());
    system.configure("DownloadTimeoutSeconds", 3600);
    system.start_daemon().await;
    let job = system.begin_text(&super::named(&system, 2).0, orchestratord_dbus::Options::new()).await.unwrap();
    system.wait_for_call("R1", "Download").await;
    job.cancel().await.unwrap();
    let outcome = orchestrator_tests::system::outcome(&job).await;
    assert_eq!(outcome.result, "cancelled", "{outcome:?}");
    system.assert_all_at(1);
    system.assert_cleaned_up();
}

#[tokio::test]
async fn a_wrong_signature_and_a_wrong_type_are_refused_before_anything_is_touched() {
    let mut system = one().await;
    let keys = system.path("etc");
    for name in ["ours", "other"] {
        let (private, public) = (keys.join(format!("{name}.pem")), keys.join(format!("{name}.pub")));
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
            .arg(&private)
            .output()
            .unwrap();
        assert!(made.status.success());
        let made =
            Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public).output();
        assert!(made.unwrap().status.success());
    }
    let sign = |name: &str| {
        let key = SigningKey::load(&keys.join(format!("{name}.pem"))).unwrap();
        let path = system.path("releases").join(format!("{name}.mender"));
        write(&system.spec("rtos", 2), Some(&key), &path).unwrap();
        fs::read(path).unwrap()
    };
    let (ours, other, unsigned) = (sign("ours"), sign("other"), bytes(&system, "rtos"));
    let wrong = ArtifactSpec { payload_type: "single-file".to_owned(), ..system.spec("rtos", 2) };
    let path = system.path("releases/wrong.mender");
    let key = SigningKey::load(&keys.join("ours.pem")).unwrap();
    write(&wrong, Some(&key), &path).unwrap();
    let wrong = fs::read(path).unwrap();
    let offered = std::sync::Arc::new(std::sync::Mutex::new(other));
    let shared = offered.clone();
    let server = Server::start(move |request, reply| {
        let bytes = shared.lock().unwrap().clone();
        reply.file(request, &bytes);
    });
    system.configure("ArtifactSources", json!({"Url": server.url()}));
    system.configure("ArtifactVerifyKey", keys.join("ours.pub").to_str().unwrap());
    system.start_daemon().await;
    refuses(&system, 13, "/rtos-2.mender").await;
    *offered.lock().unwrap() = unsigned;
    refuses(&system, 13, "only signed Artifacts are accepted").await;
    *offered.lock().unwrap() = wrong;
    refuses(&system, 14, "its payload type \"single-file\" is not the Interface").await;
    *offered.lock().unwrap() = ours;
    install_well(&system).await;
}
