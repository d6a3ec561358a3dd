//! The figures of the host.

use orchestratord_dbus::{HostProxy, error_reply};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{Host, PATIENCE, until};

#[tokio::test]
async fn figures_are_those_of_this_machine() {
    let host = Host::start(|_| ()).await;
    let figures = HostProxy::new(&host.client).await.unwrap();
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = info.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(figures.memory_total().await.unwrap(), total * 1024);
    assert!(figures.memory_used().await.unwrap() < total * 1024);
    assert!((0.0..=1.0).contains(&figures.cpu_usage().await.unwrap()));
    assert!(figures.disk_used().await.unwrap() <= figures.disk_total().await.unwrap());
    assert!(figures.uptime().await.unwrap() > 0);
    assert!(figures.load_average().await.unwrap().0 >= 0.0);
    // Nobody wanted a history.
    assert_eq!(figures.history("cpu", 0).await.unwrap(), []);
    let (name, message) = error_reply(&figures.history("speed", 0).await.unwrap_err()).unwrap();
    assert_eq!(name, "org.freedesktop.DBus.Error.InvalidArgs");
    assert!(message.starts_with("There is no metric \"speed\"; known are \"cpu\", "), "{message}");
}

#[tokio::test]
async fn the_socket_serves_what_the_bus_does() {
    let mut host = Host::new(|_| ()).await;
    let socket = host.place().join("metrics");
    // One that a killed daemon left behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let options = serde_json::json!({ "Runner": "process", "RebootCommand": ["/bin/false"], "MetricsSocket": socket });
    host.configure(&options.to_string());
    host.start_daemon().await;
    // A peer who says nothing does not keep others from being served.
    let _silent = tokio::net::UnixStream::connect(&socket).await.unwrap();
    for _ in 0..10 {
        let mut peer = tokio::net::UnixStream::connect(&socket).await.unwrap();
        peer.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut reply = String::new();
        tokio::time::timeout(PATIENCE, peer.read_to_string(&mut reply)).await.unwrap().unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("application/openmetrics-text"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.starts_with("# TYPE orchestratord_host_") && body.ends_with("# EOF\n"), "{body}");
    }
}

#[tokio::test]
async fn a_history_is_kept_if_it_is_wanted() {
    let mut host = Host::new(|_| ()).await;
    host.configure("{ \"Runner\": \"process\", \"RebootCommand\": [\"/bin/false\"], \"HostHistory\": true }");
    host.start_daemon().await;
    let figures = HostProxy::new(&host.client).await.unwrap();
    let points = until("two samples", async || {
        let points = figures.history("memory", 0).await.unwrap();
        (points.len() >= 2).then_some(points)
    })
    .await;
    assert!(points[1].0 >= points[0].0 && points.iter().all(|(_, share)| (0.0..=1.0).contains(share)), "{points:?}");
    assert!(figures.history("memory", points[1].0 + 1).await.unwrap().len() < points.len());
}
