//! Manifests that say what is acceptable: the examples of the documentation, with real Artifacts, through the real daemon.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use orchestrator_tests::repository;
use orchestrator_tests::system::{System, outcome, stop_before};
use orchestratord::core::document::Document;
use orchestratord::update::artifact::writer;
use orchestratord::update::manifest::{ArtifactEntry, Manifest};
use orchestratord_dbus::{Options, PlanStep};

/// An example on a System.
struct Example {
    system: System,
    name: &'static str,
    /// The Manifest, with the type of the System under test.
    text: String,
}

impl Example {
    /// These Components, each type, instance and version; the number is the step in which it moves first, for the trace.
    async fn new(name: &'static str, components: &[(&str, &str, &str, u32)]) -> Self {
        let places: Vec<(&str, &str, u32)> =
            components.iter().map(|(component_type, instance, _, step)| (*component_type, *instance, *step)).collect();
        let mut system = System::new(&places).await;
        for (component_type, instance, version, _) in components {
            system.set(instance, "provides", &format!("rootfs-image.demo-{component_type}.version={version}\n"));
        }
        let text = fs::read_to_string(Self::file(name, "manifest.yaml")).unwrap();
        let (before, rest) = text.split_once("system_types_compatible: [").unwrap();
        let (_, after) = rest.split_once(']').unwrap();
        let text = format!("{before}system_types_compatible: [test-system]{after}");
        let manifest = Manifest::parse(&Document::new("manifest", text.as_str())).unwrap();
        for (component_type, entry) in &manifest.component_types {
            for artifact in std::iter::once(&entry.artifact).chain(&entry.intermediates) {
                write(&system, component_type, artifact);
            }
        }
        system.start_daemon().await;
        Self { system, name, text }
    }

    fn file(name: &str, file: &str) -> PathBuf {
        repository().join("docs/examples/constraints").join(name).join(file)
    }

    fn options(&self) -> Options<'static> {
        Options::from([("base-directory", self.system.path("releases").display().to_string().into())])
    }

    async fn install(&self) -> orchestrator_tests::system::Outcome {
        outcome(&self.system.begin_text(&self.text, self.options()).await.unwrap()).await
    }

    async fn plan(&self) -> Vec<PlanStep> {
        self.system.update().await.plan(&self.text, self.options()).await.unwrap()
    }

    async fn ctl(&self, arguments: &[&str]) -> Output {
        self.system.ctl("orchestratorctl", arguments).output().await.unwrap()
    }

    #[track_caller]
    fn assert_version(&self, instance: &str, version: &str) {
        let provides = fs::read_to_string(self.system.home(instance).join("provides")).unwrap();
        assert!(provides.lines().any(|line| line.ends_with(&format!(".version={version}"))), "{instance}: {provides}");
    }
}

fn write(system: &System, component_type: &str, entry: &ArtifactEntry) {
    let mut spec = system.spec(component_type, 2);
    let version = entry.version.clone().unwrap();
    spec.name = format!("{component_type}-{version}");
    spec.software.version = Some(version);
    let path = system.path("releases").join(entry.artifact_path.as_ref().unwrap());
    writer::write(&spec, None, &path).unwrap();
}

fn text(step: &PlanStep, key: &str) -> String {
    String::try_from(step[key].clone()).unwrap()
}

/// Order, leg, id, versions, way back of each step.
fn told(steps: &[PlanStep]) -> Vec<String> {
    let number = |step: &PlanStep, key: &str| u32::try_from(step[key].clone()).unwrap();
    let line = |step: &PlanStep| {
        let (order, leg) = (number(step, "order"), number(step, "leg"));
        let (id, from, to) = (text(step, "id"), text(step, "from-version"), text(step, "to-version"));
        format!("{order} {leg} {id} {from} {to} {}", text(step, "way-back")).trim_end().to_owned()
    };
    steps.iter().map(line).collect()
}

fn reasons(step: &PlanStep) -> String {
    Vec::<String>::try_from(step["reasons"].clone()).unwrap().join("; ")
}

async fn gateway_and_boards() -> Example {
    let components = [("gateway", "G13", "v1", 1), ("rtos", "R456", "v1", 2), ("rtos", "R998", "v1", 2)];
    Example::new("gateway-rtos", &components).await
}

