//! `org.orchestratord1.Vplc`: a virtual PLC.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]

mod dictionaries;

use std::collections::HashMap;
use std::fs::File;

use tokio::sync::watch;
use zbus::message::Header;
use zbus::{Connection, OwnedFd, OwnedObjectPath, OwnedVariant, Variant, interface};

use self::dictionaries::{Program, Serial, Versions, used};
use super::auth::Action;
use super::gate::Gate;
use super::host::unknown_metric;
use super::options::{Options, regular};
use super::view::{error_pair, job_path, text, view};
use super::{Publisher, Refusal};
use crate::core::error::{Error, Kind};
use crate::core::history::Point;
use crate::vplc::engine::Errand;
use crate::vplc::handle::{Order, ProgramOrder, Upgrade, VplcHandle, VplcStatus};
use crate::vplc::program::runtime::Credentials;
use crate::vplc::usage::Metric;

/// Lines that are shown if nobody says how many.
const LINES: u32 = 100;

view! {
    /// What a vPLC shows.
    VplcView of "org.orchestratord1.Vplc" {
        "Spec" spec: String,
        "Desired" desired: String,
        "Container" container: String,
        "Runtime" runtime: String,
        "Image" image: String,
        "Since" since: u64,
        "Restarts" restarts: u32,
        "Plc" plc: String,
        "Program" program: Program,
        "Versions" versions: Versions,
        "Serial" serial: Serial,
        "RealTime" real_time: String,
        "RealTimeReason" real_time_reason: String,
        "LastError" last_error: (String, String),
    }
}

impl From<&VplcStatus> for VplcView {
    fn from(status: &VplcStatus) -> Self {
        Self {
            spec: text(status.spec.as_str()),
            desired: status.desired.to_owned(),
            container: status.container.to_owned(),
            runtime: status.runtime.to_owned(),
            image: text(status.image.as_str()),
            since: status.since,
            restarts: status.restarts,
            plc: status.plc.to_owned(),
            program: Program::new(status.program.clone()),
            versions: Versions::new(status.versions.clone()),
            serial: Serial::new(status.serial.clone()),
            real_time: status.real_time.grant.as_str().to_owned(),
            real_time_reason: text(status.real_time.reason.as_str()),
            last_error: error_pair(status.error.as_ref()),
        }
    }
}

/// A vPLC.
pub(super) struct Vplc {
    name: String,
    handle: VplcHandle,
    publisher: Publisher,
    gate: Gate,
    view: watch::Receiver<VplcView>,
}

impl Vplc {
    pub(super) fn new(
        name: String,
        handle: VplcHandle,
        publisher: Publisher,
        gate: Gate,
        view: watch::Receiver<VplcView>,
    ) -> Self {
        Self { name, handle, publisher, gate, view }
    }

    /// Lets an order in, and turns its acceptance into the path of its Job.
    async fn order(
        &self,
        order: Order,
        method: &'static str,
        options: HashMap<String, OwnedVariant>,
        call: &Header<'_>,
        connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let work = |caller| async move {
            Options::new(method, &[], options)?;
            let id = self.handle.order(self.name.clone(), order, caller).await?;
            tracing::info!(job = id, vplc = self.name, caller, "{method} of a vPLC was called over the bus");
            self.publisher.flush().await?;
            Ok(job_path(id))
        };
        self.gate.begin(connection, call, Action::Vplc, work).await
    }

