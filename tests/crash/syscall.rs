//! What a stopped task is about to do: its system call and the file that it changes.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc::{self, user_regs_struct};
use nix::unistd::Pid;

/// A call with the file it changes.
pub struct Call {
    pub name: &'static str,
    pub path: PathBuf,
    /// Where it comes from, if it is renamed.
    pub from: Option<PathBuf>,
    /// What is written, if it may be a line of the log.
    pub text: Option<String>,
}

impl Call {
    pub fn read(task: Pid, registers: &user_regs_struct) -> Option<Self> {
        let number = i64::try_from(registers.orig_rax).ok()?;
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
        let by_descriptor = |name| {
            let link = fs::read_link(format!("/proc/{task}/fd/{}", arguments[0])).ok()?;
            Some(Self { name, path: link, from: None, text: None })
        };
        let by_path = |name, directory: Option<usize>, text: usize| {
            let path = resolve(task, directory.map(|index| arguments[index]), arguments[text])?;
            Some(Self { name, path, from: None, text: None })
        };
        match number {
            libc::SYS_write => {
                let call = by_descriptor("write")?;
                let text =
                    call.path.ends_with("calls.log").then(|| read_text(task, arguments[1], arguments[2])).flatten();
                Some(Self { text, ..call })
            }
            libc::SYS_pwrite64 | libc::SYS_writev => by_descriptor("write"),
            libc::SYS_copy_file_range => {
                let link = fs::read_link(format!("/proc/{task}/fd/{}", arguments[2])).ok()?;
                Some(Self { name: "write", path: link, from: None, text: None })
            }
            libc::SYS_ftruncate | libc::SYS_fallocate => by_descriptor("truncate"),
            libc::SYS_fsync => by_descriptor("fsync"),
            libc::SYS_fdatasync => by_descriptor("fdatasync"),
            libc::SYS_unlink | libc::SYS_rmdir => by_path("unlink", None, 0),
            libc::SYS_unlinkat => by_path("unlink", Some(0), 1),
            libc::SYS_mkdir => by_path("mkdir", None, 0),
            libc::SYS_mkdirat => by_path("mkdir", Some(0), 1),
            libc::SYS_mknod => by_path("mknod", None, 0),
            libc::SYS_mknodat => by_path("mknod", Some(0), 1),
            libc::SYS_open => by_path("create", None, 0),
            libc::SYS_openat => by_path("create", Some(0), 1),
            libc::SYS_rename => {
                Some(Self { from: Some(resolve(task, None, arguments[0])?), ..by_path("rename", None, 1)? })
            }
            libc::SYS_renameat | libc::SYS_renameat2 => Some(Self {
                from: Some(resolve(task, Some(arguments[0]), arguments[1])?),
                ..by_path("rename", Some(2), 3)?
            }),
            _ => None,
        }
    }

    /// It will not change anything.
    pub fn is_void(&self) -> bool {
        match self.name {
            "mkdir" | "mknod" => self.path.symlink_metadata().is_ok(),
            "unlink" => self.path.symlink_metadata().is_err(),
            "rename" => self.from.as_ref().is_some_and(|from| from.symlink_metadata().is_err()),
            "write" | "create" => self.path.symlink_metadata().is_ok_and(|found| {
                use std::os::unix::fs::FileTypeExt;
                found.file_type().is_fifo()
            }),
            _ => false,
        }
    }

    /// Whether a medium in that condition lets such a call fail.
    pub fn can_fail_with(&self, error: Errno) -> bool {
        match error {
            Errno::ENOSPC => match self.name {
                "create" => self.path.symlink_metadata().is_err(),
                "write" => self.path.file_name().is_none_or(|name| name != "journal"),
                "mkdir" | "mknod" => true,
                _ => false,
            },
            _ => true,
        }
    }
}

/// Bytes in the memory of a task, as text.
fn read_text(task: Pid, address: u64, length: u64) -> Option<String> {
    let memory = fs::File::open(format!("/proc/{task}/mem")).ok()?;
    let mut bytes = vec![0; usize::try_from(length).ok()?.min(4096)];
    memory.read_exact_at(&mut bytes, address).ok()?;
    String::from_utf8(bytes).ok()
}

/// The path in an argument, made absolute.
fn resolve(task: Pid, directory: Option<u64>, address: u64) -> Option<PathBuf> {
    let memory = fs::File::open(format!("/proc/{task}/mem")).ok()?;
    let mut bytes = vec![0; 4096];
    let count = memory.read_at(&mut bytes, address).ok()?;
    let end = bytes[..count].iter().position(|byte| *byte == 0)?;
    let path = PathBuf::from(String::from_utf8_lossy(&bytes[..end]).into_owned());
    if path.is_absolute() {
        return Some(path);
    }
    let base = match directory {
        // An int in a register: its upper half means nothing.
        Some(descriptor) if descriptor & 0xffff_ffff != u64::from(libc::AT_FDCWD.cast_unsigned()) => {
            format!("/proc/{task}/fd/{descriptor}")
        }
        _ => format!("/proc/{task}/cwd"),
    };
    Some(fs::read_link(base).ok()?.join(path))
}
