//! Brings a link in line with a lease. What is right already is not touched.

use std::net::IpAddr;

use super::lease::Lease;
use crate::network::kernel::{KernelError, Port, Route};

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

    /// Sets what is not set yet: address, routes, MTU. `before` is the lease that it was in line with.
    pub async fn apply(&self, lease: &Lease, before: Option<&Lease>) -> Result<(), KernelError> {
        let now = self.port.snapshot().await?;
        if lease.mtu.is_some() || before.is_some_and(|before| before.mtu.is_some()) {
            let is = now.links.iter().find(|link| link.index == self.link).map(|link| link.mtu);
            self.fit_mtu(lease, is).await;
        }
        if !now.addresses.iter().any(|found| found.link == self.link && found.address == lease.prefixed()) {
            self.port.add_address(self.link, lease.prefixed()).await?;
        }
        let there = self.port.leased_routes(self.link).await?;
        let wanted = self.routes(lease);
        for route in wanted.iter().filter(|route| !there.contains(route)) {
            self.port.set_route(self.link, *route).await?;
        }
        // One with the same destination and metric was replaced.
        let replaced =
            |old: &Route| wanted.iter().any(|new| new.destination == old.destination && new.metric == old.metric);
        for route in there.iter().filter(|route| !wanted.contains(route) && !replaced(route)) {
            self.port.remove_route(self.link, *route).await?;
        }
        Ok(())
    }

    /// Takes everything away that came with a lease.
    pub async fn withdraw(&self, lease: &Lease) -> Result<(), KernelError> {
        for route in self.port.leased_routes(self.link).await? {
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
        };
        // Those on the link come first, because a router may be behind them.
        let (near, far): (Vec<Route>, Vec<Route>) =
            lease.routes.iter().map(route).partition(|route| route.gateway.is_none());
        [near, far].concat()
    }
}
