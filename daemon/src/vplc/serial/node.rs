//! Device nodes in the `/dev` of a container, made from outside of it.
//!
//! The way in is `/proc/PID/root`, from where the kernel resolves paths as the container sees them, and refuses links: a container
//! that puts a link in place of its `/dev` would have a root daemon make nodes elsewhere. Nothing runs in the container, so its
//! image needs no `mknod`, and the container no `CAP_MKNOD`.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid, chmodat, chownat, fstat, makedev,
    mknodat, openat, openat2, renameat, renameat_with, stat, statat, unlinkat,
};
use rustix::io::Errno;

use super::SerialError;
use super::ports::Device;
use crate::vplc::process::Process;

/// The inside of a container that runs.
#[derive(Debug)]
pub struct Container {
    process: Process,
    root: OwnedFd,
}

impl Container {
    /// The container of this process. Takes `CAP_SYS_PTRACE`.
    pub fn of(process: Process) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, format!("/proc/{}/root", process.pid), flags, Mode::empty())?;
        // Only now, so that the number cannot have changed hands in between.
        process.is_alive()?;
        Ok(Self { process, root })
    }

    /// Has this path of the container be the device. What was made for `former` before is replaced, in one step; anything else that is
    /// there is left alone, and is an error. Takes `CAP_MKNOD`.
    pub fn make_node(&self, path: &str, device: Device, former: Option<Device>) -> Result<(), SerialError> {
        let name = name_of(path)?;
        let directory = self.directory(path)?;
        let failed = |error: Errno| SerialError::Node { path: path.to_owned(), source: error.into() };
        let found = device_at(&directory, name).map_err(failed)?;
        match found {
            Found::Device(found) if found == device => return Ok(()),
            Found::Device(found) if Some(found) == former => {}
            Found::Nothing => {}
            _ => return Err(SerialError::InTheWay(path.to_owned())),
        }
        let temporary = format!(".{name}.orchestratord");
        let made = || {
            match unlinkat(&directory, &temporary, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
            let mode = Mode::from_raw_mode(0o660);
            mknodat(&directory, &temporary, FileType::CharacterDevice, mode, makedev(device.major, device.minor))?;
            // mknodat heeds the umask of the daemon.
            chmodat(&directory, &temporary, mode, AtFlags::empty())?;
            let owner = fs::metadata(format!("/proc/{}", self.process.pid)).map_err(|_| Errno::SRCH)?;
            let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
            chownat(&directory, &temporary, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
            match found {
                // What has come in the meantime is not replaced.
                Found::Nothing => renameat_with(&directory, &temporary, &directory, name, RenameFlags::NOREPLACE),
                _ => renameat(&directory, &temporary, &directory, name),
            }
        };
        made().map_err(|error| {
            // An error means that there is none.
            let _ = unlinkat(&directory, &temporary, AtFlags::empty());
            failed(error)
        })
    }

    /// Removes the node of this device; anything else that is there is left alone.
    pub fn remove_node(&self, path: &str, device: Device) -> Result<(), SerialError> {
        let name = name_of(path)?;
        let directory = self.directory(path)?;
        let failed = |error: Errno| SerialError::Node { path: path.to_owned(), source: error.into() };
        if device_at(&directory, name).map_err(failed)? == Found::Device(device) {
            unlinkat(&directory, name, AtFlags::empty()).map_err(failed)?;
        }
        Ok(())
    }

    /// Which device is at this path of the container.
    pub fn node(&self, path: &str) -> Result<Option<Device>, SerialError> {
        let name = name_of(path)?;
        let found = device_at(&self.directory(path)?, name);
        match found.map_err(|error| SerialError::Node { path: path.to_owned(), source: error.into() })? {
            Found::Device(device) => Ok(Some(device)),
            _ => Ok(None),
        }
    }

    fn directory(&self, path: &str) -> Result<OwnedFd, SerialError> {
        let failed = |error: Errno| SerialError::Node { path: path.to_owned(), source: error.into() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let directory = openat2(&self.root, "dev", flags, Mode::empty(), resolve).map_err(failed)?;
        let (inside, host) = (fstat(&directory).map_err(failed)?, stat("/dev").map_err(failed)?);
        if (inside.st_dev, inside.st_ino) == (host.st_dev, host.st_ino) {
            return Err(SerialError::HostDevices);
        }
        Ok(directory)
    }
}

/// The name in `/dev`. A place further down would need directories that somebody makes and removes.
fn name_of(path: &str) -> Result<&str, SerialError> {
    let name = path.strip_prefix("/dev/").filter(|name| !name.contains('/') && !name.starts_with('.'));
    let name = name.filter(|name| (1..=200).contains(&name.len()) && !name.chars().any(char::is_control));
    name.ok_or_else(|| SerialError::Place(path.chars().filter(|char| !char.is_control()).take(64).collect()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Device(Device),
    Else,
}

fn device_at(directory: &OwnedFd, name: &str) -> Result<Found, Errno> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice => {
            Ok(Device::of(found.st_rdev).map_or(Found::Else, Found::Device))
        }
        Ok(_) => Ok(Found::Else),
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(error) => Err(error),
    }
}
