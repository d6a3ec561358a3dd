//! Tells when it is worth looking at a unit again.
//!
//! Signals are hints only: whoever is told reads the state of the unit from systemd. So a signal that somebody else on
//! the bus forges does no more than cause a look, and one that is lost while PID 1 executes itself anew is made up for
//! by the change of its bus name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream};

use super::manager::{SYSTEMD, UNIT, UNITS};

type Waiting = Mutex<HashMap<String, Arc<Notify>>>;

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<String, Arc<Notify>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Subscribes to the changes of units, as long as somebody watches one.
#[derive(Debug)]
pub(super) struct UnitSignals {
    connection: Connection,
    listener: tokio::sync::Mutex<Weak<Listener>>,
}

/// A task of its own reads the signals: zbus stops reading the socket while the queue of a stream is full, so a stream
/// must not be read by somebody who in between waits for a reply.
#[derive(Debug)]
struct Listener {
    waiting: Arc<Waiting>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches one unit.
#[derive(Debug)]
pub(super) struct Watch {
    listener: Arc<Listener>,
    path: String,
    notify: Arc<Notify>,
}

impl Watch {
    /// Waits until the unit may have changed since the last time this returned (or since the watch began).
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.listener.waiting).remove(&self.path);
    }
}

impl UnitSignals {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, listener: tokio::sync::Mutex::default() }
    }

    /// Watches the unit with this object path. Once this has returned no change is missed.
    pub(super) async fn watch(&self, path: &str) -> zbus::Result<Watch> {
        let mut current = self.listener.lock().await;
        let listener = if let Some(listener) = current.upgrade() {
            listener
        } else {
            let listener = Arc::new(Listener::start(&self.connection).await?);
            *current = Arc::downgrade(&listener);
            listener
        };
        let notify = Arc::new(Notify::new());
        lock(&listener.waiting).insert(path.to_owned(), Arc::clone(&notify));
        Ok(Watch { listener, path: path.to_owned(), notify })
    }
}

impl Listener {
    async fn start(connection: &Connection) -> zbus::Result<Self> {
        let changes = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)
            .interface("org.freedesktop.DBus.Properties")
            .member("PropertiesChanged")
            .path_namespace(UNITS)
            // Each change comes once for every interface of the unit; its state is on this one.
            .add_arg(UNIT)
            .build()?;
        let comings = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .add_arg(SYSTEMD)
            .build()?;
        let changes = MessageStream::for_match_rule(changes, connection, None).await?;
        let comings = MessageStream::for_match_rule(comings, connection, None).await?;
        let waiting = Arc::new(Waiting::default());
        let told = Arc::clone(&waiting);
        let task = tokio::spawn(async move {
            let mut signals = stream::select(changes, comings);
            // Ends with the connection. Then nobody is told anything any more, see `manager::insist`.
            while let Some(Ok(signal)) = signals.next().await {
                let waiting = lock(&told);
                match signal.header().path() {
                    Some(path) if path.starts_with(UNITS) => {
                        if let Some(notify) = waiting.get(path.as_str()) {
                            notify.notify_one();
                        }
                    }
                    _ => waiting.values().for_each(|notify| notify.notify_one()),
                }
            }
        });
        Ok(Self { waiting, task: task.abort_handle() })
    }
}
