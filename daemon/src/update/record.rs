//! The open deployment on disk.
//!
//! ```text
//! <datastore>/deployment/          stands exactly while a deployment is open
//!     manifest.yaml                what the caller gave, never read from the caller's place again
//!     plan.json                    the Components that take part and their Artifacts
//!     journal                      the state: first whole, then what each step changed
//! <datastore>/last.json            how the last deployment ended
//! ```
//!
//! The directory gets its name when it is complete, so a crash while it is made leaves nothing. It is renamed before it
//! is removed, so a crash while it is removed leaves nothing either.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::artifact::format::hex;
use super::machine::{Activity, Deployment, Effect, Head, Member};
use super::plan::Plan;
use crate::core::error::{Error, Kind};
use crate::core::job::JobResult;
use crate::core::store::{self, Journal, StoreError, Tail};

const OPEN: &str = "deployment";
const PLAN_LIMIT: u64 = 256 * 1024 * 1024;
const LAST_LIMIT: u64 = 1024 * 1024;

/// The record cannot be written or makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file was read, but not understood.
    #[error("The record \"{}\" is damaged: {reason}.", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        Self::new(Kind::Storage, error.to_string())
    }
}

/// The first entry of the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Opening {
    /// SHA-256 of `plan.json`, hexadecimal: a wrong letter in it could name another Component.
    plan: String,
    deployment: Deployment,
}

/// What one step changed.
#[derive(Debug, Serialize, Deserialize)]
struct Change {
    head: Option<Head>,
    members: BTreeMap<usize, Member>,
}

impl Change {
    fn between(old: &Deployment, new: &Deployment) -> Option<Self> {
        let head = (old.head != new.head).then(|| new.head.clone());
        let changed = new.members.iter().enumerate().filter(|(index, member)| old.members.get(*index) != Some(member));
        let members: BTreeMap<usize, Member> = changed.map(|(index, member)| (index, member.clone())).collect();
        (head.is_some() || !members.is_empty()).then_some(Self { head, members })
    }

    fn apply(self, deployment: &mut Deployment) -> Result<(), String> {
        if let Some(head) = self.head {
            deployment.head = head;
        }
        for (index, member) in self.members {
            *deployment.members.get_mut(index).ok_or(format!("there is no Component {index}"))? = member;
        }
        Ok(())
    }
}

/// The record of the open deployment.
#[derive(Debug)]
pub struct Record {
    directory: PathBuf,
    journal: Journal,
    saved: Deployment,
}

/// A record that was found, with what it says.
#[derive(Debug)]
pub struct Found {
    /// To go on writing.
    pub record: Record,
    /// Who takes part.
    pub plan: Plan,
    /// Where it is.
    pub deployment: Deployment,
    /// The last entry was cut short: the state is that of the entry before it.
    pub torn: bool,
}

impl Record {
    /// Writes the record of a new deployment. Nothing of it stands if this fails.
    pub fn create(datastore: &Path, manifest: &str, plan: &Plan, deployment: Deployment) -> Result<Self, RecordError> {
        let directory = datastore.join(OPEN);
        let draft = datastore.join("deployment.new");
        store::make_directory(datastore)?;
        store::remove_directory(&draft)?;
        match Self::fill(&draft, manifest, plan, deployment) {
            Ok(mut record) => {
                // No deployment is open, so this is what could not be removed when the last one ended.
                discard(&directory)?;
                if let Err(error) = store::rename_directory(&draft, &directory) {
                    // It may have its name already, but not for good. Should it stay, the next start gives it up, because
                    // it says that nothing has begun.
                    drop(discard(&directory));
                    return Err(error.into());
                }
                record.journal.renamed(&directory.join("journal"));
                record.directory = directory;
                Ok(record)
            }
            Err(error) => {
                // Best effort: a draft is never read, and removed before the next one.
                drop(store::remove_directory(&draft));
                Err(error)
            }
        }
    }

