//! Puts the daemon together from its configuration: which runner, which way to reboot, which actor.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use anyhow::Context;
use futures_util::future::{Either, select};
use tokio_util::sync::CancellationToken;
use zbus::Connection;

use crate::config::{RunnerChoice, Settings};
use crate::core::audit::Audit;
use crate::core::error::Error;
use crate::core::job::Jobs;
use crate::core::store::DirectoryLock;
use crate::logging::LogLevel;
use crate::mender_auth::AuthenticationManager;
use crate::network;
use crate::network::netlink::Netlink;
use crate::supervisor::Parts;
use crate::systemd::{self, logind::LogindHost, transient::TransientRunner};
use crate::update::actor::Actor;
use crate::update::environment::Environment;
use crate::update::reboot::{BOOT_ID_PATH, CommandHost, Host};
use crate::update::runner::Runner;
use crate::update::runner::process::ProcessRunner;
use crate::vplc::{self, engine::docker::DockerEngine};
use crate::vplc_nics::NetworkNics;

/// Output of calls that run as units passes through here; it survives the daemon, and not the machine.
const SPOOL: &str = "/run/orchestrator/calls";
/// Names another file with the boot id: a private instance can be told of a reboot that did not happen.
const BOOT_ID_VARIABLE: &str = "ORCHESTRATORD_BOOT_ID_FILE";
/// Names another directory in place of `/dev`: a private instance can be shown serial ports that there are not.
const DEV_VARIABLE: &str = "ORCHESTRATORD_DEV_DIR";

/// Reads the configuration from its usual places, named by the environment.
pub fn settings() -> Result<(Settings, Vec<String>), Error> {
    Ok(Settings::load(&|variable| std::env::var(variable).ok())?)
}

/// Makes the parts that the supervisor looks after. A reload of the configuration sets the level of the log, too.
pub async fn parts(settings: Settings, log_level: LogLevel) -> anyhow::Result<Parts> {
    let lock = lock(&settings)?;
    let connection = zbus::connection::Builder::system().build().await.context("Cannot connect to the system bus")?;
    let datastore = settings.datastore_dir.clone();
    let (history, metrics_socket) = (settings.host_history, settings.metrics_socket.clone());
    let engine_socket = settings.engine_socket.clone();
    let runner = runner(settings.runner, &connection).await?;
    let load = {
        let runner = runner.clone();
        move |settings: Settings| {
            let host = host(&settings, &connection);
            let tokens = Arc::new(AuthenticationManager::new(connection.clone()));
            Environment::new(Arc::new(settings), runner.clone(), host, tokens)
        }
    };
    let environment = load(settings)?;
    let reload = Box::new(move || {
        let (settings, warnings) = self::settings()?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let level = settings.log_level.level();
        let environment = load(settings)?;
        log_level.set(level);
        Ok(environment)
    });
    let (jobs, stop) = (Jobs::default(), CancellationToken::new());
    let (actor, update) = Actor::new(environment, reload, jobs.clone(), stop.clone());
    let dev = std::env::var_os(DEV_VARIABLE).map_or_else(|| PathBuf::from("/dev"), PathBuf::from);
    let figures = network::host::Host::new(history);
    let (network_actor, network) =
        network::actor::Actor::new(Arc::new(Netlink), &datastore, figures.clone(), metrics_socket, stop.clone());
    let (vplc_actor, vplc) = vplc::actor::Actor::new(
        Arc::new(DockerEngine::new(&engine_socket)),
        Arc::new(NetworkNics::new(network.clone())),
        network::nic::spec::Spec::check_section,
        &vplc::actor::Settings { datastore: datastore.clone(), dev, history },
        jobs.clone(),
        stop.clone(),
    );
    figures.show_along(Arc::new(vplc.clone()));
    let all_stop = stop.clone();
    let actor = Box::pin(async move {
        let others = Box::pin(both(network_actor.run(), vplc_actor.run(), &all_stop));
        both(actor.run(), others, &all_stop).await;
        drop(lock);
    });
    let audit = Audit::open(&datastore.join("audit"));
    Ok(Parts { update, network, vplc, jobs, audit, actor, stop })
}

/// Ends when both have ended as they were told to, or at once if one of them ends on its own.
async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>, stop: &CancellationToken) {
    match select(pin!(one), pin!(other)).await {
        Either::Left(((), other)) if stop.is_cancelled() => other.await,
        Either::Right(((), one)) if stop.is_cancelled() => one.await,
        _ => {}
    }
}

/// Two daemons on different buses must not work on one System. A directory that cannot be written is no reason not to
/// start: readers are served, and whatever would write says so.
fn lock(settings: &Settings) -> anyhow::Result<Option<DirectoryLock>> {
    match DirectoryLock::take(&settings.datastore_dir) {
        Ok(Some(lock)) => Ok(Some(lock)),
        Ok(None) => anyhow::bail!("Another orchestratord uses \"{}\".", settings.datastore_dir.display()),
        Err(error) => {
            tracing::error!("{error}");
            Ok(None)
        }
    }
}

async fn runner(choice: RunnerChoice, connection: &Connection) -> anyhow::Result<Arc<dyn Runner>> {
    let units = match choice {
        RunnerChoice::Systemd => true,
        RunnerChoice::Process => false,
        RunnerChoice::Auto => systemd::available(connection).await,
    };
    if units {
        tracing::info!("Interfaces run as transient units of systemd");
        let runner = TransientRunner::new(connection.clone(), SPOOL).await;
        return Ok(Arc::new(runner.context("The Runner \"systemd\" cannot be used")?));
    }
    tracing::info!("Interfaces run as processes of the daemon");
    Ok(Arc::new(ProcessRunner::new()))
}

fn host(settings: &Settings, connection: &Connection) -> Arc<dyn Host> {
    let boot_id = std::env::var_os(BOOT_ID_VARIABLE).map_or_else(|| PathBuf::from(BOOT_ID_PATH), PathBuf::from);
    match &settings.reboot_command {
        Some(command) => Arc::new(CommandHost::new(command.clone(), boot_id)),
        None => Arc::new(LogindHost::new(connection.clone(), boot_id)),
    }
}
