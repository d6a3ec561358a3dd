//! What a machine is told, and what it says.

use std::time::Duration;

use crate::core::error::Error;
use crate::vplc::engine::Container;
use crate::vplc::spec::{Restart, Unhealthy};
use crate::vplc::store::{Latch, Wanted};

/// What the machine goes by; comes from the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What is wanted.
    pub wanted: Wanted,
    /// The generation of containers that is wanted.
    pub generation: u64,
    /// What happens when the runtime ends by itself.
    pub restart: Restart,
    /// What happens when it is not well.
    pub unhealthy: Unhealthy,
    /// Why it is not started any more.
    pub latch: Option<Latch>,
    /// The container that the runtime was claimed in; none if nobody claims it.
    pub claim: Option<Claim>,
    /// This generation is on trial: the first end of its runtime by itself is the last, and its PLC is proved.
    pub trial: bool,
    /// How long it may take until the runtime is healthy.
    pub health_limit: Duration,
}

/// The daemon makes the runtime its own, once in each container and before that is on any network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What the engine calls the container that was claimed last.
    pub container: Option<String>,
}

/// What the engine has of a vPLC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight {
    /// The container that holds the network namespace.
    pub holder: Option<Container>,
    /// The PLC.
    pub runtime: Option<Container>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The engine answers, or does not any more.
    Engine(bool),
    /// Those that come before it at the start of the daemon are done.
    Turn,
    /// This holds from now on; an operator or the start of the daemon said so. `nics` if its NICs are others.
    Rules {
        /// What holds.
        rules: Rules,
        /// Its NICs are others than before.
        nics: bool,
    },
    /// The operator wants the runtime to be stopped and started.
    Again,
    /// Something happened to a container.
    Stirred,
    /// This is what the engine has, at this time since the daemon's start.
    Seen(Sight, Duration),
    /// The effect is done.
    Done,
    /// The runtime is the daemon's own, with this reason if its program does not run there.
    Claimed(Option<Error>),
    /// The runtime ended while it was claimed or its PLC was proved.
    Ended,
    /// The effect failed.
    Failed(Error),
    /// The last lines of output.
    Lines(Vec<String>),
    /// The pause before a restart, or before another try, is over.
    PauseOver,
    /// The runtime had time enough to show whether it stays.
    Proved,
    /// The runtime had time enough to get healthy.
    Late,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Look what the engine has, and report it as `Seen`.
    Look,
    /// See to it that the image is here.
    FetchImage,
    /// Make the holder.
    CreateHolder,
    /// Start the holder.
    StartHolder,
    /// Make the NICs in the namespace of this process.
    AttachNics {
        /// Its number.
        pid: i32,
    },
    /// Make the runtime.
    CreateRuntime,
    /// Start the runtime.
    StartRuntime,
    /// Make the runtime in this container the daemon's own, and bring it the program that the former one had.
    Claim {
        /// What the engine calls it.
        container: String,
    },
    /// See that the PLC runs, if it has to.
    ProvePlc {
        /// What the engine calls the container of the runtime.
        container: String,
    },
    /// Stop the runtime, with the grace it has.
    StopRuntime,
    /// Remove the runtime.
    RemoveRuntime,
    /// Remove the NICs.
    DetachNics,
    /// Stop the holder.
    StopHolder,
    /// Remove the holder.
    RemoveHolder,
    /// Remove the volume.
    RemoveData,
    /// Read the last lines of output, and report them as `Lines`.
    ReadLines,
    /// Put the latch on record.
    KeepLatch(Latch),
    /// Report `PauseOver` after this time.
    Pause(Duration),
    /// Report `Proved` after this time.
    Prove(Duration),
    /// Report `Late` after this time.
    Await(Duration),
    /// Report `PauseOver` after a while that grows with the number of failures before.
    Retry {
        /// Failures in a row before this one.
        failures: u32,
    },
    /// Nothing is left: forget the vPLC.
    Vanish,
}
