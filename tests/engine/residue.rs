//! What is left when vPLCs were made and removed many times: nothing.

use std::collections::BTreeSet;
use std::fs;

use crate::rig::{Host, NIC, spec, until};

/// Runs until it is asked to end, and ends at once then.
const RUNS: &str = "trap 'exit 0' TERM; sleep 100000 & wait";
/// Descriptors and threads that may come and go.
const SLACK: usize = 4;
/// KiB that the daemon may grow.
const GROWTH: u64 = 8 << 10;

/// Network namespaces that a process is in, and mounts that this process sees.
fn kernel() -> (usize, usize) {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let namespaces: BTreeSet<_> =
        processes.filter_map(|entry| fs::read_link(entry.path().join("ns/net")).ok()).collect();
    (namespaces.len(), fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count())
}

/// `ENGINE_CYCLES` says how often; 5 if nobody does.
#[tokio::test]
async fn making_and_removing_leaves_nothing_behind() {
    let Some(host) = Host::start("making_and_removing_leaves_nothing_behind").await else { return };
    let cycles = std::env::var("ENGINE_CYCLES").map_or(5, |cycles| cycles.parse().expect("a number"));
    let spec = spec(RUNS, &format!("{NIC}data: {{path: /data}}\n"));
    // What is made once is made now.
    host.run(&spec).await;
    host.delete().await;
    let (before, weight) = (host.residue(), host.weight());
    let kernel_before = kernel();
    for _ in 0..cycles {
        host.run(&spec).await;
        host.delete().await;
        assert_eq!(host.residue(), before);
    }
    until("descriptors and threads are as before", async || {
        let now = host.weight();
        (now.descriptors <= weight.descriptors + SLACK && now.threads <= weight.threads + SLACK).then_some(())
    })
    .await;
    let now = host.weight();
    eprintln!("{cycles} cycles: {weight:?} before, {now:?} after");
    assert!(now.resident <= weight.resident + GROWTH, "{weight:?} before, {now:?} after");
    // Those of other tests come and go.
    if cycles > 20 {
        assert!(
            kernel().0 <= kernel_before.0 + SLACK,
            "network namespaces: {kernel_before:?} before, {:?} after",
            kernel()
        );
        assert!(kernel().1 <= kernel_before.1 + SLACK, "mounts: {kernel_before:?} before, {:?} after", kernel());
    }
}

/// What the daemon holds for each vPLC that runs: `-- --nocapture what_a_vplc_costs` prints it.
#[tokio::test]
async fn what_a_vplc_costs_the_daemon_is_bounded() {
    let Some(host) = Host::start("what_a_vplc_costs_the_daemon_is_bounded").await else { return };
    let nothing = host.weight();
    let mut weights = Vec::new();
    for number in 1..=4_u8 {
        let name = format!("press{number}");
        let own = spec(RUNS, NIC).replace("press1", &name).replace("192.0.2.7", &format!("192.0.2.{}", 10 + number));
        let (result, _, message) = host.apply(&own).await;
        assert_eq!(result, "done", "{message}");
        weights.push(host.weight());
    }
    eprintln!("without a vPLC: {nothing:?}; with 1, 2, 3 and 4: {weights:?}");
    let (first, last) = (weights[0], weights[3]);
    assert!(last.resident <= first.resident + 3 * 1024, "more than 1 MiB for each");
    assert!(last.descriptors <= first.descriptors + 3 * 8, "more than 8 descriptors for each");
}
