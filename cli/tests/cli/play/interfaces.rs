//! The interfaces of the played daemon, written from the bus contract.

use std::collections::HashMap;

use zbus::message::Header;
use zbus::names::ErrorName;
use zbus::object_server::SignalEmitter;
use zbus::{DBusError, Message, OwnedObjectPath, OwnedVariant, Variant, interface};

use super::Daemon;

/// Any error reply.
#[derive(Debug)]
pub struct Refusal(pub &'static str, pub &'static str);

impl DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(self.1,))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::try_from(self.0).unwrap()
    }

    fn description(&self) -> Option<&str> {
        Some(self.1)
    }
}

pub struct Manager(pub Daemon);

#[interface(name = "org.orchestratord1.Manager")]
impl Manager {
    #[zbus(property)]
    fn version(&self) -> String {
        "1.2.3".to_owned()
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.0.state().manager.to_owned()
    }
}

pub struct Update(pub Daemon);

impl Update {
    fn get<T: TryFrom<Variant<'static>, Error: std::fmt::Debug>>(&self, name: &str) -> T {
        self.0.state().update[name].try_clone().unwrap().try_into().unwrap()
    }
}

type Entries = Vec<(String, String, String)>;

#[interface(name = "org.orchestratord1.Update")]
impl Update {
    async fn plan(
        &self,
        manifest: &str,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<Vec<HashMap<String, OwnedVariant>>, Refusal> {
        self.0.received("Plan", manifest, &options)?;
        let step = |order: u32, id: &str, action: &str, artifact: &str, size: u64| {
            let values: [(&str, Variant<'_>); 10] = [
                ("order", order.into()),
                ("component-type", "rtos".into()),
                ("id", id.into()),
                ("action", action.into()),
                ("interface", "rtos-interface".into()),
                ("from-version", "v1".into()),
                ("to-version", "v2".into()),
                ("artifact-name", "rtos-v2".into()),
                ("artifact", artifact.into()),
                ("size", size.into()),
            ];
            values.into_iter().map(|(key, value)| (key.to_owned(), value.try_to_owned().unwrap())).collect()
        };
        Ok(vec![step(10, "R123", "install", "/a/rtos-v2.mender", 1536), step(20, "52:54", "unchanged", "", 0)])
    }

    async fn install(
        &self,
        manifest: &str,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.0.received("Install", manifest, &options)?;
        Ok(self.0.deploy("install").await)
    }

    async fn resume(&self, options: HashMap<String, OwnedVariant>) -> Result<OwnedObjectPath, Refusal> {
        self.0.received("Resume", "", &options)?;
        if let Some((result, name, message)) = self.0.0.script.untold {
            return Ok(self.0.tell_end(result, name, message).await);
        }
        Ok(self.0.deploy("resume").await)
    }

    async fn rollback(&self, options: HashMap<String, OwnedVariant>) -> Result<OwnedObjectPath, Refusal> {
        self.0.received("Rollback", "", &options)?;
        Ok(self.0.deploy("rollback").await)
    }

    async fn inventory(&self, options: HashMap<String, OwnedVariant>) -> Result<(Entries, Vec<String>), Refusal> {
        self.0.received("Inventory", "", &options)?;
        let script = &self.0.0.script;
        let owned = |entry: &(&str, &str, &str)| (entry.0.to_owned(), entry.1.to_owned(), entry.2.to_owned());
        let errors = script.errors.iter().map(|&error| error.to_owned()).collect();
        Ok((script.entries.iter().map(owned).collect(), errors))
    }

    async fn reload(&self, options: HashMap<String, OwnedVariant>) -> Result<(), Refusal> {
        self.0.received("Reload", "", &options)
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.get("State")
    }

    #[zbus(property)]
    fn stopped_before(&self) -> String {
        self.get("StoppedBefore")
    }

    #[zbus(property)]
    fn manifest(&self) -> String {
        self.get("Manifest")
    }

    #[zbus(property)]
    fn system_type(&self) -> String {
        self.get("SystemType")
    }

    #[zbus(property)]
    fn active_job(&self) -> OwnedObjectPath {
        self.get("ActiveJob")
    }

    #[zbus(property)]
    fn last_error(&self) -> (String, String) {
        self.get("LastError")
    }
}

pub struct Component(pub Daemon, pub &'static str);

impl Component {
    fn get<T: TryFrom<Variant<'static>, Error: std::fmt::Debug>>(&self, name: &str) -> T {
        self.0.state().components[self.1][name].try_clone().unwrap().try_into().unwrap()
    }
}

#[interface(name = "org.orchestratord1.Component")]
impl Component {
    #[zbus(property, name = "Type")]
    fn component_type(&self) -> String {
        self.get("Type")
    }

    #[zbus(property)]
    fn id(&self) -> String {
        self.get("Id")
    }

    #[zbus(property)]
    fn interface(&self) -> String {
        self.get("Interface")
    }

    #[zbus(property)]
    fn arguments(&self) -> Vec<String> {
        self.get("Arguments")
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.get("State")
    }

    #[zbus(property)]
    fn version(&self) -> String {
        self.get("Version")
    }

    #[zbus(property)]
    fn provides(&self) -> HashMap<String, String> {
        self.get("Provides")
    }

    #[zbus(property)]
    fn progress(&self) -> f64 {
        self.get("Progress")
    }

    #[zbus(property)]
    fn last_error(&self) -> (String, String) {
        self.get("LastError")
    }
}

pub struct Job(pub Daemon);

impl Job {
    fn get<T: TryFrom<Variant<'static>, Error: std::fmt::Debug>>(&self, name: &str) -> T {
        self.0.state().job[name].try_clone().unwrap().try_into().unwrap()
    }
}

#[interface(name = "org.orchestratord1.Job")]
impl Job {
    async fn cancel(&self) -> Result<(), Refusal> {
        self.0.received("Cancel", "", &HashMap::new())
    }

    async fn wait(&self) -> String {
        let _ = self.0.0.done.subscribe().wait_for(|done| *done).await;
        self.0.state().dying = self.0.0.script.dies_after_wait;
        self.get("Result")
    }

    #[zbus(signal)]
    pub async fn log(emitter: &SignalEmitter<'_>, severity: &str, component: &str, message: &str) -> zbus::Result<()>;

    #[zbus(property)]
    async fn id(&self) -> u32 {
        let dying = self.0.state().dying;
        if dying {
            self.0.die().await;
            std::future::pending::<()>().await;
        }
        self.get("Id")
    }

    #[zbus(property)]
    fn kind(&self) -> String {
        self.get("Kind")
    }

    #[zbus(property)]
    fn subject(&self) -> OwnedObjectPath {
        self.get("Subject")
    }

    #[zbus(property)]
    fn started_by(&self) -> u32 {
        self.get("StartedBy")
    }

    #[zbus(property)]
    fn started(&self) -> u64 {
        self.get("Started")
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.get("State")
    }

    #[zbus(property)]
    fn progress(&self) -> f64 {
        self.get("Progress")
    }

    #[zbus(property)]
    fn step(&self) -> String {
        self.get("Step")
    }

    #[zbus(property)]
    fn result(&self) -> String {
        self.get("Result")
    }

    #[zbus(property)]
    fn error(&self) -> (String, String) {
        self.get("Error")
    }
}
