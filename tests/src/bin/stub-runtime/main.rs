//! A stand-in for the OpenPLC runtime: the part of its REST interface that orchestratord uses, over TLS with a certificate that it
//! signs itself, and a Modbus TCP server that tells which program runs. It stands in where a compiler of a gigabyte cannot be had,
//! and it fails on request.
//!
//! | variable | |
//! |---|---|
//! | `OPENPLC_PERSISTENT_DATA_DIR` | users; as with the real one, default `/var/run/runtime` |
//! | `STUB_WORK` | program, certificate; what a new image does not have. Default `/workdir` |
//! | `STUB_HTTPS`, `STUB_MODBUS` | addresses, default `0.0.0.0:8443` and `0.0.0.0:502`. The ports that were got are on standard output |
//! | `STUB_MODBUS_ALWAYS` | set: the Modbus server is there also while no program runs, and says 0 |
//! | `STUB_PACE` | milliseconds that a compilation and a start take, default 200 |
//! | `STUB_TOKEN_SECONDS` | how long a token is valid, default 900 |
//! | `STUB_VERSION` | the version it tells, default `4.1.9` |
//! | `STUB_EXIT` | `SECONDS:CODE`: ends so long after its start |
//! | `STUB_COMPILE` | `fail`: no program compiles |
//! | `STUB_FAULT` | what is wrong with its answers, see `rest::Fault`; a file `fault` in `STUB_WORK` says otherwise from then on |
//!
//! The file `stub.json` in a program says how the program behaves: `{"number": 7, "behaviour": "never-running"}`, see
//! [`plc::Behaviour`].
//!
//! Holding and input registers: 0 the number of the program, 1 a counter of its scans, 2 how often this process started it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code; a panic is how a test fails")]

mod modbus;
mod plc;
mod rest;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let data = PathBuf::from(variable("OPENPLC_PERSISTENT_DATA_DIR", "/var/run/runtime"));
    let work = PathBuf::from(variable("STUB_WORK", "/workdir"));
    for directory in [&data, &work] {
        std::fs::create_dir_all(directory).expect("a directory");
    }
    let pace = Duration::from_millis(variable("STUB_PACE", "200").parse().expect("milliseconds"));
    let plc = plc::Plc::new(&work, pace);
    let https: SocketAddr = variable("STUB_HTTPS", "0.0.0.0:8443").parse().expect("an address");
    let modbus: SocketAddr = variable("STUB_MODBUS", "0.0.0.0:502").parse().expect("an address");
    let listener = TcpListener::bind(https).await.expect("the address of STUB_HTTPS is free");
    let acceptor = TlsAcceptor::from(Arc::new(rest::tls(&work)));
    let rest = Arc::new(rest::Rest::new(plc.clone(), data, work));
    // The port of the Modbus server is found once and stays, as in a container.
    let modbus = TcpListener::bind(modbus).await.and_then(|listener| listener.local_addr());
    let modbus = modbus.expect("the address of STUB_MODBUS is free");
    println!("https {} modbus {}", listener.local_addr().unwrap().port(), modbus.port());
    let always = std::env::var_os("STUB_MODBUS_ALWAYS").is_some();
    tokio::spawn(modbus::serve(plc.clone(), modbus, always));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (acceptor, rest) = (acceptor.clone(), rest.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    rest.connection(stream).await;
                }
            });
        }
    });
    plc.boot();
    if let Some((seconds, code)) = variable("STUB_EXIT", "").split_once(':') {
        let (seconds, code) = (seconds.parse().expect("seconds"), code.parse().expect("an exit code"));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            eprintln!("stub-runtime: ends as STUB_EXIT says");
            std::process::exit(code);
        });
    }
    // As process 1 of a container it has no default action for signals.
    let mut terminate = signal(SignalKind::terminate()).expect("signals");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    eprintln!("stub-runtime: told to end");
}
