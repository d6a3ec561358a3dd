//! A peer on the bus that speaks the documented interface of the Mender client's authentication service.

use std::sync::{Arc, Mutex};

use zbus::Connection;
use zbus::object_server::SignalEmitter;

use crate::bus::Bus;

/// Rules of the bus for the service, for [`Bus::with_policies`]: anybody may own it and call it.
pub const POLICY: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><policy context="default">
  <allow own="io.mender.AuthenticationManager"/>
  <allow send_destination="io.mender.AuthenticationManager"/>
</policy></busconfig>
"#;
const PATH: &str = "/io/mender/AuthenticationManager";

#[derive(Debug, Default)]
struct State {
    /// What it has.
    token: (String, String),
    /// What a fetch brings, one after the other.
    next: Vec<(String, String)>,
    fetches: usize,
}

struct Interface(Arc<Mutex<State>>);

#[zbus::interface(name = "io.mender.Authentication1")]
impl Interface {
    fn get_jwt_token(&self) -> (String, String) {
        self.0.lock().expect("state").token.clone()
    }

    async fn fetch_jwt_token(&self, #[zbus(signal_emitter)] emitter: SignalEmitter<'_>) -> bool {
        let (token, server) = {
            let mut state = self.0.lock().expect("state");
            state.fetches += 1;
            state.token = if state.next.is_empty() { Default::default() } else { state.next.remove(0) };
            state.token.clone()
        };
        emitter.jwt_token_state_change(&token, &server).await.is_ok()
    }

    #[zbus(signal)]
    async fn jwt_token_state_change(emitter: &SignalEmitter<'_>, token: &str, server_url: &str) -> zbus::Result<()>;
}

/// The service.
#[derive(Debug)]
pub struct Authentication {
    state: Arc<Mutex<State>>,
    _connection: Connection,
}

impl Authentication {
    /// The service on this bus. It has this token, and a fetch brings the next ones; each with the server it is for.
    pub async fn start(bus: &Bus, token: (&str, &str), next: &[(&str, &str)]) -> Self {
        let own = |(token, server): &(&str, &str)| ((*token).to_owned(), (*server).to_owned());
        let state = State { token: own(&token), next: next.iter().map(own).collect(), fetches: 0 };
        let state = Arc::new(Mutex::new(state));
        let builder = bus.builder().serve_at(PATH, Interface(state.clone())).name("io.mender.AuthenticationManager");
        let connection = builder.build().await.expect("the service on the bus");
        Self { state, _connection: connection }
    }

    /// How often it was told to fetch a token.
    pub fn fetches(&self) -> usize {
        self.state.lock().expect("state").fetches
    }
}
