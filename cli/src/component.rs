//! vPLCs as Components of a System: what the Interfaces `vplc-program` and `vplc-image` do.
//!
//! An Interface is called once for each state, and may be called again after a power cut. So each state looks first how things
//! are, does what is missing, and judges by how things are afterwards. What it has to know later stands in `tmp/` of the File API
//! directory, which lasts for the deployment, each file written in one step:
//!
//! ```text
//! payload   the payload file
//! before    how the vPLC was when Download began: the way back
//! wanted    what ArtifactInstall has led to
//! ```
//!
//! What a program or an image provides has to outlast the deployment. It is kept below the state directory by the hash of what
//! provides it, so it is right whoever deployed or took back what is there now.

mod desk;
mod image;
mod payload;
mod program;
mod provided;

use std::path::PathBuf;

use orchestratord::core::error::Kind;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::desk::Desk;
use self::image::ImageComponent;
use self::program::ProgramComponent;
use crate::args::ComponentKind;
use crate::block_on;
use crate::failure::{Failure, SUCCESS};
use crate::output::print;

/// States and queries that are answered; others succeed silently.
const WORDS: [&str; 12] = [
    "NeedsUnpackedArtifact",
    "ProvidePayloadFileSizes",
    "NeedsArtifactReboot",
    "SupportsRollback",
    "Identity",
    "Provides",
    "Inventory",
    "Download",
    "ArtifactInstall",
    "ArtifactCommit",
    "ArtifactRollback",
    "Cleanup",
];
/// Bytes of a file in `tmp/` but the payload.
const NOTE_LIMIT: u64 = 1 << 20;

/// A call of an Interface.
struct Call {
    /// Name of the Interface, which is in the key of the version.
    interface: String,
    tree: PathBuf,
    vplc: String,
}

impl Call {
    /// A file in `tmp/` of the File API directory.
    fn file(&self, name: &str) -> PathBuf {
        self.tree.join("tmp").join(name)
    }

    /// What a state before has written down; none if it has not come so far.
    fn recall<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let path = self.file(name);
        let bytes = orchestratord::core::store::read(&path, NOTE_LIMIT).map_err(storage)?;
        let read = |bytes: Vec<u8>| {
            serde_json::from_slice(&bytes)
                .map_err(|error| Failure::new(Kind::Storage, format!("\"{}\" is damaged: {error}.", path.display())))
        };
        bytes.map(read).transpose()
    }

    /// Writes something down for a state to come.
    fn note<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| Failure::new(Kind::Storage, format!("Cannot write \"{name}\": {error}.")))?;
        orchestratord::core::store::replace(&self.file(name), &bytes).map_err(storage)
    }

    fn fail(&self, kind: Kind, what: &str) -> Failure {
        Failure::new(kind, format!("The vPLC \"{}\" {what}.", self.vplc))
    }
}

fn storage(error: orchestratord::core::store::StoreError) -> Failure {
    orchestratord::core::error::Error::from(error).into()
}

/// What is a Component of a vPLC.
trait Component: AsRef<Call> {
    /// What it provides, as lines.
    async fn provides(&self, desk: &Desk) -> Result<String, Failure>;
    /// What else there is to know, as lines.
    async fn inventory(&self, desk: &Desk) -> Result<String, Failure>;
    /// Takes the Artifact and changes nothing.
    async fn download(&self, desk: &Desk) -> Result<(), Failure>;
    /// Whether it can be taken back.
    async fn supports_rollback(&self, desk: &Desk) -> Result<bool, Failure>;
    /// Installs it.
    async fn install(&self, desk: &Desk) -> Result<(), Failure>;
    /// Fails if it does not work.
    async fn commit(&self, desk: &Desk) -> Result<(), Failure>;
    /// Takes it back.
    async fn roll_back(&self, desk: &Desk) -> Result<(), Failure>;
}

