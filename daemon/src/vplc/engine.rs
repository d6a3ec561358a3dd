//! The container engine, as a vPLC needs it.

pub mod docker;
mod errand;
mod plan;
#[cfg(test)]
pub mod scripted;

use std::fmt;
use std::fs::File;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

pub use self::errand::{Attached, Errand, Fate, Piece, Size, Terminal};
pub use self::plan::{Plan, Volume};
use crate::core::error::{Error, Kind};
use crate::vplc::store::Pinned;

/// The label whose value is the name of the vPLC. What does not carry it is not ours, and never touched.
pub const VPLC_LABEL: &str = "org.orchestratord1.vplc";
/// The label with the [`Role`].
pub const ROLE_LABEL: &str = "org.orchestratord1.role";
/// The label with the generation of the record that a container was made from.
pub const GENERATION_LABEL: &str = "org.orchestratord1.generation";

/// What a container is to its vPLC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Holds the network namespace and does nothing.
    Holder,
    /// Is the PLC.
    Runtime,
}

impl Role {
    /// Both, in the order in which they are made.
    pub const ALL: [Self; 2] = [Self::Holder, Self::Runtime];

    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Holder => "holder",
            Self::Runtime => "runtime",
        }
    }

    /// Name of the container. What stands before the dot keeps the names of two vPLCs apart, whatever those are.
    pub fn container(self, vplc: &str) -> String {
        match self {
            Self::Holder => format!("vplc-net.{vplc}"),
            Self::Runtime => format!("vplc.{vplc}"),
        }
    }
}

/// Name of the volume of a vPLC.
pub fn volume(vplc: &str) -> String {
    format!("vplc-data.{vplc}")
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 and the signal's number if a signal ended it.
    pub code: i64,
    /// The kernel ended it because memory ran out.
    pub out_of_memory: bool,
}

/// Whether a container is well, as far as somebody asks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wellness {
    /// Nobody asks.
    #[default]
    Unknown,
    /// It has not answered yet.
    Starting,
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It was never started.
    Created,
    /// It runs.
    Running {
        /// Number of its first process.
        pid: i32,
        /// Whether it is well.
        wellness: Wellness,
    },
    /// It has ended.
    Exited(Exit),
}

/// A container that carries our label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// What the engine calls it.
    pub id: String,
    /// The generation that it was made from.
    pub generation: u64,
    /// What it does.
    pub condition: Condition,
}

/// An engine that answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    /// `docker` or `podman`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Something happened to a container of this vPLC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Name of the vPLC.
    pub vplc: String,
}

/// Where progress goes: a share from 0 to 1, and what is being done.
pub type Progress<'p> = &'p (dyn Fn(f64, &str) + Send + Sync);

/// Why the engine did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// It cannot be reached.
    #[error("The container engine at \"{socket}\" cannot be reached: {reason}.")]
    Unreachable {
        /// Where it was looked for.
        socket: String,
        /// Why.
        reason: String,
    },
    /// It did not answer in time.
    #[error("The container engine did not answer in time while it was to {what}.")]
    Slow {
        /// What it was asked to do.
        what: String,
    },
    /// It said no.
    #[error("The container engine did not {what}: {reason}.")]
    Refused {
        /// What it was asked to do.
        what: String,
        /// Its words.
        reason: String,
    },
    /// There is no such image, here or where it comes from.
    #[error("The image \"{image}\" cannot be had: {reason}.")]
    NoImage {
        /// Its name.
        image: String,
        /// Why.
        reason: String,
    },
    /// The name of a container or volume is taken by something that is not ours.
    #[error("The container engine has a {what} \"{name}\" already, which is not ours.")]
    NameTaken {
        /// `container` or `volume`.
        what: &'static str,
        /// Its name.
        name: String,
    },
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        let kind = match error {
            EngineError::Unreachable { .. } | EngineError::Slow { .. } => Kind::EngineUnavailable,
            EngineError::Refused { .. } => Kind::EngineFailed,
            EngineError::NoImage { .. } => Kind::ImageUnavailable,
            EngineError::NameTaken { .. } => Kind::NameInUse,
        };
        Self::new(kind, error.to_string())
    }
}

/// The result of a request to the engine.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, EngineError>>;

/// A container engine. Everything it removes, starts or stops carries our label; it looks before it does so.
pub trait Engine: fmt::Debug + Send + Sync {
    /// Asks the engine who it is.
    fn version(&self) -> Answer<'_, Version>;

    /// What happens to containers with our label. The stream ends when the engine goes away.
    fn happenings(&self) -> BoxStream<'static, Happening>;

    /// One container of a vPLC; none if there is none. An error if something else has its name.
    fn find<'a>(&'a self, vplc: &'a str, role: Role) -> Answer<'a, Option<Container>>;

    /// The image with this name or id, if it is here.
    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Pinned>>;

    /// Fetches an image.
    fn pull<'a>(&'a self, reference: &'a str, progress: Progress<'a>) -> Answer<'a, ()>;

    /// Loads images from an archive as `docker save` writes it. Returns their names, or their ids where they have none; none at all
    /// if the engine does not tell.
    fn load<'a>(&'a self, archive: File, progress: Progress<'a>) -> Answer<'a, Vec<String>>;

    /// Makes a container and, if need be, its volume.
    fn create<'a>(&'a self, plan: &'a Plan) -> Answer<'a, ()>;

    /// Starts a container.
    fn start<'a>(&'a self, vplc: &'a str, role: Role) -> Answer<'a, ()>;

    /// Asks a container to end, and kills it after the grace. It is fine if there is none or if it has ended.
    fn stop<'a>(&'a self, vplc: &'a str, role: Role, grace: Duration) -> Answer<'a, ()>;

    /// Removes a container, and kills it if it runs. It is fine if there is none.
    fn remove<'a>(&'a self, vplc: &'a str, role: Role) -> Answer<'a, ()>;

    /// Whether a vPLC has a volume. An error if something else has its name.
    fn has_volume<'a>(&'a self, vplc: &'a str) -> Answer<'a, bool>;

    /// Removes the volume of a vPLC. It is fine if there is none.
    fn remove_volume<'a>(&'a self, vplc: &'a str) -> Answer<'a, ()>;

    /// The last lines that the runtime of a vPLC has printed, at most so many.
    fn last_lines<'a>(&'a self, vplc: &'a str, lines: u32) -> Answer<'a, Vec<String>>;

    /// So many of the last lines that the runtime of a vPLC has printed, and all that it prints from now on until it ends.
    fn follow<'a>(&'a self, vplc: &'a str, lines: u32) -> Answer<'a, BoxStream<'static, Result<Piece, EngineError>>>;

    /// Runs a command in the runtime of a vPLC.
    fn attach<'a>(&'a self, vplc: &'a str, errand: &'a Errand) -> Answer<'a, Attached>;

    /// Gives the terminal of a command another size.
    fn resize<'a>(&'a self, id: &'a str, size: Size) -> Answer<'a, ()>;

    /// How a command is.
    fn fate<'a>(&'a self, id: &'a str) -> Answer<'a, Fate>;
}
