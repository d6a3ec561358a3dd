//! An engine that is a table, and fails when a test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use futures_util::{FutureExt, StreamExt};

use super::{
    Answer, Attached, BoxStream, Condition, Container, Duration, Engine, EngineError, Errand, Exit, Fate, File,
    Happening, Piece, Pinned, Plan, Progress, Role, Size, Version, Wellness,
};

/// What the engine has.
#[derive(Debug, Default)]
pub struct Table {
    /// Containers by name.
    pub containers: BTreeMap<String, Container>,
    /// Names of volumes.
    pub volumes: BTreeSet<String>,
    /// Images.
    pub images: BTreeSet<String>,
    /// Requests that change something, so far.
    pub changes: usize,
    /// The request with this number fails.
    pub fails: Option<usize>,
    /// The request with this number and those after it are done and never answered, as for a daemon that ends.
    pub hangs: Option<usize>,
    pids: i32,
}

/// An engine that is a table.
#[derive(Debug, Default)]
pub struct ScriptedEngine(Mutex<Table>);

impl ScriptedEngine {
    /// The table, to look at or to change.
    ///
    /// # Panics
    ///
    /// If a test panicked while it held the table.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap()
    }

    /// Does something, unless its turn to fail has come.
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> Answer<'_, T>
    where
        T: Send + 'static,
    {
        let mut table = self.table();
        table.changes += 1;
        let result = if table.fails == Some(table.changes - 1) {
            Err(EngineError::Refused { what: "do it".to_owned(), reason: "the script says so".to_owned() })
        } else {
            Ok(change(&mut table))
        };
        if table.hangs.is_some_and(|first| table.changes > first) {
            return std::future::pending().boxed();
        }
        std::future::ready(result).boxed()
    }

    fn look<T: Send + 'static>(&self, look: impl FnOnce(&Table) -> T) -> Answer<'_, T> {
        std::future::ready(Ok(look(&self.table()))).boxed()
    }
}

impl Engine for ScriptedEngine {
    fn version(&self) -> Answer<'_, Version> {
        self.look(|_| Version { name: "scripted".to_owned(), version: "1".to_owned() })
    }

    fn happenings(&self) -> BoxStream<'static, Happening> {
        futures_util::stream::pending().boxed()
    }

    fn find<'a>(&'a self, vplc: &'a str, role: Role) -> Answer<'a, Option<Container>> {
        self.look(|table| table.containers.get(&role.container(vplc)).cloned())
    }

    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Pinned>> {
        self.look(|table| {
            let known = table.images.contains(reference);
            known.then(|| Pinned { id: reference.to_owned(), digest: String::new() })
        })
    }

    fn pull<'a>(&'a self, reference: &'a str, _: Progress<'a>) -> Answer<'a, ()> {
        let image = reference.to_owned();
        self.change(|table| {
            table.images.insert(image);
        })
    }

    fn load<'a>(&'a self, _: File, _: Progress<'a>) -> Answer<'a, Vec<String>> {
        let loaded = self.change(|table| {
            table.images.insert("loaded:1".to_owned());
        });
        async move { loaded.await.map(|()| vec!["loaded:1".to_owned()]) }.boxed()
    }

    fn create<'a>(&'a self, plan: &'a Plan) -> Answer<'a, ()> {
        let name = plan.role.container(&plan.vplc);
        self.change(|table| {
            table.volumes.extend(plan.volume.as_ref().map(|volume| volume.name.clone()));
            let made = Container { id: name.clone(), generation: plan.generation, condition: Condition::Created };
            table.containers.insert(name, made);
        })
    }

    fn start<'a>(&'a self, vplc: &'a str, role: Role) -> Answer<'a, ()> {
        self.change(|table| {
            table.pids += 1;
            let running = Condition::Running { pid: table.pids, wellness: Wellness::Unknown };
            table.containers.get_mut(&role.container(vplc)).unwrap().condition = running;
        })
    }

    fn stop<'a>(&'a self, vplc: &'a str, role: Role, _: Duration) -> Answer<'a, ()> {
        self.change(|table| {
            if let Some(container) = table.containers.get_mut(&role.container(vplc)) {
                container.condition = Condition::Exited(Exit { code: 143, out_of_memory: false });
            }
        })
    }

    fn remove<'a>(&'a self, vplc: &'a str, role: Role) -> Answer<'a, ()> {
        self.change(|table| {
            table.containers.remove(&role.container(vplc));
        })
    }

    fn has_volume<'a>(&'a self, vplc: &'a str) -> Answer<'a, bool> {
        self.look(|table| table.volumes.contains(&super::volume(vplc)))
    }

    fn remove_volume<'a>(&'a self, vplc: &'a str) -> Answer<'a, ()> {
        self.change(|table| {
            table.volumes.remove(&super::volume(vplc));
        })
    }

    fn last_lines<'a>(&'a self, _: &'a str, _: u32) -> Answer<'a, Vec<String>> {
        self.look(|_| vec!["last".to_owned()])
    }

    fn follow<'a>(&'a self, _: &'a str, _: u32) -> Answer<'a, BoxStream<'static, Result<Piece, EngineError>>> {
        self.look(|_| futures_util::stream::once(async { Ok(Piece::Output("last\n".into())) }).boxed())
    }

    fn attach<'a>(&'a self, _: &'a str, errand: &'a Errand) -> Answer<'a, Attached> {
        // It echoes its own words.
        let said = Piece::Output(errand.command.join(" ").into());
        self.look(|_| Attached {
            id: "errand".to_owned(),
            input: Box::pin(tokio::io::sink()),
            output: futures_util::stream::once(async { Ok(said) }).boxed(),
        })
    }

    fn resize<'a>(&'a self, _: &'a str, _: Size) -> Answer<'a, ()> {
        self.look(|_| ())
    }

    fn fate<'a>(&'a self, _: &'a str) -> Answer<'a, Fate> {
        self.look(|_| Fate::Ended(0))
    }
}
