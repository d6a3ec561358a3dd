//! Device nodes in the directory for serial ports of a container, made from outside of it.
//!
//! The way in is `/proc/PID/root`, from where the kernel resolves paths as the container sees them, and refuses links: a container
//! that puts a link in place of its `/dev` would have a root daemon make nodes elsewhere. Nothing runs in the container, so its
//! image needs no `mknod`, and the container no `CAP_MKNOD`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, StatVfsMountFlags, chmodat, fstat, fstatvfs,
    makedev, mknodat, openat, openat2, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::ports::Device;
use super::{DIRECTORY, SerialError};
use crate::vplc::process::Process;

/// What is in use for a moment, until it is complete.
const TEMPORARY: &str = ".orchestratord";

/// The directory for serial ports of a container that runs. Nobody but the daemon makes device nodes in it.
#[derive(Debug)]
pub struct Nodes(OwnedFd);

impl Nodes {
    /// That of the container of this process. Takes `CAP_SYS_PTRACE`.
    pub fn of(process: Process) -> Result<Self, SerialError> {
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = openat(CWD, format!("/proc/{}/root", process.pid), flags, Mode::empty())?;
            // Only now, so that the number cannot have changed hands in between.
            process.is_alive().map_err(|_| Errno::SRCH)?;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let path = DIRECTORY.trim_start_matches('/');
            let above = path.rsplit_once('/').map_or("", |(above, _)| above);
            let above = openat2(&root, above, flags, Mode::empty(), resolve)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = openat2(&root, path, flags, Mode::empty(), resolve)?;
            let (above, own) = (fstat(&above)?, fstat(&directory)?);
            let nodes_work = !fstatvfs(&directory)?.f_flag.contains(StatVfsMountFlags::NODEV);
            Ok((above.st_dev != own.st_dev, nodes_work, directory))
        };
        match open() {
            Ok((true, true, directory)) => Ok(Self(directory)),
            Ok((true, false, _)) => Err(SerialError::NoDevices),
            // Whatever is there, the engine has not made it for us; it may even be the one of the host.
            Ok((false, ..)) | Err(Errno::NOENT) => Err(SerialError::NoDirectory),
            Err(error) => Err(SerialError::Node { path: DIRECTORY.to_owned(), source: error.into() }),
        }
    }

    /// Has this name be the device. A node of another device is replaced, in one step; anything else that is there is left alone, and is
    /// an error. Takes `CAP_MKNOD`.
    pub fn make(&self, name: &str, device: Device) -> Result<(), SerialError> {
        let failed = |error: Errno| SerialError::Node { path: format!("{DIRECTORY}/{name}"), source: error.into() };
        let found = self.found(OsStr::new(name)).map_err(failed)?;
        match found {
            Found::Device(found) if found == device => return Ok(()),
            Found::Device(_) | Found::Nothing => {}
            Found::Else => return Err(SerialError::InTheWay(format!("{DIRECTORY}/{name}"))),
        }
        let made = || {
            match unlinkat(&self.0, TEMPORARY, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
            // Who is in the vPLC may have it: what keeps others away is that the directory is its own.
            let mode = Mode::from_raw_mode(0o666);
            let number = makedev(device.major, device.minor);
            mknodat(&self.0, TEMPORARY, FileType::CharacterDevice, mode, number)?;
            // mknodat heeds the umask of the daemon. By descriptor: the container can replace names, with links to files of the host.
            let node = openat(&self.0, TEMPORARY, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let seen = fstat(&node)?;
            if FileType::from_raw_mode(seen.st_mode) != FileType::CharacterDevice || seen.st_rdev != number {
                return Err(Errno::EXIST);
            }
            chmodat(CWD, format!("/proc/self/fd/{}", node.as_raw_fd()), mode, AtFlags::empty())?;
            match found {
                // What has come in the meantime is not replaced.
                Found::Nothing => renameat_with(&self.0, TEMPORARY, &self.0, name, RenameFlags::NOREPLACE),
                _ => renameat(&self.0, TEMPORARY, &self.0, name),
            }
        };
        made().map_err(|error| {
            // An error means that there is none.
            let _ = unlinkat(&self.0, TEMPORARY, AtFlags::empty());
            failed(error)
        })
    }

    /// Removes the nodes of all devices but those with these names: an adapter that takes the number of one that was pulled must not be
    /// found under its name.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) -> Result<(), SerialError> {
        for name in self.devices()?.into_keys().filter(|name| !keep(name)) {
            unlinkat(&self.0, name.as_str(), AtFlags::empty())
                .map_err(|error| SerialError::Node { path: format!("{DIRECTORY}/{name}"), source: error.into() })?;
        }
        Ok(())
    }

    /// The nodes that are there.
    pub fn devices(&self) -> Result<BTreeMap<String, Device>, SerialError> {
        let read = || {
            let mut devices = BTreeMap::new();
            for entry in Dir::read_from(&self.0)? {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                // A name that is no text is none of ours.
                if let (Some(text), Found::Device(device)) = (name.to_str(), self.found(name)?) {
                    devices.insert(text.to_owned(), device);
                }
            }
            Ok(devices)
        };
        read().map_err(|error: Errno| SerialError::Node { path: DIRECTORY.to_owned(), source: error.into() })
    }

    fn found(&self, name: &OsStr) -> Result<Found, Errno> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice => {
                Ok(Device::of(found.st_rdev).map_or(Found::Else, Found::Device))
            }
            Ok(_) => Ok(Found::Else),
            Err(Errno::NOENT) => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Device(Device),
    Else,
}
