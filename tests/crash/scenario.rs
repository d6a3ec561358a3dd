//! What is run: Systems, what goes wrong in them by themselves, and who drives the deployment.

/// A Component: an instance of the demonstration's Interface.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Name of the instance, and id of the Component.
    pub name: &'static str,
    /// Component type; `alpha` or `beta`.
    pub kind: &'static str,
    /// Answer to `NeedsArtifactReboot`.
    pub reboot: &'static str,
    /// Answer to `SupportsRollback`.
    pub rollback: &'static str,
    /// Files that make it fail, see the Interface.
    pub switches: &'static [(&'static str, &'static str)],
}

/// Who drives the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// `install`; the daemon does the rest.
    Operator,
    /// As the update module calls it on behalf of the Mender client.
    Module,
    /// The update module, with a Manifest that is refused.
    Refused,
    /// `install`, stopping before this state, then `rollback`; if that is refused, `resume`.
    TakenBack(&'static str),
    /// `install`, and the Job is cancelled while the first Component downloads.
    Cancelled,
}

/// How a System ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Everything is as it was.
    Old,
    /// Everything is as the Manifest wants it.
    New,
    /// Neither, and the daemon says so.
    Inconsistent,
}

/// One deployment.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What it is about.
    pub name: &'static str,
    /// The System.
    pub parts: &'static [Part],
    /// Order groups of `alpha` and `beta`.
    pub orders: (u32, u32),
    /// The Manifest gives no order; its constraints lead to `orders`.
    pub planned: bool,
    /// Who drives it.
    pub flow: Flow,
    /// How it ends undisturbed.
    pub end: End,
    /// How it may end besides when it is disturbed.
    pub may: &'static [End],
}

const fn part(name: &'static str, kind: &'static str, reboot: &'static str) -> Part {
    Part { name, kind, reboot, rollback: "Yes", switches: &[] }
}

const fn broken(part: Part, switches: &'static [(&'static str, &'static str)]) -> Part {
    Part { switches, ..part }
}

const fn stuck(part: Part) -> Part {
    Part { rollback: "No", ..part }
}

const A: Part = part("A1", "alpha", "No");
const B: Part = part("B1", "beta", "No");
const A_YES: Part = part("A1", "alpha", "Yes");
const B_YES: Part = part("B1", "beta", "Yes");
const A_HOST: Part = part("A1", "alpha", "Automatic");
const B_HOST: Part = part("B1", "beta", "Automatic");
const APART: (u32, u32) = (10, 20);
const TOGETHER: (u32, u32) = (10, 10);

const fn success(name: &'static str, parts: &'static [Part], orders: (u32, u32), flow: Flow) -> Scenario {
    Scenario { name, parts, orders, planned: false, flow, end: End::New, may: &[End::Old] }
}

const fn failure(name: &'static str, parts: &'static [Part], orders: (u32, u32), flow: Flow) -> Scenario {
    Scenario { name, parts, orders, planned: false, flow, end: End::Old, may: &[] }
}

const fn lost(name: &'static str, parts: &'static [Part], orders: (u32, u32), flow: Flow) -> Scenario {
    Scenario { name, parts, orders, planned: false, flow, end: End::Inconsistent, may: &[End::Old] }
}

