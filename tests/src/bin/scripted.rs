//! The real process frame over a scripted update domain: what the tests of signals, the service manager and the bus
//! name start.
//!
//! Standard input is the script: each line is one order, carried out at once. `silent` leaves every request from then on
//! without an answer, `busy NAME` and `idle` set the state, `end` ends the actor.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code; a panic is how a test fails")]

use std::os::fd::AsFd;
use std::process::ExitCode;

use futures_util::FutureExt;
use orchestrator_tests::scripted::{Domain, Network, Vplcs, component, system};
use orchestratord::core::audit::Audit;
use orchestratord::core::error::{Error, Kind};
use orchestratord::logging;
use orchestratord::network::handle::NetworkStatus;
use orchestratord::supervisor::{self, Parts};
use orchestratord::update::handle::{Request, UpdateState};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    logging::start(tracing::Level::INFO).expect("the log");
    let result = supervisor::block_on(async {
        let (domain, update) = Domain::new(system(vec![component("gateway", "1")]));
        let stop = CancellationToken::new();
        let jobs = domain.jobs.clone();
        let actor = act(domain, stop.clone()).boxed();
        let (_network, network) = Network::start(NetworkStatus::default());
        let (_vplcs, vplc) = Vplcs::start();
        // Nobody looks at what this one writes down.
        let directory = tempfile::tempdir()?;
        let audit = Audit::open(directory.path());
        supervisor::run(Parts { update, network, vplc, jobs, audit, actor, stop }).await
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn act(mut domain: Domain, stop: CancellationToken) {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut orders = BufReader::new(pipe::Receiver::from_owned_fd(stdin).expect("standard input is a pipe")).lines();
    let mut silent = Vec::new();
    let mut answering = true;
    println!("acting");
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                println!("stopped");
                return;
            }
            Some(request) = domain.requests.recv() => match request {
                request if !answering => silent.push(request),
                Request::Ping(reply) => reply.send(()).unwrap(),
                Request::Reload(reply) => {
                    println!("reloaded");
                    reply.send(Ok(())).unwrap();
                }
                Request::Install(_, _, _, reply) => {
                    reply.send(Err(Error::new(Kind::InvalidManifest, "The Manifest is not in the script."))).unwrap();
                }
                other => panic!("the script has no answer to {other:?}"),
            },
            Ok(Some(order)) = orders.next_line() => match order.split_once(' ').unwrap_or((&order, "")) {
                ("silent", _) => answering = false,
                ("busy", name) => domain.status.send_modify(|status| {
                    status.state = UpdateState::Busy;
                    name.clone_into(&mut status.manifest);
                }),
                ("idle", _) => domain.status.send_modify(|status| status.state = UpdateState::Idle),
                ("end", _) => return,
                other => panic!("unknown order {other:?}"),
            },
        }
    }
}
