//! Ctrl-C and its relatives. A deployment is never given up because somebody stopped watching it.

use orchestratord::core::error::Kind;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Waits for a signal that asks this program to end.
#[derive(Debug)]
pub struct Interrupt {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Interrupt {
    /// Takes the signals over. A signal that our parent had ignored, as `nohup` and background jobs of a script do,
    /// stays ignored.
    pub fn new() -> Result<Self, Failure> {
        let ignored = ignored_signals();
        let take = |kind: SignalKind| {
            let bit = 1_u64.checked_shl(kind.as_raw_value().unsigned_abs() - 1).unwrap_or_default();
            if ignored & bit != 0 {
                return Ok(None);
            }
            let taken = signal(kind).map(Some);
            taken.map_err(|error| Failure::new(Kind::Failed, format!("Cannot wait for signals: {error}.")))
        };
        Ok(Self { interrupt: take(SignalKind::interrupt())?, terminate: take(SignalKind::terminate())? })
    }

    /// Exit code after a signal, once one has come: 130 for Ctrl-C, 143 for a request to terminate.
    pub async fn wait(&mut self) -> u8 {
        tokio::select! {
            () = received(self.interrupt.as_mut()) => 130,
            () = received(self.terminate.as_mut()) => 143,
        }
    }
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The set of ignored signals, bit 0 for signal 1, as the kernel shows it; empty without /proc.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
