//! A Mender server, as far as devices ask it for Artifacts of a Release.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use orchestratord::update::artifact::{self, VerifyKeys};
use serde_json::{Value, json};

use super::{Reply, Request, Server};

/// What the server has.
#[derive(Debug, Clone)]
pub struct Item {
    /// As the list has it.
    pub value: Value,
    /// The bytes of the Artifact.
    pub bytes: Vec<u8>,
}

impl Item {
    /// What a server would tell of this Artifact.
    pub fn of(id: &str, path: &Path) -> Self {
        let keys = VerifyKeys::load(&[]).expect("no keys");
        let (header, size) = artifact::read_header(path, &keys).expect("an Artifact");
        let mut provides = header.provides.clone();
        provides.insert("artifact_name".to_owned(), header.artifact_name.clone());
        let mut depends: BTreeMap<String, Vec<String>> = header.depends.clone();
        depends.insert("device_type".to_owned(), header.device_types.clone());
        let value = json!({
            "id": id, "name": header.artifact_name, "size": size, "signed": header.signed,
            "device_types_compatible": header.device_types, "artifact_provides": provides, "artifact_depends": depends,
            "clears_artifact_provides": header.clears_provides, "info": {"format": "mender", "version": 3},
            "updates": [{"type_info": {"type": header.payload_type}, "files": [], "meta_data": null}],
        });
        Self { value, bytes: std::fs::read(path).expect("an Artifact") }
    }
}

#[derive(Debug, Default)]
struct State {
    items: Mutex<Vec<Item>>,
    tokens: Mutex<Vec<String>>,
    links: AtomicUsize,
    /// Links before this one are not valid.
    valid_from: AtomicUsize,
    /// How many downloads are whole before one breaks, after how many bytes, and its link expires.
    cut: Mutex<Option<(usize, usize)>>,
}

/// The server. Links hold a number in their query, as a signature.
#[derive(Debug)]
pub struct MenderServer {
    server: Server,
    state: Arc<State>,
}

impl MenderServer {
    /// A server without Artifacts, which accepts this token.
    pub fn start(token: &str) -> Self {
        let state = Arc::new(State::default());
        state.tokens.lock().expect("tokens").push(token.to_owned());
        let shared = state.clone();
        let server = Server::start(move |request, reply| answer(&shared, request, reply));
        Self { server, state }
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// Adds an Artifact.
    pub fn add(&self, item: Item) {
        self.state.items.lock().expect("items").push(item);
    }

    /// Replaces all Artifacts by this one.
    pub fn replace(&self, item: Item) {
        *self.state.items.lock().expect("items") = vec![item];
    }

    /// From now on only this token is accepted.
    pub fn accept(&self, token: &str) {
        *self.state.tokens.lock().expect("tokens") = vec![token.to_owned()];
    }

    /// After so many downloads, one breaks after so many bytes, and its link is not valid any more.
    pub fn expire_after(&self, downloads: usize, bytes: usize) {
        *self.state.cut.lock().expect("cut") = Some((downloads, bytes));
    }
}

fn answer(state: &State, request: &Request, reply: &mut Reply) {
    let target = request.target.clone();
    if let Some(rest) = target.strip_prefix("/storage/") {
        return store(state, request, rest, reply);
    }
    let accepted =
        state.tokens.lock().expect("tokens").iter().map(|token| format!("Bearer {token}")).collect::<Vec<_>>();
    if !request.header("authorization").is_some_and(|sent| accepted.iter().any(|token| token == sent)) {
        return reply.send("401 Unauthorized", &[], b"{}");
    }
    let items = state.items.lock().expect("items").clone();
    let json = [("Content-Type", "application/json".to_owned())];
    if let Some(query) = target.strip_prefix("/api/devices/v1/deployments/artifacts?") {
        let wanted: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let fits = |item: &&Item| {
            let types = item.value["device_types_compatible"].as_array().cloned().unwrap_or_default();
            item.value["name"] == wanted["release_name"] && types.iter().any(|kind| *kind == wanted["device_type"])
        };
        let list: Vec<Value> = items.iter().filter(fits).map(|item| item.value.clone()).collect();
        return reply.send("200 OK", &json, Value::Array(list).to_string().as_bytes());
    }
    let id =
        target.strip_prefix("/api/devices/v1/deployments/artifacts/").and_then(|rest| rest.strip_suffix("/download"));
    if id.is_some_and(|id| items.iter().any(|item| item.value["id"] == id)) {
        let link = state.links.fetch_add(1, Ordering::SeqCst);
        let host = request.header("host").expect("a host");
        let uri = format!("http://{host}/storage/{}?X-Signature=secret-{link}", id.expect("an id"));
        let link = json!({"uri": uri, "expire": "2030-01-01T00:00:00Z"});
        return reply.send("200 OK", &json, link.to_string().as_bytes());
    }
    reply.send("404 Not Found", &json, b"{\"error\": \"not found\"}");
}

fn store(state: &State, request: &Request, rest: &str, reply: &mut Reply) {
    // A storage refuses what has two authorisations, and what has none any more.
    let number = rest.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
    let valid = number.is_some_and(|number| number >= state.valid_from.load(Ordering::SeqCst));
    if !valid || request.header("authorization").is_some() {
        return reply.send("403 Forbidden", &[], b"");
    }
    let id = rest.split('?').next().expect("an id");
    let items = state.items.lock().expect("items").clone();
    let Some(item) = items.iter().find(|item| item.value["id"] == id) else {
        return reply.send("404 Not Found", &[], b"");
    };
    let mut armed = state.cut.lock().expect("cut");
    let cut = armed.take_if(|(left, _)| *left == 0).map(|(_, bytes)| bytes);
    if let Some((left, _)) = &mut *armed {
        *left -= 1;
    }
    drop(armed);
    if cut.is_some() {
        state.valid_from.store(state.links.load(Ordering::SeqCst), Ordering::SeqCst);
    }
    reply.part_of_file(request, &item.bytes, cut.unwrap_or(usize::MAX - item.bytes.len()));
}
