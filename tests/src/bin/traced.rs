//! Starts a program whose calls that change files can be stopped one by one: `traced-launcher PROGRAM [ARGUMENT...]`.
//!
//! It asks its parent to trace it, installs a filter that reports these calls and no others (stopping at all of them would
//! take ten times as long as the program itself), stops so that the parent can set its options, and becomes the program.
//! Without a tracer the reported calls fail, so this is of no use to anybody else.

use std::os::unix::process::CommandExt;
use std::process::Command;

#[cfg(target_arch = "x86_64")]
fn main() -> anyhow::Result<()> {
    use nix::libc;
    use nix::sys::signal::{Signal, raise};
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
        TargetArch,
    };

    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().ok_or_else(|| anyhow::anyhow!("no program is given"))?;
    let always = [
        libc::SYS_write,
        libc::SYS_pwrite64,
        libc::SYS_writev,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_ftruncate,
        libc::SYS_fallocate,
        libc::SYS_copy_file_range,
        libc::SYS_rename,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_unlink,
        libc::SYS_unlinkat,
        libc::SYS_rmdir,
        libc::SYS_mkdir,
        libc::SYS_mkdirat,
        libc::SYS_mknod,
        libc::SYS_mknodat,
    ];
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
        always.into_iter().map(|number| (number, Vec::new())).collect();
    let creating = u64::try_from(libc::O_CREAT)?;
    for (number, argument) in [(libc::SYS_open, 1), (libc::SYS_openat, 2)] {
        let creates =
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(creating), creating)?;
        rules.insert(number, vec![SeccompRule::new(vec![creates])?]);
    }
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trace(0), TargetArch::x86_64)?;
    let filter: BpfProgram = filter.try_into()?;

    nix::sys::ptrace::traceme()?;
    seccompiler::apply_filter(&filter)?;
    raise(Signal::SIGSTOP)?;
    Err(Command::new(program).args(arguments).exec().into())
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("tracing is made for x86_64 only");
}