async fn car() -> Example {
    let components = [("gateway", "G1", "v1", 1), ("brake", "B1", "v1", 2), ("steering", "S1", "v1", 3)];
    Example::new("car", &components).await
}

#[tokio::test]
async fn the_gateway_goes_first_and_both_boards_follow_side_by_side() {
    let example = gateway_and_boards().await;
    let steps = example.plan().await;
    assert_eq!(told(&steps), ["1 1 G13 v1 v2 full", "2 1 R456 v1 v2 full", "2 1 R998 v1 v2 full"]);
    assert_eq!(reasons(&steps[0]), "");
    let why = reasons(&steps[1]);
    assert!(why.starts_with("after gateway.G13, because of \"gateway-and-boards\" (manifest:16:5): "), "{why}");
    assert_eq!(example.system.full_trace(), [""; 0]);

    example.install().await.clean("done");
    assert_eq!(
        example.system.trace(),
        [
            "Download G13",
            "ArtifactInstall G13",
            "Download R456 R998",
            "ArtifactInstall R456 R998",
            "ArtifactCommit G13",
            "ArtifactCommit R456 R998",
            "Cleanup G13",
            "Cleanup R456 R998",
        ]
    );
    for instance in ["G13", "R456", "R998"] {
        example.assert_version(instance, "v2");
    }
    example.system.assert_cleaned_up();
    assert_eq!(told(&example.plan().await), ["0 0 G13 v2 v2", "0 0 R456 v2 v2", "0 0 R998 v2 v2"]);
}

#[tokio::test]
async fn a_failure_goes_back_through_the_same_combinations() {
    let example = gateway_and_boards().await;
    example.system.set("R998", "ArtifactInstall.fail-late", "");
    example.install().await.faulty("rolled-back", "InterfaceFailed");
    let trace = example.system.trace();
    let back: Vec<&String> = trace.iter().filter(|step| step.starts_with("ArtifactRollback")).collect();
    assert_eq!(back, ["ArtifactRollback R456 R998", "ArtifactRollback G13"]);
    for instance in ["G13", "R456", "R998"] {
        example.assert_version(instance, "v1");
    }
}

#[tokio::test]
async fn a_component_that_is_updated_twice_is_committed_in_between() {
    let example = car().await;
    let steps = example.plan().await;
    assert_eq!(told(&steps), ["1 1 G1 v1 v2 full", "2 1 B1 v1 v3 full", "3 1 S1 v1 v3 full", "4 2 G1 v2 v3 part"],);
    assert!(reasons(&steps[2]).contains("\"wheel-speeds\""), "{steps:?}");
    assert!(reasons(&steps[3]).contains("\"protocol-of-the-steering\""), "{steps:?}");
    example.install().await.clean("done");
    assert_eq!(
        example.system.trace(),
        [
            "Download G1",
            "ArtifactInstall G1",
            "Download B1",
            "ArtifactInstall B1",
            "Download S1",
            "ArtifactInstall S1",
            "ArtifactCommit G1",
            "ArtifactCommit B1",
            "ArtifactCommit S1",
            "Cleanup G1",
            "Cleanup B1",
            "Cleanup S1",
            "Download G1",
            "ArtifactInstall G1",
            "ArtifactCommit G1",
            "Cleanup G1",
        ]
    );
    for instance in ["G1", "B1", "S1"] {
        example.assert_version(instance, "v3");
    }
    example.system.assert_cleaned_up();
}

/// Begins the install of the car and lets this switch of the gateway take effect after the commit in between.
async fn car_with(switch: &str) -> (Example, orchestratord_dbus::JobProxy<'static>) {
    let example = car().await;
    example.system.set("S1", "Cleanup.sleep", "3");
    let job = example.system.begin_text(&example.text, example.options()).await.unwrap();
    example.system.wait_for_call("S1", "Cleanup").await;
    example.system.set("G1", switch, "");
    (example, job)
}

#[track_caller]
fn assert_half_way(example: &Example) {
    for (instance, version) in [("G1", "v2"), ("B1", "v3"), ("S1", "v3")] {
        example.assert_version(instance, version);
    }
    example.system.assert_cleaned_up();
}

