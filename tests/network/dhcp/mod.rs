//! NICs that lease their address, against real servers.

mod hostile;
mod lifecycle;
mod networks;
pub mod servers;
mod times;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use orchestratord_dbus::NicProxy;

use crate::rig::{Host, Namespace, until};

/// The specification of a NIC that leases its address.
fn leased(plc: &Namespace, more: &str) -> String {
    format!("kind: nic\nname: plc0\nparent: lan0\npid: {}\naddresses: dhcp\n{more}", plc.pid())
}

/// What `ip monitor` reports about links, addresses and routes of a namespace.
struct Monitor {
    child: Child,
    log: PathBuf,
}

impl Monitor {
    async fn start(host: &Host, net: &Namespace, name: &str) -> Self {
        let log = host.place().join(format!("monitor-{name}"));
        let mut command = net.command("ip");
        command.args(["monitor", "link", "address", "route"]).stdout(File::create(&log).unwrap()).stderr(Stdio::null());
        let monitor = Self { child: command.spawn().unwrap(), log };
        // It listens once it reports a link that comes.
        until("the monitor listens", async || {
            net.ip("link add probe0 type bridge");
            net.ip("link del probe0");
            monitor.text().contains("probe0").then_some(())
        })
        .await;
        let settled = async || {
            let before = monitor.text();
            tokio::time::sleep(Duration::from_millis(50)).await;
            monitor.text() == before
        };
        until("the monitor is quiet", async || settled().await.then_some(())).await;
        std::fs::OpenOptions::new().write(true).truncate(true).open(&monitor.log).unwrap();
        monitor
    }

    fn text(&self) -> String {
        let text = std::fs::read(&self.log).unwrap();
        // The file was cut; its writer goes on where it was.
        String::from_utf8_lossy(&text).trim_start_matches('\0').to_owned()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until the NIC has this address, by the bus and by the kernel.
async fn has(nic: &NicProxy<'_>, plc: &Namespace, address: &str) {
    until(&format!("the NIC has {address}"), async || {
        let shown = nic.addresses().await.unwrap().iter().any(|shown| shown == address);
        (shown && plc.ip("-4 address show dev plc0").contains(address)).then_some(())
    })
    .await;
}
