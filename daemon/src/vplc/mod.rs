//! Virtual PLCs: their programs, serial ports and real-time scheduling.

pub mod process;
pub mod program;
pub mod realtime;
pub mod serial;
