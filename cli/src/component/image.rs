//! The image of a vPLC as a Component.

use orchestratord::core::error::Kind;
use orchestratord_dbus::Options;
use serde::{Deserialize, Serialize};

use super::{Call, Component, Desk, NOTE_LIMIT, payload, provided, storage};
use crate::failure::Failure;
use crate::vplcs::VplcView;

pub(super) struct ImageComponent(pub(super) Call);

impl AsRef<Call> for ImageComponent {
    fn as_ref(&self) -> &Call {
        &self.0
    }
}

/// How it was before.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    /// Name of the image, a blank, and what it was.
    image: String,
    /// Whether the PLC ran.
    running: bool,
}

/// The meta-data of the Artifact.
#[derive(Debug, Deserialize)]
struct MetaData {
    /// Name of the image.
    reference: String,
}

impl ImageComponent {
    /// Whether a vPLC has this image and is no worse than it was.
    fn works(vplc: &VplcView, image: &str, before: Option<&Before>) -> bool {
        let up = vplc.container == "running" && vplc.runtime != "unhealthy";
        let plc = vplc.plc == "running" || !before.is_some_and(|before| before.running);
        vplc.image == image && (vplc.desired == "stopped" || (up && plc))
    }

    fn reference(&self) -> Result<String, Failure> {
        let path = self.0.tree.join("header/meta-data");
        let bytes = orchestratord::core::store::read(&path, NOTE_LIMIT).map_err(storage)?.unwrap_or_default();
        let read = serde_json::from_slice::<MetaData>(&bytes).map_err(|error| {
            let message = format!(
                "The meta-data of an Artifact with an image is to be like {{\"reference\": \"NAME:TAG\"}}: {error}."
            );
            Failure::new(Kind::InvalidArtifact, message)
        });
        Ok(read?.reference)
    }
}

impl Component for ImageComponent {
    async fn provides(&self, desk: &Desk) -> Result<String, Failure> {
        let image = desk.look().await?.image;
        let known = provided::lines(&self.0, Some(&image))?;
        // What came otherwise than in an Artifact is named by its digest.
        Ok(known.replace(&image, image.rsplit(' ').next().unwrap_or_default()))
    }

    async fn inventory(&self, desk: &Desk) -> Result<String, Failure> {
        let vplc = desk.look().await?;
        Ok(format!("vplc={}\nimage={}\ncontainer={}\n", vplc.name, vplc.image, vplc.container))
    }

    async fn download(&self, desk: &Desk) -> Result<(), Failure> {
        let Self(call) = self;
        self.reference()?;
        let vplc = desk.settled().await?;
        call.note("before", &Before { image: vplc.image, running: vplc.plc == "running" })?;
        // Without a payload file, the image comes from its registry.
        payload::store(call, u64::MAX).map(drop)
    }

    async fn supports_rollback(&self, _: &Desk) -> Result<bool, Failure> {
        Ok(true)
    }

    async fn install(&self, desk: &Desk) -> Result<(), Failure> {
        let Self(call) = self;
        let reference = self.reference()?;
        let now = self.provides(desk).await?;
        let archive = payload::open(call)?;
        desk.perform(async |vplc| {
            let archive = archive.as_ref().map(|archive| ("image", zbus::Fd::from(archive).into()));
            vplc.upgrade(&reference, archive.into_iter().collect::<Options<'_>>()).await
        })
        .await?;
        let image = desk.settled().await?.image;
        if image.split(' ').next() != Some(reference.as_str()) {
            return Err(call.fail(Kind::VplcFailed, &format!("has the image \"{image}\" and not \"{reference}\"")));
        }
        provided::remember(call, &now, &image)?;
        call.note("wanted", &image)?;
        self.commit(desk).await
    }

    async fn commit(&self, desk: &Desk) -> Result<(), Failure> {
        let Self(call) = self;
        let wanted: String = call.recall("wanted")?.ok_or_else(|| call.fail(Kind::Failed, "got no image yet"))?;
        let before = call.recall::<Before>("before")?;
        if desk.is_soon(|vplc| Self::works(vplc, &wanted, before.as_ref())).await? {
            return Ok(());
        }
        let VplcView { container, plc, .. } = desk.look().await?;
        let what = format!("does not work with the new image: its container is \"{container}\", its PLC is \"{plc}\"");
        Err(call.fail(Kind::VplcFailed, &what))
    }

    async fn roll_back(&self, desk: &Desk) -> Result<(), Failure> {
        let Self(call) = self;
        let Some(before) = call.recall::<Before>("before")? else { return Ok(()) };
        let (reference, pin) = before.image.split_once(' ').unwrap_or((&before.image, ""));
        if desk.settled().await?.image != before.image {
            desk.perform(async |vplc| vplc.upgrade(reference, Options::from([("pin", pin.into())])).await).await?;
        }
        if desk.is_soon(|vplc| Self::works(vplc, &before.image, Some(&before))).await? {
            return Ok(());
        }
        Err(call.fail(Kind::Inconsistent, "does not work with the image that it had before"))
    }
}
