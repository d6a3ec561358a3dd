use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::*;

fn observed(real_time: bool) -> Observed {
    let thread = |name: &str, real_time| Thread { name: name.to_owned(), real_time, cpus: BTreeSet::from([2, 3]) };
    Observed {
        threads: vec![thread("python3", false), thread("plc_main", real_time)],
        priority_limit: 99,
        locked_memory_limit: u64::MAX,
    }
}

fn wanted() -> Wanted {
    Wanted { priority: Some(99), locked_memory: Some(u64::MAX), cpus: Some(BTreeSet::from([2, 3])) }
}

#[test]
fn all_that_was_asked_for_is_granted_once_it_is_seen() {
    let granted = RealTime { grant: Grant::Granted, reason: String::new() };
    assert_eq!(assess(&wanted(), &observed(true), true), granted);
    // Before a program runs, nothing can be seen.
    let off = assess(&wanted(), &observed(false), false);
    assert_eq!((off.grant, off.reason.as_str()), (Grant::Off, "No program runs whose threads could be looked at."));
    assert_eq!(assess(&Wanted::default(), &observed(true), true).grant, Grant::Off);
}

#[test]
fn what_is_asked_for_comes_from_the_specification() {
    let check_nic = |section: &mut crate::core::document::Section<'_>| Ok(section.required("name")?.text()?.to_owned());
    let parse = |more: &str| {
        let text =
            format!("api_version: orchestrator/v1\nkind: vplc\nname: a\nimage: {{reference: \"plc:1\"}}\n{more}");
        Wanted::of(&Spec::parse(&text, check_nic).unwrap())
    };
    assert!(parse("").is_nothing());
    assert_eq!(parse("cpuset: 2-3\nreal_time: {priority: 99}\n"), wanted());
    let limited = Wanted { priority: Some(1), locked_memory: Some(65536), cpus: None };
    assert_eq!(parse("real_time: {priority: 1, locked_memory: 64K}\n"), limited);
}

#[test]
fn each_lack_has_its_reason() {
    let lack = |change: &dyn Fn(&mut Observed), reason: &str| {
        let mut observed = observed(true);
        change(&mut observed);
        let found = assess(&wanted(), &observed, true);
        assert_eq!(found.grant, Grant::Degraded, "{reason}");
        assert!(found.reason.contains(reason), "{}", found.reason);
    };
    lack(&|observed| observed.threads[1].real_time = false, "None of its threads has a real-time policy");
    lack(&|observed| observed.priority_limit = 0, "The limit \"rtprio\" is 0, and 99 was asked for.");
    lack(
        &|observed| observed.locked_memory_limit = 65536,
        "The limit \"memlock\" is 65536 bytes, and no limit was asked for.",
    );
    lack(
        &|observed| observed.threads[1].cpus = BTreeSet::from([0, 1, 2, 3]),
        "1 of its threads may run on other processors than asked for, such as \"plc_main\".",
    );
    // A limit that is too low is seen before any program runs.
    let early = Observed { priority_limit: 0, ..observed(false) };
    assert_eq!(assess(&wanted(), &early, false).grant, Grant::Degraded);
}

#[test]
fn lists_of_processors_are_read_as_the_kernel_writes_them() {
    assert_eq!(cpu_list(" 0-2,4\n"), Some(BTreeSet::from([0, 1, 2, 4])));
    assert_eq!(cpu_list(""), Some(BTreeSet::new()));
    for bad in ["a", "3-1", "1-", "0-4294967295", "-1"] {
        assert_eq!(cpu_list(bad), None, "{bad}");
    }
}

#[test]
fn limits_are_read_from_the_table_of_the_kernel() {
    let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max locked memory         8388608              unlimited            bytes     \n\
                 Max realtime priority     0                    99                   \n";
    assert_eq!(limit(table, "Max locked memory"), Some(8_388_608));
    assert_eq!(limit(table, "Max realtime priority"), Some(0));
    assert_eq!(limit(&table.replace("8388608", "unlimited"), "Max locked memory"), Some(u64::MAX));
    assert_eq!(limit(table, "Max file locks"), None);
}

/// A process with a child, both pinned to one processor, and the child under a policy of real time if the machine lets us.
#[test]
fn threads_of_a_real_process_and_its_children_are_seen() {
    let script = "if chrt -f 7 true; then chrt -f 7 sleep 300 & else sleep 300 & fi; wait";
    let mut process = Command::new("taskset")
        .args(["-c", "0", "sh", "-c", script])
        .stderr(Stdio::null())
        .spawn()
        .expect("\"taskset\" (Debian: util-linux) can be started");
    let observe = || Observed::of(Process::of(i32::try_from(process.id()).unwrap())?);
    let begun = Instant::now();
    let found = loop {
        let found = observe();
        let settled = found.as_ref().is_ok_and(|found| found.threads.iter().any(|thread| thread.name == "sleep"));
        if settled || begun.elapsed() > Duration::from_mins(1) {
            break found;
        }
        sleep(Duration::from_millis(10));
    };
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.id())).unwrap_or_default();
    for child in children.split_whitespace() {
        drop(Command::new("kill").arg(child).status());
    }
    drop(process.kill());
    drop(process.wait());
    let found = found.unwrap();
    assert_eq!(found.threads.len(), 2, "{found:?}");
    assert!(found.threads.iter().all(|thread| thread.cpus == BTreeSet::from([0])), "{found:?}");
    let wanted = Wanted { priority: Some(1), cpus: Some(BTreeSet::from([0])), locked_memory: None };
    let assessed = assess(&wanted, &found, true);
    if found.threads.iter().any(|thread| thread.real_time) {
        let fifo = found.threads.iter().find(|thread| thread.real_time).unwrap();
        assert_eq!(fifo.name, "sleep");
    } else {
        eprintln!(
            "SKIPPED in part threads_of_a_real_process_and_its_children_are_seen: this machine grants no SCHED_FIFO"
        );
        assert_eq!(assessed.grant, Grant::Degraded);
    }
}