#[tokio::test]
async fn a_failure_after_a_commit_leads_back_to_it_and_says_where_the_system_is() {
    let (example, job) = car_with("ArtifactInstall.fail-late").await;
    let end = outcome(&job).await;
    let message = end.faulty("failed", "InterfaceFailed");
    assert!(message.contains("last commit of the deployment"), "{message}");
    assert_half_way(&example);
    // From there the rest is one step.
    example.system.unset("G1", "ArtifactInstall.fail-late");
    assert_eq!(
        told(&example.plan().await),
        ["0 0 B1 v3 v3", "0 0 S1 v3 v3", "1 1 G1 v2 v3 full"]
            .map(str::to_owned)
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    example.install().await.clean("done");
    example.assert_version("G1", "v3");
}

#[tokio::test]
async fn a_power_cut_after_a_commit_leads_back_to_it() {
    let (mut example, _job) = car_with("ArtifactInstall.hang").await;
    let begun = |example: &Example| example.system.count("G1", "ArtifactInstall") == 2;
    example.system.wait_until("the second part begins", || begun(&example)).await;
    example.system.cut_power();
    example.system.unset("G1", "ArtifactInstall.hang");
    example.system.start_daemon().await;
    assert_eq!(example.system.wait_for_rest().await, "idle");
    let end = example.system.resume(Options::new()).await.unwrap();
    assert!(end.faulty("failed", "InterfaceFailed").contains("last commit"), "{end:?}");
    assert_half_way(&example);
}

#[tokio::test]
async fn a_power_cut_before_the_commit_leads_back_to_the_start() {
    let mut example = car().await;
    example.system.set("S1", "ArtifactInstall.hang", "");
    let _job = example.system.begin_text(&example.text, example.options()).await.unwrap();
    example.system.wait_for_call("S1", "ArtifactInstall").await;
    example.system.cut_power();
    example.system.unset("S1", "ArtifactInstall.hang");
    example.system.start_daemon().await;
    assert_eq!(example.system.wait_for_rest().await, "idle");
    example.system.resume(Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    for instance in ["G1", "B1", "S1"] {
        example.assert_version(instance, "v1");
    }
}

#[tokio::test]
async fn a_stop_before_the_commit_is_one_before_the_last() {
    let example = car().await;
    let options = example.options().into_iter().chain(stop_before(&["ArtifactCommit"])).collect();
    outcome(&example.system.begin_text(&example.text, options).await.unwrap()).await.clean("stopped");
    example.assert_version("G1", "v3");
    assert!(example.system.trace().contains(&"ArtifactCommit S1".to_owned()));
    example.system.rollback(Options::new()).await.unwrap().faulty("failed", "Failed");
    assert_half_way(&example);
}

#[tokio::test]
async fn a_component_that_cannot_go_back_is_told_beforehand() {
    let components = [
        ("gateway", "G1", "1.4.2", 1),
        ("plc-program", "P1", "1.9", 2),
        ("drive", "D1", "3.2", 3),
        ("drive", "D2", "3.1", 3),
    ];
    let example = Example::new("plc-line", &components).await;
    let steps = example.plan().await;
    assert_eq!(
        told(&steps),
        ["1 1 G1 1.4.2 1.5.0 full", "2 1 P1 1.9 2.0 full", "3 1 D1 3.2 4.0 broken", "3 1 D2 3.1 4.0 broken",]
    );
    let why = reasons(&steps[2]);
    assert!(why.contains("cannot go back") && why.contains("\"telegrams\""), "{why}");
    example.install().await.clean("done");
    for (instance, version) in [("G1", "1.5.0"), ("P1", "2.0"), ("D1", "4.0"), ("D2", "4.0")] {
        example.assert_version(instance, version);
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_the_constraints_that_conflict_before_anything_is_touched() {
    let example = gateway_and_boards().await;
    let text = format!(
        "{}  - name: boards-first\n    conflicts: {{gateway: v2, rtos: v1}}\n    scope: transition\n  \
         - name: no-matter\n    conflicts: {{rtos: v7}}\n",
        example.text
    );
    let (name, message) = example.system.begin_text(&text, example.options()).await.unwrap_err();
    assert_eq!(name, "org.orchestratord1.Error.InvalidManifest");
    assert!(message.contains("\"gateway-and-boards\" (manifest:16:5)"), "{message}");
    assert!(
        message.contains("\"boards-first\" (manifest:22:5): not gateway v2 and rtos v1 together on the way"),
        "{message}"
    );
    assert!(!message.contains("no-matter"), "{message}");

    let text = example.text.replace("end: [[v1, v1], [v2, v2]]", "end: [[v1, v1]]");
    let (_, message) = example.system.begin_text(&text, example.options()).await.unwrap_err();
    assert!(message.contains("not acceptable together: gateway v2 and rtos v2"), "{message}");

    // Nobody can tell whether "unknown" is new enough.
    example.system.set("G13", "provides", "rootfs-image.demo-gateway.version=unknown\n");
    let text = format!("{}  - conflicts: {{gateway: '<2'}}\n", example.text);
    let (_, message) = example.system.begin_text(&text, example.options()).await.unwrap_err();
    assert!(message.contains("cannot be compared"), "{message}");
    assert_eq!(example.system.full_trace(), [""; 0]);
    assert!(!example.system.path("state/deployment").exists());
}

#[tokio::test]
async fn the_command_line_shows_plans_as_table_json_and_graph() {
    let example = car().await;
    let file = example.system.path("releases/manifest.yaml");
    fs::write(&file, &example.text).unwrap();
    let file = file.to_str().unwrap();
    let table = String::from_utf8(example.ctl(&["plan", file]).await.stdout).unwrap();
    assert!(table.contains("WAY BACK") && table.contains("After step 3 everything is committed"), "{table}");
    assert!(table.contains("3 steering.S1: after brake.B1, because of \"wheel-speeds\" (manifest:31:5)"), "{table}");
    let json = example.ctl(&["plan", "--json", file]).await.stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["steps"][3]["leg"], 2);
    assert_eq!(json["steps"][3]["way_back"], "part");
    let graph = String::from_utf8(example.ctl(&["plan", "--graph", "mermaid", file]).await.stdout).unwrap();
    assert!(graph.starts_with("flowchart LR\n") && graph.contains("s3 -- commit --> s4"), "{graph}");
    let graph = String::from_utf8(example.ctl(&["plan", "--graph", "dot", file]).await.stdout).unwrap();
    assert!(graph.starts_with("digraph plan {"), "{graph}");
}

/// Without a daemon and without Artifacts: this is for a workstation.
#[tokio::test]
async fn a_manifest_is_checked_without_a_daemon() {
    let mut example = car().await;
    assert!(example.system.stop_daemon().await.success());
    let (manifest, topology) =
        (Example::file(example.name, "manifest.yaml"), Example::file(example.name, "topology.yaml"));
    let check = ["manifest", "check", manifest.to_str().unwrap(), "--topology", topology.to_str().unwrap()];
    let run = |more: &[&str]| {
        let arguments: Vec<&str> = check.iter().chain(more).copied().collect();
        let command = example.system.ctl("orchestratorctl", &arguments).output();
        async move {
            let output = command.await.unwrap();
            let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
            (output.status.code(), out, err)
        }
    };
    let (code, out, err) = run(&[]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.ends_with("manifest.yaml\" is sound.\n"), "{out}");
    let from_v1 = ["--versions", "gateway=v1", "--versions", "brake=v1", "--versions", "steering=v1"];
    let (code, out, _) = run(&from_v1).await;
    assert_eq!(code, Some(0));
    assert!(out.contains("gateway.#1") && out.contains("After step 3 everything is committed"), "{out}");
    let json = run(&[&from_v1[..], &["--json"]].concat()).await.1;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["manifest"], json["steps"].as_array().unwrap().len()), (&"car-v3".into(), 4));
    // From a combination that no row has, there is no way.
    let (code, _, err) =
        run(&["--versions", "gateway=v1", "--versions", "brake=v2", "--versions", "steering=v1"]).await;
    assert_eq!(code, Some(11), "{err}");
    assert!(err.contains("There is no acceptable way") && err.contains("manifest.yaml:"), "{err}");
    for (versions, said) in [
        (&["--versions", "gateway"][..], "TYPE=VERSION"),
        (&["--versions", "gateway=v1"][..], "The version of \"brake\" is not given."),
        (&["--versions", "tyre=v1"][..], "No Component of the Topology is of the type \"tyre\""),
        (&["--versions", "gateway=v1,v2"][..], "2 versions are given for 1 Components"),
    ] {
        let (code, _, err) = run(versions).await;
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains(said), "{err}");
    }
}
