//! `orchestratorctl` on the network of a host.

use std::process::{Command, Stdio};

use orchestrator_tests::binary;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::rig::{Host, PATIENCE, until};

fn orchestratorctl(host: &Host, words: &str) -> tokio::process::Command {
    let mut command = Command::new(binary("orchestratorctl"));
    host.environment(&mut command);
    command.args(words.split(' ')).stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    command
}

/// Exit code, standard output, standard error.
async fn run(host: &Host, words: &str) -> (i32, String, String) {
    let output = tokio::time::timeout(PATIENCE, orchestratorctl(host, words).output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn host() -> Host {
    let host = Host::start(|net| {
        net.ip("link add lan0 address 02:00:00:00:00:07 type veth peer name lan0-far");
        net.ip("link set lan0-far up");
        net.ip("link set lan0 up");
        net.ip("address add 192.0.2.7/24 dev lan0");
        net.ip("route add default via 192.0.2.1 dev lan0");
    })
    .await;
    until("the host is online", async || host.network().await.online().await.unwrap().then_some(())).await;
    host
}

#[tokio::test]
async fn links_are_listed_and_shown() {
    let host = host().await;
    let (code, text, _) = run(&host, "link list").await;
    assert_eq!(code, 0);
    assert_eq!(run(&host, "link").await.1, text);
    assert!(text.starts_with("LINK"), "{text}");
    let line = text.lines().find(|line| line.starts_with("lan0 *")).unwrap_or_else(|| panic!("{text}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..7], ["lan0", "*", "veth", "up", "yes", "02:00:00:00:00:07", "1500"], "{line}");
    assert_eq!(words.last(), Some(&"192.0.2.1"), "{line}");

    let (_, text, _) = run(&host, "--json link list").await;
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&all["default_link"], &all["online"]), (&json!("lan0"), &json!(true)));
    let (_, text, _) = run(&host, "--json link show lan0").await;
    let one: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&one["link"]["kind"], &one["link"]["carrier"]), (&json!("veth"), &json!(true)));
    assert!(one["statistics"]["tx-packets"].as_u64().is_some(), "{one}");
    let (_, text, _) = run(&host, "link show lan0").await;
    assert!(text.contains("Gateway:            192.0.2.1\n") && text.contains("rx-bytes:"), "{text}");
    assert_eq!(
        run(&host, "link show lan9").await,
        (31, String::new(), "orchestratorctl: There is no link \"lan9\".\n".to_owned())
    );
}

#[tokio::test]
async fn metrics_are_openmetrics() {
    let host = host().await;
    let (code, text, _) = run(&host, "metrics").await;
    assert_eq!(code, 0);
    assert!(text.contains("\norchestratord_host_memory_size_bytes ") && text.ends_with("# EOF\n"), "{text}");
    let (_, json, _) = run(&host, "--json metrics").await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["metrics"].as_str().unwrap().starts_with("# TYPE "), "{json}");
}

#[tokio::test]
async fn watch_network_prints_what_changes() {
    let mut host = host().await;
    let mut watch = orchestratorctl(&host, "--json watch network").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async |event: &str, change: &str, name: &str| loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("a line").unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let of = line["link"]["name"]
            .as_str()
            .or(line["nic"]["name"].as_str())
            .or(line["default_link"].as_str())
            .unwrap_or_default();
        if line["event"] == event && (change.is_empty() || line["change"] == change) && of == name {
            return line;
        }
    };
    assert_eq!(next("network", "", "lan0").await["online"], json!(true));
    next("link", "present", "lan0-far").await;
    host.net.ip("link add br0 type bridge");
    next("link", "added", "br0").await;
    host.net.ip("link set lan0 mtu 1400");
    while next("link", "changed", "lan0").await["link"]["mtu"] != json!(1400) {}
    host.net.ip("link del br0");
    next("link", "removed", "br0").await;
    // NICs, and what comes after a restart of the daemon.
    let text = "kind: nic\nname: shim0\ntype: shim\nparent: lan0\naddresses: [192.0.2.250/32]\nconflict: warn\n";
    crate::nics::attach(&host, text).await;
    assert_eq!(next("nic", "added", "shim0").await["nic"]["parent"], json!("lan0"));
    while next("nic", "changed", "shim0").await["nic"]["state"] != json!("up") {}
    host.kill_daemon();
    next("vanished", "", "").await;
    host.start_daemon().await;
    while next("nic", "", "shim0").await["nic"]["state"] != json!("up") {}
    watch.kill().await.unwrap();
}

#[tokio::test]
async fn a_nic_is_attached_shown_and_detached() {
    let (host, plc) = (host().await, crate::rig::Namespace::new());
    let file = host.place().join("plc0.yaml");
    let spec = |parent: &str| {
        let place = format!("pid: {}", plc.pid());
        format!("kind: nic\nname: plc0\nparent: {parent}\n{place}\naddresses: [192.0.2.8/24]\nconflict: warn\n")
    };
    std::fs::write(&file, spec("lan9")).unwrap();
    let attach = format!("nic attach {}", file.display());
    assert_eq!(
        run(&host, &attach).await,
        (31, String::new(), "orchestratorctl: There is no link \"lan9\".\n".to_owned())
    );
    std::fs::write(&file, spec("lan0")).unwrap();
    let (code, text, error) = run(&host, &attach).await;
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(text.contains("State:      up\n") && text.contains("Addresses:  192.0.2.8/24\n"), "{text}");
    assert!(plc.ip("address").contains("192.0.2.8/24"));
    let (_, text, _) = run(&host, "--json nic list").await;
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&all["nics"][0]["name"], &all["nics"][0]["state"]), (&json!("plc0"), &json!("up")));
    assert!(
        run(&host, "nic show plc0").await.1.starts_with("NIC:        plc0\nType:       macvlan\nParent:     lan0\n")
    );
    assert_eq!(run(&host, "nic").await.1, run(&host, "nic list").await.1);
    assert_eq!(run(&host, "nic detach plc0").await.0, 0);
    assert!(!plc.ip("link").contains("plc0"));
    assert_eq!(run(&host, "nic show plc0").await.2, "orchestratorctl: There is no NIC \"plc0\".\n");

    // One that leases its address.
    let dhcp = spec("lan0").replace("[192.0.2.8/24]", "dhcp\nhostname: press-7");
    std::fs::write(&file, dhcp).unwrap();
    assert_eq!(run(&host, &format!("nic attach --wait {}", file.display())).await.0, 0);
    let (_, text, _) = run(&host, "--json nic show plc0").await;
    let one: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&one["nic"]["mode"], &one["nic"]["lease_expires"]), (&json!("dhcp"), &json!(0)));
    assert_eq!((&one["nic"]["dns"], &one["nic"]["domain"]), (&json!([]), &json!("")));
    let (_, text, _) = run(&host, "nic show plc0").await;
    assert!(text.contains("Mode:       dhcp\n") && text.contains("Lease ends: -\n"), "{text}");
    assert_eq!(run(&host, "nic detach plc0").await.0, 0);

    // A conflict ends the command with its own exit code; the daemon goes on trying.
    host.net.ip("address add 192.0.2.8/24 dev lan0-far");
    std::fs::write(&file, spec("lan0").replace("conflict: warn", "conflict: refuse")).unwrap();
    let (code, _, error) = run(&host, &attach).await;
    assert_eq!(code, 32, "{error}");
    assert!(error.contains("is in use by"), "{error}");
}
