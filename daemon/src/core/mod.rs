//! Building blocks that know no domain and no bus.

pub mod error;
pub mod job;
pub mod name;
pub mod store;
