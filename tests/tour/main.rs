//! A tour of the virtual PLCs, on a machine that is booted for it: `make tour-vplc` prints it.
//!
//! The machine has systemd, Docker and orchestratord with its unit; its one link is plugged into the switch of a plant, which is
//! another network namespace. There a Modbus client asks the PLCs that is not ours (`mbpoll`). What is printed are the commands
//! as they were run and what they said; what each of them has to bring about is checked.

#![allow(clippy::unwrap_used, reason = "a test")]

mod stage;

use std::time::{Duration, Instant};

use crate::stage::{PATIENCE, Stage, note, title};

/// The first vPLC; the second one differs in its name and address.
const PRESS: &str = "\
api_version: orchestrator/v1
kind: vplc
name: press1
image: {reference: 'plc/runtime:4.1.9', pull: never}
nics:
  - {name: eth0, parent: host0, addresses: [192.0.2.11/24]}
data: {path: /var/run/runtime}
memory: 256M
program: {}
";

/// Another one after each boot.
const BOOT: &str = "cat /proc/sys/kernel/random/boot_id";

#[test]
fn a_tour_of_virtual_plcs() {
    let Some(mut stage) = Stage::new("a_tour_of_virtual_plcs") else { return };
    stage.file("press1.yaml", PRESS);
    stage.file("press2.yaml", &PRESS.replace("press1", "press2").replace("192.0.2.11", "192.0.2.12"));
    let before = stage.left();

    made_and_programmed(&stage);
    crashes(&stage);
    reboots(&mut stage);

    title("Deleted, nothing is left");
    stage.run("orchestratorctl vplc delete press1");
    stage.run("orchestratorctl vplc delete press2");
    stage.run("orchestratorctl vplc list");
    stage.run("docker ps --all --quiet; docker volume ls --quiet; ls /var/lib/mender-orchestrator/vplcs");
    assert_eq!(stage.left(), before);
    stage.refused_in_plant("mbpoll -q -1 -t 4 -r 1 -c 3 192.0.2.11");
}

fn made_and_programmed(stage: &Stage) {
    title("A virtual PLC from a file, on a machine without a registry");
    stage.run("cat press1.yaml");
    stage.run("orchestratorctl vplc apply --dry-run press1.yaml");
    stage.run("orchestratorctl vplc apply --image plc.tar press1.yaml");
    stage.run("orchestratorctl vplc list");
    stage.in_plant("ping -c 1 -W 5 192.0.2.11");

    title("A PLC program, and a Modbus client in the plant that reads from it");
    stage.run("orchestratorctl vplc deploy press1 program-11.zip");
    stage.in_plant("mbpoll -q -1 -t 4 -r 1 -c 3 192.0.2.11");
    assert_eq!(stage.plant.program(11), Some(11));
    stage.run("orchestratorctl vplc deploy press1 program-12.zip");
    assert_eq!(stage.plant.program(11), Some(12));

    title("A program that does not compile: the one before it runs again");
    stage.fails("orchestratorctl vplc deploy press1 broken.zip");
    stage.in_plant("mbpoll -q -1 -t 4 -r 1 -c 3 192.0.2.11");
    assert_eq!(stage.plant.program(11), Some(12));
    stage.run("orchestratorctl vplc show press1");
    stage.run("orchestratorctl vplc shell press1 ip address show dev eth0");
}

fn crashes(stage: &Stage) {
    title("The daemon is killed while a client polls every 20 ms");
    let poll = stage.plant.poll(11);
    for _ in 0..2 {
        stage.run("systemctl kill --kill-who=main --signal=KILL orchestratord");
        stage.wait_for("orchestratorctl vplc list | grep -q 'press1  running  running'");
        std::thread::sleep(Duration::from_secs(1));
    }
    let polls = poll.end();
    note(&format!(
        "{} polls were answered, {} were not; the slowest took {:?}",
        polls.good, polls.failed, polls.longest
    ));
    assert!(polls.good > 0 && polls.failed == 0);

    title("The runtime crashes");
    stage.run("kill -KILL $(pidof stub-runtime)");
    let (after, number) = stage.plant.await_answer(11, PATIENCE);
    assert_eq!(number, 12);
    note(&format!("Modbus answers again after {after:.1?}, 3 s of which are the pause before a restart"));
    stage.wait_for("orchestratorctl vplc list | grep -q 'press1  running  running'");
    stage.run("orchestratorctl vplc list");
}

fn reboots(stage: &mut Stage) {
    title("An operator stops a vPLC, and the host reboots");
    stage.run("orchestratorctl vplc apply press2.yaml");
    stage.run("orchestratorctl vplc stop press2");
    stage.run(BOOT);
    let begun = Instant::now();
    stage.reboot("systemctl reboot");
    comes_back(stage, begun);

    title("The power fails");
    let begun = Instant::now();
    stage.cut_power();
    comes_back(stage, begun);
    stage.run("orchestratorctl vplc start press2");
    stage.in_plant("ping -c 1 -W 5 192.0.2.12");
}

/// Both vPLCs are as they were wanted before the machine booted.
fn comes_back(stage: &Stage, begun: Instant) {
    let (_, number) = stage.plant.await_answer(11, PATIENCE);
    note(&format!("Modbus of press1 answers again {:.1?} after that", begun.elapsed()));
    assert_eq!(number, 12);
    stage.run(BOOT);
    stage.wait_for("orchestratorctl vplc list | grep -q 'press1  running  running'");
    stage.wait_for("orchestratorctl vplc list | grep -q 'press2  stopped  stopped'");
    stage.run("orchestratorctl vplc list");
    stage.in_plant("mbpoll -q -1 -t 4 -r 1 -c 3 192.0.2.11");
    stage.refused_in_plant("ping -c 1 -W 1 192.0.2.12");
}
