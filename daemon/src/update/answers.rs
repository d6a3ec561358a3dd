//! x
use serde::{Deserialize, Serialize};
/// Answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NeedsReboot {
    /// n
    No,
    /// a
    Automatic,
    /// y
    Yes,
}
