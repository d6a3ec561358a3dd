//! vPLCs: virtual PLCs as containers, kept as their specifications say.
//!
//! Each vPLC is two containers. The *holder* does nothing but hold the network namespace; its NICs are made in there. The
//! *runtime* is the PLC and joins the namespace of the holder. So the NICs are there before the first instruction of the
//! runtime, and stay untouched when the runtime is restarted. A container without our label is never touched.

pub mod actor;
pub mod engine;
pub mod handle;
pub mod machine;
pub mod nics;
pub mod process;
pub mod program;
pub mod realtime;
pub mod serial;
pub mod session;
pub mod spec;
pub mod store;
pub mod usage;
pub mod worker;
