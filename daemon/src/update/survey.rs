//! Asks every Component of a Topology who it is and what it has, all at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::component::ComponentKey;
use super::environment::{Environment, unique_tag};
use super::handle::{Inventory, InventoryEntry, InventoryScope};
use super::interface::{Interface, LogSink, Tree};
use super::prepare::duplicate;
use super::runner::KILL_GRACE;
use super::topology::{Topology, TopologyComponent};
use crate::core::error::{Error, Kind};

/// How much longer than its queries may take a Component is waited for. Whatever does not end on SIGTERM is left to its runner then:
/// the Mender client ends an inventory script after ten seconds, and drops what all the others have said.
const ABANDON: Duration = Duration::from_secs(1);

/// A Component that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surveyed {
    /// Type and id.
    pub key: ComponentKey,
    /// Name of the Interface.
    pub interface: String,
    /// Its program.
    pub program: PathBuf,
    /// What the Topology adds to its arguments.
    pub arguments: Vec<String>,
    /// The answer to `Provides`.
    pub provides: BTreeMap<String, String>,
}

/// What the Components of a Topology answered.
#[derive(Debug, Default)]
pub struct Survey {
    /// Those that answered, in the order of the Topology.
    pub found: Vec<Surveyed>,
    /// What went wrong with the others; empty if all answered.
    pub errors: Vec<Error>,
}

/// Asks all Components for `Identity` and `Provides`.
pub async fn survey(topology: &Topology, environment: &Environment) -> Survey {
    let asked = topology.components.iter().enumerate().map(|(number, component)| async move {
        let _slot = environment.slot().await;
        ask(number, component, environment, None).await
    });
    let mut survey = Survey::default();
    for answer in join_all(asked).await {
        match answer {
            Ok((surveyed, _interface)) => survey.found.push(surveyed),
            Err(error) => survey.errors.push(error),
        }
    }
    let keys: Vec<&ComponentKey> = survey.found.iter().map(|surveyed| &surveyed.key).collect();
    if let Some(key) = duplicate(&keys) {
        let text = format!("Two Components of type \"{}\" have the id \"{}\".", key.component_type, key.id);
        survey.found.retain(|surveyed| surveyed.key != key);
        survey.errors.push(Error::new(Kind::InvalidTopology, text));
    }
    survey
}

/// Asks all Components for `Provides`, and for `Inventory` too if the scope wants it. The queries of each one, and the wait for its turn, take
/// the query timeout in all; a Component that needs more has not answered.
pub async fn inventory(topology: &Topology, environment: &Environment, scope: InventoryScope) -> (Survey, Inventory) {
    let limit = Instant::now() + environment.settings.query_timeout;
    let asked = topology.components.iter().enumerate().map(|(number, component)| async move {
        let answer = ask_for_inventory(number, component, environment, scope, limit);
        timeout_at(limit + ABANDON, answer).await.unwrap_or_else(|_| Err(late(component, environment)))
    });
    let (mut survey, mut inventory) = (Survey::default(), Inventory::default());
    for answer in join_all(asked).await {
        match answer {
            Ok((surveyed, pairs)) => {
                let component = format!("{}/{}", surveyed.key.component_type, surveyed.key.id);
                inventory.entries.extend(pairs.into_iter().map(|(key, value)| InventoryEntry {
                    component: component.clone(),
                    key,
                    value,
                }));
                survey.found.push(surveyed);
            }
            Err(error) => inventory.errors.push(error),
        }
    }
    inventory.entries.sort();
    // Merging Provides and Inventory repeats what a Component says in both.
    inventory.entries.dedup();
    survey.errors.clone_from(&inventory.errors);
    (survey, inventory)
}

async fn ask_for_inventory(
    number: usize,
    component: &TopologyComponent,
    environment: &Environment,
    scope: InventoryScope,
    limit: Instant,
) -> Result<(Surveyed, Vec<(String, String)>), Error> {
    let _slot = environment.slot().await;
    let (surveyed, interface) = ask(number, component, environment, Some(limit)).await?;
    let mut pairs: Vec<(String, String)> = surveyed.provides.clone().into_iter().collect();
    if scope == InventoryScope::All {
        let interface = interface.limited(left(component, environment, Some(limit))?);
        pairs.extend(interface.inventory(&unique_tag("Inventory"), &CancellationToken::new()).await?);
    }
    // Of a Component without a version key nothing is reported: the server could not make sense of it.
    if super::answers::version_key(&surveyed.provides, &surveyed.interface).is_none() {
        let text = format!("Component \"{}\": missing version key in Provides.", surveyed.key);
        return Err(Error::new(Kind::InterfaceFailed, text));
    }
    Ok((surveyed, pairs))
}

/// Time for the next query.
fn left(component: &TopologyComponent, environment: &Environment, limit: Option<Instant>) -> Result<Duration, Error> {
    let Some(limit) = limit else { return Ok(environment.settings.query_timeout) };
    let left = limit.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late(component, environment)) } else { Ok(left) }
}

/// The id may not be known yet, so the Interface has to tell which Component it is.
fn late(component: &TopologyComponent, environment: &Environment) -> Error {
    let arguments = component.interface_args.join(" ");
    let text = format!(
        "A Component of type \"{}\" (Interface \"{}\", arguments \"{arguments}\") has not answered within {} seconds.",
        component.component_type,
        component.interface,
        environment.settings.query_timeout.as_secs()
    );
    Error::new(Kind::InterfaceFailed, text)
}

async fn ask(
    number: usize,
    component: &TopologyComponent,
    environment: &Environment,
    limit: Option<Instant>,
) -> Result<(Surveyed, Interface), Error> {
    let settings = &environment.settings;
    let program = Interface::locate(&settings.data_dir, &component.interface)?;
    let place = ComponentKey { component_type: component.component_type.clone(), id: format!("#{}", number + 1) };
    let tree = Tree::queries_only(&Tree::queries_path(&settings.datastore_dir, &number.to_string()))?;
    let mut interface = Interface {
        name: component.interface.clone(),
        program: program.clone(),
        component: place,
        arguments: component.interface_args.clone(),
        root: tree.root().to_owned(),
        runner: environment.runner.clone(),
        timeout: left(component, environment, limit)?,
        patience: KILL_GRACE,
        log: LogSink::none(),
    };
    let cancel = CancellationToken::new();
    let id = interface.identity(&unique_tag("Identity"), &cancel).await?;
    interface.component = ComponentKey { component_type: component.component_type.clone(), id };
    let key = interface.component.clone();
    interface.timeout = left(component, environment, limit)?;
    let provides = interface.provides(&unique_tag("Provides"), &cancel).await?;
    let surveyed = Surveyed {
        key,
        interface: component.interface.clone(),
        program,
        arguments: component.interface_args.clone(),
        provides,
    };
    Ok((surveyed, interface))
}
