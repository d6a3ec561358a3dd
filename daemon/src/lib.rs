//! orchestratord keeps a machine made of many parts in order.
//!
//! The domains ([`update`]) depend on [`core`] only. [`bus`] is a thin D-Bus face over them, [`systemd`] holds the
//! adapters to the init system, `mender_auth` the one to the Mender client, and [`supervisor`] puts the parts together.
//! The domains ([`update`], [`network`]) depend on [`core`] only. [`bus`] is a thin D-Bus face over them, [`systemd`] holds the
//! adapters to the init system, and [`supervisor`] puts the parts together.

pub mod bus;
pub mod config;
pub mod core;
pub mod logging;
mod mender_auth;
pub mod network;
pub mod startup;
pub mod supervisor;
pub mod systemd;
pub mod update;
pub mod vplc;
