//! Building blocks that know no domain and no bus.

pub mod audit;
pub mod document;
pub mod error;
pub mod history;
pub mod job;
pub mod name;
pub mod open_metrics;
pub mod settings;
pub mod store;
