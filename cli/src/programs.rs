//! PLC programs of a vPLC: their versions, their archives, and who the daemon is to the runtime.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use orchestratord::core::error::Kind;
use orchestratord_dbus::{Options, VplcProxy};
use serde::Serialize;
use serde_json::json;

use crate::client::Properties;
use crate::failure::{Failure, SUCCESS};
use crate::output::{Moment, Table, printable, show, size};

/// A version of a PLC program. The serialised shape is documented in `docs/cli.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgramView {
    /// Counts up from 1.
    pub number: u64,
    /// SHA-256 of the archive.
    pub sha256: String,
    size: u64,
    added: String,
    by: String,
    /// When it last proved to run; none if it never did.
    proven: Option<String>,
}

impl ProgramView {
    /// None if there is none.
    pub fn new(properties: &Properties) -> Option<Self> {
        let text = |name| properties.text(name).unwrap_or_default();
        let moment = |micros| Moment::from_micros(micros).rfc3339();
        Some(Self {
            number: properties.number("number")?,
            sha256: text("sha256"),
            size: properties.number("size").unwrap_or_default(),
            added: moment(properties.number("added").unwrap_or_default()),
            by: text("by"),
            proven: properties.number("proven").filter(|micros| *micros > 0).map(moment),
        })
    }

    fn short_hash(&self) -> String {
        self.sha256.chars().take(12).collect()
    }

    /// In one line.
    pub fn line(&self) -> String {
        format!("version {} ({}), {} by {}", self.number, self.short_hash(), self.added, self.by)
    }
}

/// The versions, one in a line; a star is at the one that is on the runtime.
pub fn table(versions: &[ProgramView], active: Option<&ProgramView>) -> String {
    let mut table = Table::new(&["VERSION", "SHA256", "SIZE", "ADDED", "BY", "PROVEN"]);
    for version in versions {
        let star = if active.is_some_and(|active| active.number == version.number) { " *" } else { "" };
        let (number, length) = (format!("{}{star}", version.number), size(version.size));
        let proven = version.proven.as_deref().unwrap_or("-");
        table.row(&[&number, &version.short_hash(), &length, &version.added, &version.by, proven]);
    }
    table.render()
}

/// The options of a call about this version.
pub fn of_version(version: Option<u32>) -> Options<'static> {
    version.map(|number| ("version", number.into())).into_iter().collect()
}

/// Writes the archive of a version.
pub async fn export(vplc: &VplcProxy<'_>, version: Option<u32>, file: &Path) -> Result<u8, Failure> {
    let archive = vplc.export(of_version(version)).await.map_err(|error| Failure::from_bus(&error))?;
    let mut archive = File::from(std::os::fd::OwnedFd::from(archive));
    if file == Path::new("-") {
        return match io::copy(&mut archive, &mut io::stdout().lock()) {
            Ok(_) => Ok(SUCCESS),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::BrokenPipe),
            Err(error) => Err(Failure::new(Kind::Failed, format!("Cannot write the program: {error}."))),
        };
    }
    // What is there already stays: it may be what somebody wants to go back to.
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).and_then(|mut new| {
        let copied = io::copy(&mut archive, &mut new).and_then(|_| new.flush()).and_then(|()| new.sync_all());
        // Half an archive is worth nothing; the error of the copy is what matters.
        copied.inspect_err(|_| drop(std::fs::remove_file(file)))
    });
    let failed =
        |error| Failure::new(Kind::Failed, format!("Cannot write the program to \"{}\": {error}.", file.display()));
    written.map(|()| SUCCESS).map_err(failed)
}

/// Prints user, password and certificate.
pub async fn credentials(vplc: &VplcProxy<'_>, json: bool) -> Result<u8, Failure> {
    let told = vplc.credentials(Options::new()).await.map_err(|error| Failure::from_bus(&error))?;
    let told = Properties::new(told);
    let text = |name| told.text(name).unwrap_or_default();
    let (user, password, certificate) = (text("user"), text("password"), text("certificate"));
    show(json, &json!({ "user": user, "password": password, "certificate": certificate }), || {
        let [user, password, certificate] = [&user, &password, &certificate].map(|value| printable(value));
        format!("User:         {user}\nPassword:     {password}\nCertificate:  {certificate}\n")
    })?;
    Ok(SUCCESS)
}