    /// Lets an order about the program in, and turns its acceptance into the path of its Job.
    async fn order_program(
        &self,
        order: Result<ProgramOrder, Error>,
        method: &'static str,
        options: HashMap<String, OwnedVariant>,
        call: &Header<'_>,
        connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let work = |caller| async move {
            Options::new(method, &[], options)?;
            let id = self.handle.program(self.name.clone(), order?, caller).await?;
            tracing::info!(job = id, vplc = self.name, caller, "{method} of a vPLC was called over the bus");
            self.publisher.flush().await?;
            Ok(job_path(id))
        };
        self.gate.begin(connection, call, Action::Vplc, work).await
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// A virtual PLC.
#[interface(name = "org.orchestratord1.Vplc")]
impl Vplc {
    /// Starts it, also if it had ended by itself too often. From now on it runs, also after a restart of the host.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: none
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn start(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.order(Order::Start, "Start", options, &call, connection).await
    }

    /// Stops it and takes it off the network. It stays so until somebody starts it, also after a restart of the host.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: none
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn stop(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.order(Order::Stop, "Stop", options, &call, connection).await
    }

    /// Stops and starts its runtime; its NICs are not touched.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: none
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn restart(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.order(Order::Restart, "Restart", options, &call, connection).await
    }

    /// Gives it another image and changes nothing else: what Apply does with a specification that names the other image. If the
    /// runtime of the new image does not get well, or does not run the program, the Job ends with "rolled-back" and everything is as
    /// before.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @reference: name of the image with a tag or a digest
    /// @options: "image" h: an archive as "docker save" writes it, from which the image is loaded first; "pin" s: which image the
    /// reference is to stand for, as the last word of Image has it, to go back to one that was there before
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn upgrade(
        &self,
        reference: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let upgrade = |caller| async move {
            let mut options = Options::new("Upgrade", &["image", "pin"], options)?;
            let (archive, pin) = (options.image()?, options.pin()?);
            let upgrade = Upgrade { reference: reference.to_owned(), archive, pin, caller };
            let id = self.handle.upgrade(self.name.clone(), upgrade).await?;
            tracing::info!(job = id, vplc = self.name, caller, "A vPLC is upgraded over the bus");
            self.publisher.flush().await?;
            Ok(job_path(id))
        };
        self.gate.begin(connection, &call, Action::Vplc, upgrade).await
    }

    /// Puts a PLC program on the runtime, and proves that it runs. If it does not, the program that was there before is put back, and
    /// the Job ends with "rolled-back". Cancelling the Job goes back, too. The vPLC has to run, and its specification to have a
    /// section "program".
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @program: the program, a zip archive as the editor makes it: an open regular file
    /// @options: none
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn deploy(
        &self,
        program: OwnedFd,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let file = regular(File::from(std::os::fd::OwnedFd::from(program)));
        let file =
            file.map_err(|fault| Error::new(Kind::InvalidArgs, format!("The argument \"program\" of Deploy {fault}.")));
        self.order_program(file.map(ProgramOrder::Deploy), "Deploy", options, &call, connection).await
    }

    /// Puts the program on the runtime that proved to run before the one that is there, or any other version that is kept.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: "version" u: number of the version
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn rollback_program(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let known = Options::new("RollbackProgram", &["version"], options);
        let order = known.and_then(|mut options| Ok(ProgramOrder::Rollback(options.version()?)));
        self.order_program(order, "RollbackProgram", HashMap::new(), &call, connection).await
    }

    /// The archive of a version of the program, as it was deployed. Who asks for it is written down in the audit log.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: "version" u: number of the version; the one that is on the runtime if it is not given
    /// @program: the archive, open for reading
    #[zbus(out_args("program"))]
    async fn export(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedFd, Refusal> {
        let export = |caller| async move {
            let mut options = Options::new("Export", &["version"], options)?;
            let (file, version) = self.handle.export(self.name.clone(), options.version()?).await?;
            tracing::info!(vplc = self.name, version = version.number, caller, "A program was exported over the bus");
            Ok(OwnedFd::from(std::os::fd::OwnedFd::from(file)))
        };
        self.gate.change(connection, &call, Action::Vplc, export).await
    }

    /// Who the daemon is to the runtime: "user" s, "password" s, and "certificate" s, the SHA-256 of the certificate that the runtime
    /// has to show (empty before the first contact). Who asks for it is written down in the audit log. More keys may come.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: none
    /// @credentials: the credentials
    #[zbus(out_args("credentials"))]
    async fn credentials(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<HashMap<String, Variant<'static>>, Refusal> {
        let tell = |caller| async move {
            Options::new("Credentials", &[], options)?;
            let Credentials { user, password, certificate, .. } = self.handle.credentials(self.name.clone()).await?;
            tracing::info!(vplc = self.name, caller, "The credentials of a runtime were read over the bus");
            let entries = [("user", user), ("password", password), ("certificate", certificate.unwrap_or_default())];
            Ok(entries.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect())
        };
        self.gate.change(connection, &call, Action::Vplc, tell).await
    }

    /// Lets a vPLC start again that had ended by itself too often.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: none
    async fn reset_failed(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        let reset = |caller| async move {
            Options::new("ResetFailed", &[], options)?;
            self.handle.reset(self.name.clone()).await?;
            tracing::info!(vplc = self.name, caller, "A vPLC was reset over the bus");
            self.publisher.flush().await?;
            Ok(())
        };
        self.gate.change(connection, &call, Action::Vplc, reset).await
    }

    /// The last lines that the runtime has printed.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: "lines" u: how many, 100 if it is not given, 10000 at most
    /// @lines: the lines, the oldest first
    #[zbus(out_args("lines"))]
    async fn logs(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, Refusal> {
        self.gate.inspect(connection, &call, Action::Vplc).await?;
        let mut options = Options::new("Logs", &["lines"], options)?;
        let lines = options.lines()?.unwrap_or(LINES);
        Ok(self.handle.lines(self.name.clone(), lines).await?.into_iter().map(text).collect())
    }

    /// What was recorded of its usage, a sample each 15 s for 48 hours while it runs. Empty unless the option HostHistory of the
    /// configuration is set.
    /// @metric: "cpu" (processors that were busy), "memory" (bytes), "received" and "sent" (bytes in a second), "overruns" (times that a
    ///   task of the PLC program was late)
    /// @since: seconds since 1970
    /// @points: seconds since 1970 and the value; at most 1000, each the mean of the samples that fall together
    #[zbus(out_args("points"))]
    async fn history(&self, metric: &str, since: u64) -> Result<Vec<Point>, Refusal> {
        let Some(metric) = Metric::named(metric) else {
            return Err(unknown_metric(metric, &Metric::ALL.map(Metric::as_str)));
        };
        Ok(self.handle.history(self.name.clone(), metric, since).await?)
    }

    /// The last lines that the runtime has printed, and all that it prints from now on. It ends when the runtime ends,
    /// and whenever the reader closes it.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: "lines" u: how many of the last lines, 100 if it is not given, 10000 at most
    /// @output: the reading end of a stream
    #[zbus(out_args("output"))]
    async fn follow_logs(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedFd, Refusal> {
        self.gate.inspect(connection, &call, Action::Vplc).await?;
        let mut options = Options::new("FollowLogs", &["lines"], options)?;
        let lines = options.lines()?.unwrap_or(LINES);
        let output = self.handle.follow(self.name.clone(), lines).await?;
        Ok(std::os::fd::OwnedFd::from(output).into())
    }

    /// Runs a command beside the PLC, as the user that the runtime has. Its streams or its terminal go over a socket, in frames that
    /// docs/vplc.md describes; its exit code comes last. A command whose caller closes the socket gets SIGHUP.
    /// Needs the polkit action org.orchestratord1.vplc-shell.
    /// @command: program and arguments
    /// @options: "terminal" s: the command has a terminal of this kind (such as "xterm"), and one stream in place of three;
    /// "rows" u, "columns" u: size of the terminal, 24 and 80 if they are not given
    /// @session: the caller's end of the socket
    #[zbus(out_args("session"))]
    async fn shell(
        &self,
        command: Vec<String>,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedFd, Refusal> {
        let work = |caller| async move {
            let mut options = Options::new("Shell", &["terminal", "rows", "columns"], options)?;
            let terminal = options.terminal()?;
            if command.first().is_none_or(String::is_empty) {
                let message = "The argument \"command\" of Shell names no program.";
                return Err(Error::new(Kind::InvalidArgs, message).into());
            }
            tracing::info!(vplc = self.name, caller, program = command[0], "A command is run in a vPLC");
            let session = self.handle.run(self.name.clone(), Errand { command, terminal }).await?;
            Ok(std::os::fd::OwnedFd::from(session).into())
        };
        self.gate.change(connection, &call, Action::VplcShell, work).await
    }

    /// Name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> &str {
        &self.name
    }

    /// The specification that was applied, as it was given.
    #[zbus(property)]
    fn spec(&self) -> String {
        self.view.borrow().spec.clone()
    }

    /// What is wanted: "running", "stopped" or "deleted". More words may come.
    #[zbus(property)]
    fn desired(&self) -> String {
        self.view.borrow().desired.clone()
    }

    /// "unknown" (the engine has not been asked yet), "starting", "running", "stopping", "stopped", "failed" (it ended by itself
    /// too often, see LastError and ResetFailed) or "deleting". More words may come.
    #[zbus(property)]
    fn container(&self) -> String {
        self.view.borrow().container.clone()
    }

    /// How well the runtime is: "starting", "healthy" or "unhealthy"; empty if it does not run, or if nobody asks it. More words
    /// may come.
    #[zbus(property)]
    fn runtime(&self) -> String {
        self.view.borrow().runtime.clone()
    }

    /// Name of its image, a blank, and the digest that the name stood for when it was applied.
    #[zbus(property)]
    fn image(&self) -> String {
        self.view.borrow().image.clone()
    }

    /// Since when Container is what it is, in microseconds since 1970.
    #[zbus(property)]
    fn since(&self) -> u64 {
        self.view.borrow().since
    }

    /// How often it was started again because it had ended by itself, since the daemon started.
    #[zbus(property)]
    fn restarts(&self) -> u32 {
        self.view.borrow().restarts
    }

    /// What the PLC in it does: "running", "stopped", "empty" (no program), "init", "error", "transitioning", "no-response" or "unknown";
    /// empty if it does not run, was not asked yet or does not answer. It is asked every 15 s. More words may come.
    #[zbus(property)]
    fn plc(&self) -> String {
        self.view.borrow().plc.clone()
    }

    /// The PLC program that is on the runtime: "number" u of the version, "sha256" s and "size" t of the archive, "added" t (when it
    /// came, in microseconds since 1970), "by" s (who brought it), "proven" t (when it last proved to run, 0 if never). Empty if there
    /// is none, or one that did not come from here. More keys may come.
    #[zbus(property)]
    fn program(&self) -> HashMap<String, Variant<'static>> {
        self.view.borrow().program.entries()
    }

    /// The versions of the program that are kept, the oldest first, each with the keys of Program. Export gives their archives.
    #[zbus(property)]
    fn versions(&self) -> Vec<HashMap<String, Variant<'static>>> {
        self.view.borrow().versions.entries()
    }

    /// Its serial ports, in the order of the specification: "name" s (in /dev/serial/by-id of the host), "node" s (where the vPLC has it),
    /// "shared" b, "device" s (its node on the host; empty while it is not plugged in), "connected" b (the runtime runs and has the node),
    /// "error" s (why not, although it is plugged in). More keys may come.
    #[zbus(property)]
    fn serial(&self) -> Vec<HashMap<String, Variant<'static>>> {
        self.view.borrow().serial.entries()
    }

    /// What it uses at the moment of the call: "cpu" d (processors that were busy with it since the reading before; 1 is one of them all the
    /// time), "cpu-time" t (microseconds that processors have spent on it), "memory" t (bytes, without the cache of files), "received" t and
    /// "sent" t (bytes over its links), "restarts" u, "overruns" t (times that a task of the PLC program was late since the program was
    /// started; asked for once a minute). Without those that are not known. More keys may come.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn usage(&self) -> HashMap<String, Variant<'static>> {
        self.handle.usage(self.name.clone()).await.map(|usage| used(&usage)).unwrap_or_default()
    }

    /// Whether what the specification asks for under "real_time" and "cpuset" is granted, as it was seen on the threads that run:
    /// "granted", "degraded" (something is less than asked for) or "off" (nothing is asked for, or no program runs). It is looked at
    /// when the runtime was started, and every 15 s. More words may come.
    #[zbus(property)]
    fn real_time(&self) -> String {
        self.view.borrow().real_time.clone()
    }

    /// Why RealTime is "degraded" or "off", in full sentences; empty if it is "granted", or if the vPLC does not run.
    #[zbus(property)]
    fn real_time_reason(&self) -> String {
        self.view.borrow().real_time_reason.clone()
    }

    /// Error name and message of what went wrong last; both are empty after a success.
    #[zbus(property)]
    fn last_error(&self) -> (String, String) {
        self.view.borrow().last_error.clone()
    }
}
