//! The engine as it comes and goes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::time::sleep;

use crate::core::error::{Error, Kind};
use crate::vplc::engine::{Engine, EngineError, Happening, Version};

/// The first wait before an engine is looked for again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const RETRY_MOST: Duration = Duration::from_secs(8);

/// What there is to tell of the engine.
pub(super) enum News {
    /// It answers; its events are listened to.
    Up(Version),
    /// It does not answer any more, or never did. Told once.
    Down(Error),
    /// Something happened to a container of ours.
    Happened(Happening),
}

enum State {
    /// Nobody wants it.
    Idle,
    /// It is being asked who it is, maybe after a pause.
    Asking(BoxFuture<'static, Result<Version, EngineError>>),
    /// It answers.
    Up(BoxStream<'static, Happening>),
}

/// The way to the engine.
pub(super) struct Connection {
    engine: Arc<dyn Engine>,
    state: State,
    /// Failures in a row.
    failures: u32,
}

impl Connection {
    pub(super) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, state: State::Idle, failures: 0 }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Waits for news; nothing happens unless the engine is `wanted`. May be dropped at any time.
    pub(super) async fn news(&mut self, wanted: bool) -> News {
        loop {
            match &mut self.state {
                State::Idle if wanted => self.ask(Duration::ZERO),
                State::Idle => std::future::pending().await,
                State::Asking(answer) => match answer.await {
                    Ok(version) => {
                        self.failures = 0;
                        self.state = State::Up(self.engine.happenings());
                        return News::Up(version);
                    }
                    Err(error) => {
                        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(8)).min(RETRY_MOST);
                        self.failures = self.failures.saturating_add(1);
                        if !wanted {
                            self.state = State::Idle;
                            continue;
                        }
                        self.ask(pause);
                        if self.failures == 1 {
                            return News::Down(error.into());
                        }
                    }
                },
                State::Up(happenings) => {
                    if let Some(happening) = happenings.next().await {
                        return News::Happened(happening);
                    }
                    // One failure is told already.
                    self.failures = 1;
                    self.ask(RETRY_FIRST);
                    let message = "The container engine has gone away; the vPLCs go on without being looked after.";
                    return News::Down(Error::new(Kind::EngineUnavailable, message));
                }
            }
        }
    }

    fn ask(&mut self, pause: Duration) {
        let engine = self.engine.clone();
        self.state = State::Asking(
            async move {
                sleep(pause).await;
                engine.version().await
            }
            .boxed(),
        );
    }
}