    fn fill(draft: &Path, manifest: &str, plan: &Plan, deployment: Deployment) -> Result<Self, RecordError> {
        store::make_directory(draft)?;
        // Nobody looks into a draft, so one sync of the directory is enough for all of it.
        store::write_new(&draft.join("manifest.yaml"), manifest.as_bytes())?;
        let plan = encode(plan, &draft.join("plan.json"))?;
        store::write_new(&draft.join("plan.json"), &plan)?;
        let path = draft.join("journal");
        let mut journal = Journal::create(&path)?;
        let opening = Opening { plan: sha256(&plan), deployment };
        journal.append(&encode(&opening, &path)?, true)?;
        store::sync_directory(draft)?;
        Ok(Self { directory: draft.to_owned(), journal, saved: opening.deployment })
    }

    /// Reads the record of the open deployment, if there is one.
    pub fn open(datastore: &Path) -> Result<Option<Found>, RecordError> {
        for leftover in ["deployment.new", "deployment.old"] {
            store::remove_directory(&datastore.join(leftover))?;
        }
        let directory = datastore.join(OPEN);
        if !directory.try_exists().map_err(StoreError::of("open", &directory))? {
            return Ok(None);
        }
        let path = directory.join("journal");
        let (journal, found) = Journal::open(&path).map_err(|error| match error.io().kind() {
            // Anything else may be gone at the next try.
            ErrorKind::InvalidData | ErrorKind::NotFound | ErrorKind::FileTooLarge => {
                RecordError::Damaged { path: path.clone(), reason: error.io().to_string() }
            }
            _ => error.into(),
        })?;
        let mut entries = found.entries.into_iter();
        let Opening { plan: digest, mut deployment } = decode(&entries.next().unwrap_or_default(), &path)?;
        let plan_path = directory.join("plan.json");
        let plan = store::read(&plan_path, PLAN_LIMIT)?.unwrap_or_default();
        if sha256(&plan) != digest {
            let reason = "it is not what was written".to_owned();
            return Err(RecordError::Damaged { path: plan_path, reason });
        }
        let plan: Plan = decode(&plan, &plan_path)?;
        for entry in entries {
            let change: Change = decode(&entry, &path)?;
            change.apply(&mut deployment).map_err(|reason| RecordError::Damaged { path: path.clone(), reason })?;
        }
        if deployment.members.len() != plan.members.len() {
            let reason = "it does not have the Components of the plan".to_owned();
            return Err(RecordError::Damaged { path, reason });
        }
        // With nobody in it, nobody would ever report, and the deployment would wait for ever.
        let at_work = deployment.head.phase.order();
        if let Some(order) = at_work.filter(|order| deployment.members.iter().all(|member| member.order != *order)) {
            let reason = format!("it is at work on the order group {order}, which has no Component");
            return Err(RecordError::Damaged { path, reason });
        }
        let record = Self { directory, journal, saved: deployment.clone() };
        Ok(Some(Found { record, plan, deployment, torn: found.tail == Tail::Torn }))
    }

    /// Puts the state on disk. Without `durable` a power cut may lose it, the end of the daemon may not.
    pub fn save(&mut self, deployment: &Deployment, durable: bool) -> Result<(), RecordError> {
        if let Some(change) = Change::between(&self.saved, deployment) {
            let entry = encode(&change, &self.directory)?;
            self.journal.append(&entry, durable)?;
            change.apply(&mut self.saved).map_err(|reason| {
                let path = self.directory.join("journal");
                RecordError::Damaged { path, reason }
            })?;
        }
        Ok(())
    }

    /// The state that is on disk.
    pub fn saved(&self) -> &Deployment {
        &self.saved
    }

    /// Whether these effects of a state that is not on disk may be carried out: a daemon that comes back and knows only
    /// what is on disk has to bring the deployment to the same end.
    ///
    /// `Cleanup` takes away the way back, so it has to be on disk that it comes to that; and a reboot that is not on disk
    /// would be asked for at every start.
    ///
    /// Nothing may be done at all while it is uncertain what is on disk.
    pub fn leads_to_same_end(&self, state: &Deployment, effects: &[Effect]) -> bool {
        if self.journal.is_uncertain() {
            return false;
        }
        if self.saved.is_cleaning_up() {
            return true;
        }
        let bound = |effect: &Effect| match effect {
            Effect::Run(_, activity) => *activity != Activity::Cleanup,
            Effect::RebootHost | Effect::Finish { .. } => false,
            Effect::Rest { .. } | Effect::Refuse(_) | Effect::Warn(_) => true,
        };
        state.head.failed && self.saved.leads_back() && effects.iter().all(bound)
    }

