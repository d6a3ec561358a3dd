//! The figures of the host.

use orchestratord_dbus::{HostProxy, error_reply};

use crate::rig::{Host, until};

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
