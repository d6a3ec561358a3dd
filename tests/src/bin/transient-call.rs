//! Makes one call through the systemd runner, in a process of its own that a test can kill, or run in a sandbox.
//!
//! `transient-call BUS SPOOL run|adopt TAG TIMEOUT-MS log|answer DIRECTORY PROGRAM [ARGUMENT]...`
//! Prints each line of output as `stdout: LINE` or `stderr: LINE`, then how the call ended.
//!
//! `adopt` makes the call if there is none to adopt, as a daemon would that starts after a crash.
//!
//! `transient-call BUS reboot BOOT-ID-FILE` prints the boot id and asks for a reboot of the host.
//! `transient-call BUS available -` tells whether systemd is there.

use std::error::Error;
use std::time::Duration;

use orchestratord::systemd::available;
use orchestratord::systemd::logind::LogindHost;
use orchestratord::systemd::transient::TransientRunner;
use orchestratord::update::reboot::Host;
use orchestratord::update::runner::{Call, Lines, Runner, Stdout, Stream};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct Print;

impl Lines for Print {
    fn line(&self, stream: Stream, line: &str) {
        let stream = if stream == Stream::Stdout { "stdout" } else { "stderr" };
        println!("{stream}: {line}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [bus, what, boot_id] = words.as_slice() {
        let connection = zbus::connection::Builder::address(bus.as_str()).build().await?;
        if what == "available" {
            println!("{}", available(&connection).await);
            return Ok(());
        }
        let host = LogindHost::new(connection, boot_id);
        println!("{}", host.boot_id()?);
        println!("{}", host.reboot().await.map_or_else(|error| error.to_string(), |()| "accepted".to_owned()));
        return Ok(());
    }
    let [bus, spool, what, tag, timeout, stdout, directory, program, arguments @ ..] = words.as_slice() else {
        return Err("see the source for how to call this".into());
    };
    let call = Call {
        tag: tag.clone(),
        word: "ArtifactInstall".to_owned(),
        component: "gateway.R1".to_owned(),
        program: program.into(),
        arguments: arguments.to_vec(),
        directory: directory.into(),
        timeout: Duration::from_millis(timeout.parse()?),
        stdout: if stdout == "answer" { Stdout::Answer } else { Stdout::Log },
    };
    let connection = zbus::connection::Builder::address(bus.as_str()).build().await?;
    let runner = TransientRunner::new(connection, spool).await?;
    let cancel = CancellationToken::new();
    if what == "adopt"
        && let Some(ended) = runner.adopt(&call, &Print, &cancel).await?
    {
        println!("adopted: {:?}", ended.exit);
        return Ok(());
    }
    println!("ended: {:?}", runner.run(&call, &Print, &cancel).await?.exit);
    Ok(())
}