const fn planned(scenario: Scenario) -> Scenario {
    Scenario { planned: true, ..scenario }
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    success("success, no reboot", &[A, B], APART, Flow::Operator),
    success("success, one group of two", &[A, B], TOGETHER, Flow::Operator),
    success("success, Component reboots", &[A_YES, B], APART, Flow::Operator),
    success("success, host reboots in the first group", &[A_HOST, B], APART, Flow::Operator),
    success("success, Component and host reboot in one group", &[A_YES, B_HOST], TOGETHER, Flow::Operator),
    success("success, host reboots in both groups", &[A_HOST, B_HOST], APART, Flow::Operator),
    failure("Download fails in the first group", &[broken(A, &[("Download.fail", "")]), B], APART, Flow::Operator),
    failure("Download fails in the second group", &[A, broken(B, &[("Download.fail", "")])], APART, Flow::Operator),
    failure("ArtifactInstall fails", &[A, broken(B, &[("ArtifactInstall.fail-late", "")])], APART, Flow::Operator),
    failure(
        "ArtifactInstall fails beside a sibling",
        &[A, broken(B, &[("ArtifactInstall.fail", "")])],
        TOGETHER,
        Flow::Operator,
    ),
    failure("NeedsArtifactReboot fails", &[A, broken(B, &[("NeedsArtifactReboot.fail", "")])], APART, Flow::Operator),
    // A crash takes away how it ended, and then the verification decides (it finds nothing wrong here).
    Scenario {
        may: &[End::New],
        ..failure("ArtifactReboot fails", &[A, broken(B_YES, &[("ArtifactReboot.fail", "")])], APART, Flow::Operator)
    },
    failure(
        "ArtifactVerifyReboot fails, Component",
        &[A, broken(B_YES, &[("ArtifactVerifyReboot.fail", "")])],
        APART,
        Flow::Operator,
    ),
    failure(
        "ArtifactVerifyReboot fails, host",
        &[A, broken(B_HOST, &[("ArtifactVerifyReboot.fail", "")])],
        APART,
        Flow::Operator,
    ),
    failure("ArtifactCommit fails", &[A, broken(B, &[("ArtifactCommit.fail-late", "")])], APART, Flow::Operator),
    failure(
        "ArtifactVerifyRollbackReboot fails once",
        &[A, broken(B_YES, &[("ArtifactVerifyReboot.fail", ""), ("ArtifactVerifyRollbackReboot.fail", "1")])],
        APART,
        Flow::Operator,
    ),
    failure(
        "ArtifactFailure fails",
        &[A, broken(B, &[("ArtifactInstall.fail", ""), ("ArtifactFailure.fail", "")])],
        APART,
        Flow::Operator,
    ),
    Scenario {
        end: End::New,
        ..success("Cleanup fails", &[broken(A, &[("Cleanup.fail-late", "")]), B], APART, Flow::Operator)
    },
    lost(
        "ArtifactCommit fails, no way back",
        &[stuck(A), broken(B, &[("ArtifactCommit.fail", "")])],
        APART,
        Flow::Operator,
    ),
    lost(
        "ArtifactRollback fails",
        &[broken(A, &[("ArtifactRollback.fail", "")]), broken(B, &[("ArtifactInstall.fail", "")])],
        APART,
        Flow::Operator,
    ),
    lost(
        "ArtifactVerifyRollbackReboot fails for good",
        &[A, broken(B_YES, &[("ArtifactVerifyReboot.fail", ""), ("ArtifactVerifyRollbackReboot.fail", "")])],
        APART,
        Flow::Operator,
    ),
    success("module, no reboot", &[A, B], APART, Flow::Module),
    success("module, host reboots", &[A_HOST, B], APART, Flow::Module),
    // The client's wish to go back meets a daemon that recovers, and dies with it: nobody repeats it, see below.
    Scenario {
        may: &[End::New],
        ..failure("module, host reboots in both groups", &[A_HOST, B_HOST], APART, Flow::Module)
    },
    failure("module, ArtifactInstall fails", &[A, broken(B, &[("ArtifactInstall.fail", "")])], APART, Flow::Module),
    failure(
        "module, ArtifactVerifyReboot fails",
        &[A, broken(B_HOST, &[("ArtifactVerifyReboot.fail", "")])],
        APART,
        Flow::Module,
    ),
    failure("module, Download fails", &[broken(A, &[("Download.fail", "")]), B], APART, Flow::Module),
    failure("module, Manifest refused", &[A, B], APART, Flow::Refused),
    failure("taken back before ArtifactCommit", &[A, B_YES], APART, Flow::TakenBack("ArtifactCommit")),
    // A wish to go back that a power cut took away is not repeated; then the deployment is resumed instead.
    Scenario {
        may: &[End::New],
        ..failure("taken back after ArtifactCommit", &[A_HOST, B], APART, Flow::TakenBack("Cleanup"))
    },
    Scenario {
        may: &[End::Old, End::Inconsistent],
        ..success("taking back is refused", &[stuck(A), B], APART, Flow::TakenBack("ArtifactCommit"))
    },
    // Whoever loses the daemon before it has taken the Job on has not cancelled anything.
    Scenario {
        may: &[End::New],
        ..failure("cancelled", &[broken(A, &[("Download.sleep", "0.2")]), B], APART, Flow::Cancelled)
    },
    planned(success("planned, no reboot", &[A, B], APART, Flow::Operator)),
    planned(success("planned, host reboots in both steps", &[A_HOST, B_HOST], APART, Flow::Operator)),
    planned(failure(
        "planned, ArtifactInstall fails",
        &[A, broken(B, &[("ArtifactInstall.fail-late", "")])],
        APART,
        Flow::Operator,
    )),
    planned(failure(
        "planned, ArtifactCommit fails",
        &[A_YES, broken(B, &[("ArtifactCommit.fail", "")])],
        APART,
        Flow::Operator,
    )),
    planned(success("planned, module, host reboots", &[A_HOST, B], APART, Flow::Module)),
];
