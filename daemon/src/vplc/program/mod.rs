//! PLC programs: kept in versions, put on the runtime of a vPLC, proved to run there, and taken back if they do not.
//!
//! The runtime compiles a program on the device, and throws away the old one before it has a new one; so the way back is the old
//! program's archive, uploaded and compiled again. What is to be done is on disk before it is done, and a deployment that the
//! end of the daemon interrupts goes on at the next start ([`Programs::resume`]).
//!
//! [`archive`] looks at what is to be uploaded, [`store`] keeps it, [`machine`] decides what comes next, `deploy` does it, and
//! [`runtime`] speaks to the runtime. [`Programs`] is the door.

pub mod archive;
mod deploy;
pub mod machine;
mod programs;
pub mod runtime;
pub mod store;

use std::time::Duration;

pub use machine::Outcome;
pub use programs::{ProgramStatus, Programs};

use crate::core::job::{JobReporter, LogLine, Severity};

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// One request to the runtime and its whole answer.
    pub answer: Duration,
    /// An upload and its answer, which comes after the runtime has stopped the running program.
    pub upload: Duration,
    /// A compilation.
    pub compile: Duration,
    /// From the start of a program until it is RUNNING.
    pub start: Duration,
    /// How long a program has to be RUNNING to count as good.
    pub steady: Duration,
    /// How long the runtime may be silent or busy while a deployment waits for it: it shares its processor with the compiler.
    pub silence: Duration,
    /// Between two looks at something that is awaited.
    pub pace: Duration,
}

impl Default for Patience {
    /// For hardware of the size of a Raspberry Pi.
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            upload: Duration::from_mins(5),
            compile: Duration::from_mins(30),
            start: Duration::from_secs(90),
            steady: Duration::from_secs(10),
            silence: Duration::from_mins(2),
            pace: Duration::from_secs(1),
        }
    }
}

/// Whoever follows a deployment.
pub trait Progress: Send + Sync {
    /// How far it is, from 0 to 1, and what is being done.
    fn report(&self, progress: f64, step: &str);
    /// A line of the compiler, or about what went wrong.
    fn line(&self, severity: Severity, message: String);
}

impl Progress for JobReporter {
    fn report(&self, progress: f64, step: &str) {
        Self::report(self, progress, step);
    }

    fn line(&self, severity: Severity, message: String) {
        self.log(LogLine { severity, component: String::new(), message });
    }
}
