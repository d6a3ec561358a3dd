//! The PLC program of a vPLC as a Component.

use std::fs::File;
use std::io;

use orchestratord::core::error::Kind;
use orchestratord::vplc::program::archive::ARCHIVE_LIMIT;
use orchestratord::vplc::program::store::sha256;
use orchestratord_dbus::Options;
use serde::{Deserialize, Serialize};

use super::{Call, Component, Desk, payload, provided};
use crate::failure::Failure;
use crate::programs::of_version;
use crate::vplcs::VplcView;

pub(super) struct ProgramComponent(pub(super) Call);

impl AsRef<Call> for ProgramComponent {
    fn as_ref(&self) -> &Call {
        &self.0
    }
}

/// How it was before.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    /// Number of the version; none if there was no program that came from here.
    number: Option<u32>,
    /// Whether the PLC ran.
    running: bool,
}

impl ProgramComponent {
    fn hash(vplc: &VplcView) -> Option<&str> {
        vplc.program.as_ref().map(|program| program.sha256.as_str())
    }

    fn runs(vplc: &VplcView, hash: &str) -> bool {
        Self::hash(vplc) == Some(hash) && vplc.plc == "running"
    }

    fn number(vplc: &VplcView) -> Option<u32> {
        vplc.program.as_ref().and_then(|program| program.number.try_into().ok())
    }

    /// The payload and its hash.
    fn payload(&self) -> Result<(File, String), Failure> {
        let Self(call) = self;
        let file = payload::open(call)?;
        let mut file = file.ok_or_else(|| call.fail(Kind::InvalidArtifact, "got an Artifact without a program"))?;
        let hashed = sha256(&mut file).and_then(|(hash, _)| io::Seek::rewind(&mut file).map(|()| hash));
        let hash =
            hashed.map_err(|error| call.fail(Kind::Failed, &format!("got a program that cannot be read: {error}")))?;
        Ok((file, hash))
    }
}

impl Component for ProgramComponent {
    async fn provides(&self, desk: &Desk) -> Result<String, Failure> {
        provided::lines(&self.0, Self::hash(&desk.look().await?))
    }

    async fn inventory(&self, desk: &Desk) -> Result<String, Failure> {
        let vplc = desk.look().await?;
        let program = vplc.program.as_ref();
        let program = program.map(|program| format!("program={}\nprogram_sha256={}\n", program.number, program.sha256));
        Ok(format!("vplc={}\nplc={}\n{}", vplc.name, vplc.plc, program.unwrap_or_default()))
    }

    async fn download(&self, desk: &Desk) -> Result<(), Failure> {
        let Self(call) = self;
        let vplc = desk.settled().await?;
        // Better now than when others have installed already.
        if vplc.container != "running" {
            return Err(
                call.fail(Kind::NotSupported, &format!("is {}; it takes a program while it runs", vplc.container))
            );
        }
        call.note("before", &Before { number: Self::number(&vplc), running: vplc.plc == "running" })?;
        if !payload::store(call, ARCHIVE_LIMIT)? {
            return Err(call.fail(Kind::InvalidArtifact, "got an Artifact without a payload file"));
        }
        Ok(())
    }

    /// A runtime cannot be made to forget its program; so one that had none cannot have none again.
    async fn supports_rollback(&self, desk: &Desk) -> Result<bool, Failure> {
        let Some(before) = self.0.recall::<Before>("before")? else { return Ok(true) };
        Ok(before.number.is_some() || (!before.running && desk.settled().await?.program.is_none()))
    }

    async fn install(&self, desk: &Desk) -> Result<(), Failure> {
        let Self(call) = self;
        let (file, hash) = self.payload()?;
        let vplc = desk.settled().await?;
        provided::remember(call, &provided::lines(call, Self::hash(&vplc))?, &hash)?;
        call.note("wanted", &hash)?;
        if !Self::runs(&vplc, &hash) {
            desk.perform(async |vplc| vplc.deploy(zbus::Fd::from(&file), Options::new()).await).await?;
        }
        self.commit(desk).await
    }

    async fn commit(&self, desk: &Desk) -> Result<(), Failure> {
        let Self(call) = self;
        let wanted: String = call.recall("wanted")?.ok_or_else(|| call.fail(Kind::Failed, "got no program yet"))?;
        if desk.is_soon(|vplc| Self::runs(vplc, &wanted)).await? {
            return Ok(());
        }
        let vplc = desk.look().await?;
        Err(call.fail(Kind::ProgramFailed, &format!("does not run the new program: its PLC is \"{}\"", vplc.plc)))
    }

    async fn roll_back(&self, desk: &Desk) -> Result<(), Failure> {
        let Self(call) = self;
        let Some(before) = call.recall::<Before>("before")? else { return Ok(()) };
        let vplc = desk.settled().await?;
        let good = |vplc: &VplcView| Self::number(vplc) == before.number && (!before.running || vplc.plc == "running");
        let other = before.number.is_some() && Self::number(&vplc) != before.number;
        if other || (before.number.is_some() && !desk.is_soon(good).await?) {
            desk.perform(async |vplc| vplc.rollback_program(of_version(before.number)).await).await?;
        }
        if desk.is_soon(good).await? {
            return Ok(());
        }
        Err(call.fail(Kind::Inconsistent, "does not run the program that it had before"))
    }
}