    /// The Manifest as the caller gave it.
    pub fn manifest(&self) -> Result<String, RecordError> {
        let path = self.directory.join("manifest.yaml");
        let bytes = store::read(&path, PLAN_LIMIT)?.unwrap_or_default();
        String::from_utf8(bytes).map_err(|error| RecordError::Damaged { path, reason: error.to_string() })
    }

    /// The deployment is over: remembers how it ended, then removes the record. If that cannot be remembered, the record
    /// stays, and the next start ends the deployment anew.
    pub fn close(self, last: &Last) -> Result<(), RecordError> {
        let datastore = self.directory.parent().unwrap_or(&self.directory);
        last.save(datastore)?;
        Ok(discard(&self.directory)?)
    }

    /// Puts a record that cannot be read aside, so that a new deployment can be made; it is kept for people.
    pub fn set_aside(datastore: &Path) -> Result<PathBuf, RecordError> {
        let aside = datastore.join("deployment.damaged");
        store::remove_directory(&aside)?;
        store::rename_directory(&datastore.join(OPEN), &aside)?;
        Ok(aside)
    }
}

/// How the last deployment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Name of its Manifest.
    pub manifest: String,
    /// How it ended.
    pub result: JobResult,
    /// What went wrong.
    pub error: Option<Error>,
    /// No caller was there to be told, because the daemon went on by itself after a restart.
    pub untold: bool,
    /// The System was left inconsistent and no deployment succeeded since.
    pub inconsistent: bool,
}

impl Last {
    /// Remembers it.
    pub fn save(&self, datastore: &Path) -> Result<(), RecordError> {
        let path = datastore.join("last.json");
        store::make_directory(datastore)?;
        Ok(store::replace(&path, &encode(self, &path)?)?)
    }

    /// Reads it; `None` if there never was a deployment.
    pub fn load(datastore: &Path) -> Result<Option<Self>, RecordError> {
        let path = datastore.join("last.json");
        store::read(&path, LAST_LIMIT)?.map(|bytes| decode(&bytes, &path)).transpose()
    }
}

/// Removes the directory of a record: it loses its name first, so that there is never half a record.
fn discard(directory: &Path) -> Result<(), StoreError> {
    if !directory.try_exists().map_err(StoreError::of("open", directory))? {
        return Ok(());
    }
    let old = directory.with_file_name("deployment.old");
    store::remove_directory(&old)?;
    store::rename_directory(directory, &old)?;
    store::remove_directory(&old)
}

fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn encode<T: Serialize>(value: &T, path: &Path) -> Result<Vec<u8>, RecordError> {
    serde_json::to_vec(value).map_err(|error| RecordError::Damaged { path: path.to_owned(), reason: error.to_string() })
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8], path: &Path) -> Result<T, RecordError> {
    serde_json::from_slice(bytes).map_err(|error| {
        // It may quote what it did not expect, and that may be anything; a message is one line.
        let reason = error.to_string().replace(char::is_control, " ");
        RecordError::Damaged { path: path.to_owned(), reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::handle::RunOptions;
    use crate::update::machine::{Activity, Event, Outcome, Phase};

    fn deployment() -> Deployment {
        Deployment::new([1, 1], RunOptions::default())
    }

    fn plan() -> Plan {
        Plan::for_tests(2)
    }

    #[test]
    fn every_saved_state_comes_back() {
        let datastore = tempfile::tempdir().unwrap();
        let mut deployment = deployment();
        let mut record = Record::create(datastore.path(), "name: x", &plan(), deployment.clone()).unwrap();
        for event in [Event::Begin("b".into()), Event::Ended(0, Outcome::Done), Event::Ended(1, Outcome::Done)] {
            deployment.step(event).unwrap();
            record.save(&deployment, false).unwrap();
            let found = Record::open(datastore.path()).unwrap().unwrap();
            assert_eq!(found.deployment, deployment);
            assert!(!found.torn);
        }
        assert_eq!(record.manifest().unwrap(), "name: x");
    }

    #[test]
    fn a_message_about_a_damaged_record_is_one_line() {
        let error = decode::<Activity>(b"\"a\\nb\"", Path::new("journal")).unwrap_err().to_string();
        assert!(error.contains("unknown variant `a b`"), "{error}");
    }

    /// What a daemon wrote that knew of one part only, and gave no reasons, is read as a deployment of one part.
    #[test]
    fn a_record_of_an_earlier_version_is_read() {
        let without = |text: String, parts: &[&str]| {
            let old = parts.iter().fold(text, |text, part| {
                assert!(text.contains(part), "{part} is not in {text}");
                text.replace(part, "")
            });
            assert!(!old.contains("leg") && !old.contains("way_back"), "{old}");
            old
        };
        let text = serde_json::to_string(&deployment()).unwrap();
        let old: Deployment = serde_json::from_str(&without(text, &["\"leg\":0,"])).unwrap();
        assert_eq!(old, deployment());
        let text = serde_json::to_string(&plan()).unwrap();
        let old: Plan = serde_json::from_str(&without(text, &[",\"leg\":0,\"reasons\":[],\"way_back\":\"\""])).unwrap();
        assert_eq!(old, plan());
    }

    #[test]
    fn closing_leaves_the_last_result_and_no_record() {
        let datastore = tempfile::tempdir().unwrap();
        let record = Record::create(datastore.path(), "", &plan(), deployment()).unwrap();
        let last =
            Last { manifest: "m".into(), result: JobResult::Done, error: None, untold: false, inconsistent: false };
        record.close(&last).unwrap();
        assert!(Record::open(datastore.path()).unwrap().is_none());
        assert_eq!(Last::load(datastore.path()).unwrap(), Some(last));
        assert_eq!(std::fs::read_dir(datastore.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_draft_is_no_record() {
        let datastore = tempfile::tempdir().unwrap();
        Record::fill(&datastore.path().join("deployment.new"), "", &plan(), deployment()).unwrap();
        assert!(Record::open(datastore.path()).unwrap().is_none());
        assert_eq!(std::fs::read_dir(datastore.path()).unwrap().count(), 0);
    }

    /// A journal cut anywhere gives a state that once was, in full.
    #[test]
    fn a_cut_anywhere_gives_an_earlier_state() {
        let datastore = tempfile::tempdir().unwrap();
        let mut deployment = deployment();
        let mut record = Record::create(datastore.path(), "", &plan(), deployment.clone()).unwrap();
        let mut states = vec![deployment.clone()];
        let first = usize::try_from(record.journal.length()).unwrap();
        for event in [Event::Begin("b".into()), Event::Ended(1, Outcome::Done), Event::Ended(0, Outcome::Done)] {
            deployment.step(event).unwrap();
            record.save(&deployment, true).unwrap();
            states.push(deployment.clone());
        }
        let used = usize::try_from(record.journal.length()).unwrap();
        let path = datastore.path().join("deployment/journal");
        let whole = std::fs::read(&path).unwrap();
        let mut latest = 0;
        for at in (first..used).step_by(13) {
            let mut cut = whole.clone();
            cut[at..].fill(0);
            std::fs::write(&path, &cut).unwrap();
            let found = Record::open(datastore.path()).unwrap().unwrap();
            let state = states.iter().position(|state| *state == found.deployment);
            assert!(state.is_some_and(|state| state >= latest), "at {at}: {state:?} after {latest}");
            latest = state.unwrap();
        }
        assert_eq!(latest, 3);
    }

    /// Before there were servers, a place was a path. A deployment may be open while the daemon is upgraded.
    #[test]
    fn a_plan_of_the_first_version_is_read() {
        let text = r#"{"id": "1-deployment", "manifest": "m", "manifest_digest": "d", "system_type": "s", "members": [{
            "key": {"component_type": "rtos", "id": "R1"}, "interface": "rtos", "program": "/bin/true", "arguments": [],
            "order": 1, "artifact": "/a/b.mender", "artifact_digest": "e", "artifact_name": "b", "size": 7,
            "from_version": "1", "to_version": "2", "current_artifact_name": null, "current_artifact_group": null}],
            "unchanged": []}"#;
        let plan: Plan = decode(text.as_bytes(), Path::new("plan.json")).unwrap();
        assert_eq!(plan.members[0].artifact, crate::update::source::Location::File("/a/b.mender".into()));
        // And what is written now for a file is read by the first version.
        let written: serde_json::Value =
            serde_json::from_slice(&encode(&plan, Path::new("plan.json")).unwrap()).unwrap();
        assert_eq!(written["members"][0]["artifact"], "/a/b.mender");
    }

    #[test]
    fn a_plan_with_another_letter_is_damaged() {
        let datastore = tempfile::tempdir().unwrap();
        Record::create(datastore.path(), "", &plan(), deployment()).unwrap();
        let path = datastore.path().join("deployment/plan.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen('1', "2", 1)).unwrap();
        assert!(matches!(Record::open(datastore.path()), Err(RecordError::Damaged { .. })));
    }

    #[test]
    fn an_order_group_without_a_component_is_damage() {
        let datastore = tempfile::tempdir().unwrap();
        let mut deployment = deployment();
        let mut record = Record::create(datastore.path(), "", &plan(), deployment.clone()).unwrap();
        deployment.head.phase = Phase::Group(Activity::Install, 96);
        record.save(&deployment, true).unwrap();
        drop(record);
        let error = Record::open(datastore.path()).unwrap_err();
        assert!(error.to_string().contains("order group 96"), "{error}");
    }

    /// Both copies of an entry in the middle are gone: going on from the state before it would forget what was done.
    #[test]
    fn a_hole_in_the_middle_is_damage_and_not_an_earlier_state() {
        let datastore = tempfile::tempdir().unwrap();
        let mut deployment = deployment();
        let mut record = Record::create(datastore.path(), "", &plan(), deployment.clone()).unwrap();
        let begin = usize::try_from(record.journal.length()).unwrap();
        deployment.step(Event::Begin("b".into())).unwrap();
        record.save(&deployment, true).unwrap();
        let end = usize::try_from(record.journal.length()).unwrap();
        deployment.step(Event::Ended(0, Outcome::Done)).unwrap();
        record.save(&deployment, true).unwrap();
        let path = datastore.path().join("deployment/journal");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[begin..end].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let error = Record::open(datastore.path()).unwrap_err();
        assert!(matches!(error, RecordError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("entry 1 is lost"), "{error}");
    }

    #[test]
    fn closing_without_room_for_the_result_keeps_the_record() {
        let datastore = tempfile::tempdir().unwrap();
        let record = Record::create(datastore.path(), "", &plan(), deployment()).unwrap();
        std::fs::create_dir(datastore.path().join("last.json.new")).unwrap();
        let last = Last {
            manifest: "m".into(),
            result: JobResult::Inconsistent,
            error: None,
            untold: false,
            inconsistent: true,
        };
        assert!(record.close(&last).is_err());
        assert!(Record::open(datastore.path()).unwrap().is_some());
        // Another deployment takes its place, if nobody has ended it by then.
        let other = Deployment::new([7, 8], RunOptions::default());
        Record::create(datastore.path(), "", &plan(), other.clone()).unwrap();
        assert_eq!(Record::open(datastore.path()).unwrap().unwrap().deployment, other);
    }

    #[test]
    fn a_record_that_makes_no_sense_is_named_and_can_be_set_aside() {
        let datastore = tempfile::tempdir().unwrap();
        Record::create(datastore.path(), "", &plan(), deployment()).unwrap();
        std::fs::write(datastore.path().join("deployment/plan.json"), "{").unwrap();
        let message = Record::open(datastore.path()).unwrap_err().to_string();
        assert!(message.contains("plan.json\" is damaged"), "{message}");
        Record::set_aside(datastore.path()).unwrap();
        assert!(Record::open(datastore.path()).unwrap().is_none());
    }
}
