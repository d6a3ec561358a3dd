//! What a machine has beside systemd: the daemon as it is installed, and a container engine.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::{BOOT_ID_FILE, Bench};
use crate::runtime::libraries;
use crate::{binary, repository};

/// Where a machine with the daemon sees the programs of the workspace.
pub const SHOWN: &str = "/opt/tests";
/// A shell command that puts the daemon where its unit expects it, and the program to call it with on the path.
pub const INSTALL_DAEMON: &str = "mkdir -p /usr/libexec && ln -s /opt/tests/orchestratord /usr/libexec/orchestratord && \
                                  ln -s /opt/tests/orchestratorctl /usr/bin/orchestratorctl";
/// A container engine, as Debian's package docker.io brings it, and what is needed to look into it.
const ENGINE: [&str; 5] = [
    "/usr/sbin/dockerd",
    "/usr/bin/containerd",
    "/usr/bin/containerd-shim-runc-v2",
    "/usr/sbin/runc",
    "/usr/bin/docker",
];
/// Everything in the machine is in memory; a bridge and packet filters are nothing that orchestratord would use.
const ENGINE_UNIT: &str = "[Unit]\nDescription=Container engine\n\n\
                           [Service]\nType=notify\nDelegate=yes\nKillMode=process\n\
                           ExecStart=/usr/sbin/dockerd --storage-driver=vfs --bridge=none --iptables=false --ip6tables=false\n\n\
                           [Install]\nWantedBy=multi-user.target\n";

/// The unit as it is installed where systemd does not know `notify-reload` yet.
#[must_use]
pub fn unit() -> String {
    let text = fs::read_to_string(repository().join("systemd/orchestratord.service")).unwrap();
    let mut unit = String::new();
    for line in
        text.lines().filter(|line| !line.starts_with("RestartSteps=") && !line.starts_with("RestartMaxDelaySec="))
    {
        let line = if line == "Type=notify-reload" { "Type=notify" } else { line };
        writeln!(unit, "{line}").unwrap();
        if line == "[Service]" {
            writeln!(unit, "Environment=ORCHESTRATORD_BOOT_ID_FILE={BOOT_ID_FILE}").unwrap();
        }
    }
    unit
}

impl Bench {
    /// Has the daemon with its unit, its bus policy and its polkit actions. It is there when [`INSTALL_DAEMON`] was run, and
    /// begins when its unit is started.
    #[must_use]
    pub fn with_daemon(self) -> Self {
        let repository = repository();
        self.show(binary("orchestratord").parent().unwrap(), SHOWN)
            .file("/usr/lib/systemd/system/orchestratord.service", 0o644, unit())
            .copy(
                repository.join("dbus-interfaces/org.orchestratord1.conf"),
                "/usr/share/dbus-1/system.d/org.orchestratord1.conf",
            )
            .copy(
                repository.join("dbus-interfaces/polkit/org.orchestratord1.policy"),
                "/usr/share/polkit-1/actions/org.orchestratord1.policy",
            )
    }

    /// Has the container engine of this machine as the service `docker`; none, and why, if there is none.
    pub fn with_engine(mut self) -> Result<Self, String> {
        let mut files = BTreeSet::new();
        for program in ENGINE.map(Path::new) {
            if !program.exists() {
                return Err(format!("there is no \"{}\" (Debian: docker.io)", program.display()));
            }
            files.extend(libraries(program));
            files.insert(program.to_owned());
        }
        let missing = |file: &PathBuf| !self.scratch.rootfs.join(file.strip_prefix("/").unwrap()).exists();
        let files: Vec<PathBuf> = files.into_iter().filter(missing).collect();
        for file in files {
            self = self.show(&file, file.to_str().unwrap());
        }
        // What the programs of the engine call beyond the system calls that a container has.
        self.options.push("--system-call-filter=add_key keyctl bpf".to_owned());
        Ok(self.file("/etc/systemd/system/docker.service", 0o644, ENGINE_UNIT))
    }
}
