//! Brings a link in line with a lease. What is right already is not touched.

use std::net::IpAddr;

use super::lease::Lease;
use crate::network::kernel::{KernelError, Origin, Port, Route};

/// A link that has its address by DHCP.
#[derive(Debug, Clone, Copy)]
pub struct Leased<'a> {
    /// The way into its namespace.
    pub port: &'a dyn Port,
    /// Its number.
    pub link: u32,
    /// Metric of its routes.
    pub metric: u32,
    /// Whether its MTU is given, whatever a server says.
    pub fixed_mtu: bool,
    /// The MTU of the link that it hangs on.
    pub parent_mtu: Option<u32>,
}

impl Leased<'_> {
    /// Takes away the address of `before`, unless `lease` has it, too. This comes before the new lease is on disk: whoever
    /// dies in between leaves no address on the link that nobody knows of.
    pub async fn make_room(&self, before: &Lease, lease: &Lease) -> Result<(), KernelError> {
        if before.prefixed() == lease.prefixed() {
            return Ok(());
        }
        self.remove_address(before).await
    }

    /// Sets what is not set yet: address, routes, MTU. `before` is the lease that it was in line with. A route that cannot be
    /// set, such as one by a router that is nobody's or that somebody else has set, is no reason to be without an address:
    /// the others are set, and why that one is not is returned.
    pub async fn apply(&self, lease: &Lease, before: Option<&Lease>) -> Result<Option<KernelError>, KernelError> {
        let now = self.port.snapshot().await?;
        if lease.mtu.is_some() || before.is_some_and(|before| before.mtu.is_some()) {
            let is = now.links.iter().find(|link| link.index == self.link).map(|link| link.mtu);
            self.fit_mtu(lease, is).await;
        }
        if !now.addresses.iter().any(|found| found.link == self.link && found.address == lease.prefixed()) {
            self.port.add_address(self.link, lease.prefixed()).await?;
        }
        let there = self.port.routes(self.link, Origin::Lease).await?;
        let wanted = self.routes(lease);
        let same_place =
            |one: &Route, other: &Route| one.destination == other.destination && one.metric == other.metric;
        let mut refused = None;
        for route in wanted.iter().filter(|route| !there.contains(route)) {
            // In place of one of ours in one step, but never in place of one of somebody else.
            let set = if there.iter().any(|old| same_place(old, route)) {
                self.port.set_route(self.link, *route).await
            } else {
                self.port.claim_route(self.link, *route).await.and_then(|is_ours| self.check(*route, is_ours))
            };
            if let Err(error) = set {
                refused.get_or_insert(error);
            }
        }
        let replaced = |old: &Route| wanted.iter().any(|new| same_place(old, new));
        for route in there.iter().filter(|route| !wanted.contains(route) && !replaced(route)) {
            self.port.remove_route(self.link, *route).await?;
        }
        Ok(refused)
    }

    fn check(&self, route: Route, is_ours: bool) -> Result<(), KernelError> {
        if is_ours {
            return Ok(());
        }
        Err(KernelError {
            action: format!("set the route to \"{}\"", route.destination),
            reason: format!(
                "there is another one with the metric {}; \"metric\" of the NIC gives another one",
                self.metric
            ),
            errno: None,
        })
    }

    /// Takes everything away that came with a lease.
    pub async fn withdraw(&self, lease: &Lease) -> Result<(), KernelError> {
        for route in self.port.routes(self.link, Origin::Lease).await? {
            self.port.remove_route(self.link, route).await?;
        }
        if lease.mtu.is_some() {
            let is =
                self.port.snapshot().await?.links.into_iter().find(|link| link.index == self.link).map(|link| link.mtu);
            self.fit_mtu(&Lease { mtu: None, ..lease.clone() }, is).await;
        }
        self.remove_address(lease).await
    }

    async fn remove_address(&self, lease: &Lease) -> Result<(), KernelError> {
        let now = self.port.snapshot().await?;
        if now.addresses.iter().any(|found| found.link == self.link && found.address == lease.prefixed()) {
            self.port.remove_address(self.link, lease.prefixed()).await?;
        }
        Ok(())
    }

    /// An MTU that cannot be had is no reason to be without an address.
    async fn fit_mtu(&self, lease: &Lease, is: Option<u32>) {
        let parent = self.parent_mtu.unwrap_or(u32::MAX);
        let Some(wanted) = lease.mtu.map(|mtu| mtu.min(parent)).or(self.parent_mtu) else { return };
        if self.fixed_mtu || is == Some(wanted) {
            return;
        }
        if let Err(error) = self.port.set_mtu(self.link, wanted).await {
            tracing::warn!("The MTU of a lease is not used. {error}");
        }
    }

    fn routes(&self, lease: &Lease) -> Vec<Route> {
        let route = |route: &super::lease::LeasedRoute| Route {
            destination: crate::network::address::Prefixed {
                address: IpAddr::V4(route.destination),
                length: route.length,
            },
            gateway: route.gateway,
            metric: self.metric,
            // Some servers have routers outside of the network; the link is the way to them.
            on_link: route.gateway.is_some_and(|gateway| !lease.is_near(gateway)),
            origin: Origin::Lease,
        };
        // Those on the link come first, because a router may be behind them.
        // The kernel sets that to the network of the address by itself.
        let own = |route: &&super::lease::LeasedRoute| {
            route.gateway.is_none() && route.length == lease.length && lease.is_near(route.destination)
        };
        let (near, far): (Vec<Route>, Vec<Route>) =
            lease.routes.iter().filter(|route| !own(route)).map(route).partition(|route| route.gateway.is_none());
        [near, far].concat()
    }
}