/// Answers a call of an Interface, whose arguments are `words`; returns the exit code.
pub fn run(kind: ComponentKind, interface: &str, words: &[String]) -> Result<u8, Failure> {
    let word = words.first().map(String::as_str).unwrap_or_default();
    if !WORDS.contains(&word) {
        return Ok(SUCCESS);
    }
    let Some(vplc) = words.get(3).filter(|name| !name.is_empty()) else {
        let message = format!("The first of \"interface_args\" of the Interface \"{interface}\" is to be a vPLC.");
        return Err(Failure::new(Kind::InvalidTopology, message));
    };
    match word {
        "NeedsUnpackedArtifact" => print("Yes\n")?,
        "ProvidePayloadFileSizes" | "NeedsArtifactReboot" => print("No\n")?,
        // Asked often, and also while no daemon could answer.
        "Identity" => print(&format!("id={}\n", words.get(4).unwrap_or(vplc)))?,
        _ => {
            let tree = PathBuf::from(words.get(1).map(String::as_str).unwrap_or_default());
            let call = Call { interface: interface.to_owned(), tree, vplc: vplc.clone() };
            return match kind {
                ComponentKind::VplcImage => block_on(answer(word, ImageComponent(call))),
                ComponentKind::VplcProgram => block_on(answer(word, ProgramComponent(call))),
            };
        }
    }
    Ok(SUCCESS)
}

async fn answer<T: Component>(word: &str, component: T) -> Result<u8, Failure> {
    let call = component.as_ref();
    if word == "Cleanup" {
        orchestratord::core::store::remove_file(&call.file("payload")).map_err(storage)?;
        return Ok(SUCCESS);
    }
    let desk = Desk::new(&call.vplc);
    match word {
        "Provides" => print(&component.provides(&desk).await?)?,
        "Inventory" => print(&component.inventory(&desk).await?)?,
        "SupportsRollback" => print(if component.supports_rollback(&desk).await? { "Yes\n" } else { "No\n" })?,
        "Download" => component.download(&desk).await?,
        "ArtifactInstall" => component.install(&desk).await?,
        "ArtifactCommit" => component.commit(&desk).await?,
        _ => component.roll_back(&desk).await?,
    }
    Ok(SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn words_of_tomorrow_succeed_and_a_vplc_has_to_be_named() {
        for kind in [ComponentKind::VplcProgram, ComponentKind::VplcImage] {
            assert_eq!(run(kind, "x", &words(&["Tomorrow", "/tree"])), Ok(SUCCESS));
            assert_eq!(run(kind, "x", &[]), Ok(SUCCESS));
            let failure = run(kind, "plc", &words(&["Provides", "/tree", "type"])).unwrap_err();
            assert_eq!(failure.exit_code(), Kind::InvalidTopology.exit_code());
            assert!(failure.to_string().contains("\"interface_args\" of the Interface \"plc\""), "{failure}");
        }
    }

    #[test]
    fn what_is_written_down_is_found_again_and_damage_is_told() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("tmp")).unwrap();
        let call = Call { interface: "x".to_owned(), tree: tree.path().to_owned(), vplc: "a".to_owned() };
        assert_eq!(call.recall::<String>("wanted").unwrap(), None);
        call.note("wanted", &"hash").unwrap();
        assert_eq!(call.recall::<String>("wanted").unwrap().as_deref(), Some("hash"));
        std::fs::write(call.file("wanted"), "{").unwrap();
        assert_eq!(call.recall::<String>("wanted").unwrap_err().exit_code(), Kind::Storage.exit_code());
    }

    #[test]
    fn a_payload_is_one_file_of_bounded_size() {
        let tree = tempfile::tempdir().unwrap();
        let call = Call { interface: "x".to_owned(), tree: tree.path().to_owned(), vplc: "a".to_owned() };
        for directory in ["tmp", "streams"] {
            std::fs::create_dir(tree.path().join(directory)).unwrap();
        }
        std::fs::write(tree.path().join("streams/a"), "program").unwrap();
        std::fs::write(tree.path().join("stream-next"), "").unwrap();
        assert_eq!(payload::store(&call, 7), Ok(false));
        assert!(payload::open(&call).unwrap().is_none());
        // A file that is not used up stands in for a FIFO that goes on for ever.
        std::fs::write(tree.path().join("stream-next"), "streams/a\n").unwrap();
        assert!(payload::store(&call, 6).unwrap_err().to_string().contains("larger than 6 bytes"));
        assert!(payload::store(&call, 7).unwrap_err().to_string().contains("more than one payload file"));
    }
}
