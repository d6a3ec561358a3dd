//! What the Components of a System were called with.

use std::fs::{self, File};

use super::{HOST_REBOOT, System};

/// Queries that stand in no trace: they have no barrier.
const LOOSE: [&str; 5] = ["Identity", "Provides", "Inventory", "NeedsUnpackedArtifact", "ProvidePayloadFileSizes"];
/// Queries that stand in [`System::full_trace`] only.
const QUERIES: [&str; 2] = ["NeedsArtifactReboot", "SupportsRollback"];

impl System {
    /// The lines of `calls.log`: `begin <instance> <word> ...`, `end <instance> <word> <exit status>`, and
    /// [`HOST_REBOOT`].
    pub fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("system/calls.log")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// Forgets all calls so far.
    pub fn forget_calls(&self) {
        File::create(self.path("system/calls.log")).expect("calls.log");
    }

    /// How often a Component was called with this word.
    pub fn count(&self, instance: &str, word: &str) -> usize {
        let begin = format!("begin {instance} {word} ");
        self.lines().iter().filter(|line| line.starts_with(&begin)).count()
    }

    /// The states that were called, in steps: `<state> <instance> ...` for all Components of one order group, sorted, and
    /// `reboot` for a reboot of the host. Fails the test if a step began before all calls of the step before had ended.
    #[track_caller]
    pub fn trace(&self) -> Vec<String> {
        self.steps(&QUERIES)
    }

    /// [`System::trace`] with the queries `NeedsArtifactReboot` and `SupportsRollback`.
    #[track_caller]
    pub fn full_trace(&self) -> Vec<String> {
        self.steps(&[])
    }

    #[track_caller]
    fn steps(&self, without: &[&str]) -> Vec<String> {
        let lines = self.lines();
        let mut steps: Vec<(String, u32, Vec<String>)> = Vec::new();
        let mut running: Vec<(&str, &str)> = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            if line == HOST_REBOOT {
                steps.push(("reboot".to_owned(), 0, Vec::new()));
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let [kind, instance, word, ..] = words[..] else { panic!("calls.log holds \"{line}\"") };
            if LOOSE.contains(&word) || without.contains(&word) {
                continue;
            }
            if kind == "end" {
                running.retain(|call| *call != (instance, word));
                continue;
            }
            // All Components are asked at once for SupportsRollback.
            let order = if word == "SupportsRollback" { 0 } else { self.component(instance).order };
            match steps.last_mut() {
                Some((last, last_order, instances))
                    if last == word && *last_order == order && !instances.iter().any(|one| one == instance) =>
                {
                    instances.push(instance.to_owned());
                }
                _ => {
                    // Who was killed has no end; that only a later one breaks the barrier.
                    let late = |(instance, word): &&(&str, &str)| {
                        let end = format!("end {instance} {word} ");
                        let again = format!("begin {instance} {word} ");
                        let rest = &lines[number..];
                        let next = rest.iter().position(|line| line.starts_with(&again)).unwrap_or(rest.len());
                        rest[..next].iter().any(|line| line.starts_with(&end))
                    };
                    if let Some(late) = running.iter().find(late) {
                        panic!("{line}: {late:?} had not ended:\n{}", lines.join("\n"));
                    }
                    running.clear();
                    steps.push((word.to_owned(), order, vec![instance.to_owned()]));
                }
            }
            running.push((instance, word));
        }
        let text = |(word, _, mut instances): (String, u32, Vec<String>)| {
            instances.sort();
            instances.insert(0, word);
            instances.join(" ")
        };
        steps.into_iter().map(text).collect()
    }
}
