//! The Components of a System, and what can be installed on them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use orchestratord::update::artifact::writer::{self, ArtifactSpec};

use super::{Component, System};

/// Bytes of the payload of a release: more than a pipe holds.
const PAYLOAD: usize = 70_000;

impl System {
    /// Writes a file of a Component: an answer or a switch.
    pub fn set(&self, instance: &str, file: &str, content: &str) {
        // In one step: a program may be reading it.
        let (path, new) = (self.home(instance).join(file), self.home(instance).join(format!("{file}.set")));
        fs::write(&new, content).expect("a file");
        fs::rename(&new, &path).expect("a file");
    }

    /// Removes a file of a Component.
    pub fn unset(&self, instance: &str, file: &str) {
        fs::remove_file(self.home(instance).join(file)).expect("a file that is there");
    }

    /// Release of a Component: what its version key says after the type, and no other bytes than those of it.
    #[track_caller]
    pub fn assert_release(&self, instance: &str, release: u32) {
        let component_type = &self.component(instance).component_type;
        let provides = fs::read_to_string(self.home(instance).join("provides")).unwrap_or_default();
        let line = format!("rootfs-image.demo-{component_type}.version={component_type}-{release}");
        assert!(provides.lines().any(|found| found == line), "{instance} is not at release {release}: {provides}");
        let payload = self.home(instance).join("payload");
        if release == 1 {
            // It came without bytes.
            assert!(!payload.exists(), "{instance} holds the bytes of another release");
            return;
        }
        let name = format!("{component_type}-{release}.img");
        let names: Vec<_> = fs::read_dir(&payload).expect("a payload").map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, [name.as_str()], "payload of {instance}");
        let content = fs::read(payload.join(&name)).expect("a file");
        assert!(content == self.payload(component_type, release), "{instance} does not hold the bytes of {release}");
    }

    /// [`System::assert_release`] for all Components.
    #[track_caller]
    pub fn assert_all_at(&self, release: u32) {
        for component in &self.components {
            self.assert_release(&component.instance, release);
        }
    }

    /// Fails the test unless a deployment has left nothing on any Component or in the daemon's directory.
    #[track_caller]
    pub fn assert_cleaned_up(&self) {
        for component in &self.components {
            for leftover in ["previous", "previous.new", "incoming", "trial"] {
                let path = self.home(&component.instance).join(leftover);
                assert!(!path.exists(), "\"{}\" was left behind", path.display());
            }
            let tree = self.tree(&component.component_type, &component.instance);
            assert!(!tree.exists(), "\"{}\" was left behind", tree.display());
        }
        for leftover in
            ["state/deployment", "state/deployment.new", "state/deployment.old", "state/manifests/in-progress"]
        {
            assert!(!self.path(leftover).exists(), "\"{leftover}\" was left behind");
        }
    }

    /// The bytes of the payload of a release.
    pub fn payload(&self, component_type: &str, release: u32) -> Vec<u8> {
        let mix = |sum: u64, byte: u8| sum.wrapping_mul(257).wrapping_add(u64::from(byte));
        let mut state = component_type.bytes().fold(u64::from(release), mix);
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..PAYLOAD).map(next).collect()
    }

    /// The description of the Artifact of a release, with its payload written; for tests that want another one.
    pub fn spec(&self, component_type: &str, release: u32) -> ArtifactSpec {
        let name = format!("{component_type}-{release}");
        let file = self.path("releases").join(format!("{name}.img"));
        fs::write(&file, self.payload(component_type, release)).expect("a payload");
        let interface = format!("demo-{component_type}");
        ArtifactSpec::module_image(&name, vec![component_type.to_owned()], &interface, vec![file])
    }

    /// Where the Artifact of a release lies.
    pub fn artifact(&self, component_type: &str, release: u32) -> PathBuf {
        self.path("releases").join(format!("{component_type}-{release}.mender"))
    }

    /// Writes an Artifact in place of the one of a release.
    pub fn write_artifact(&self, component_type: &str, release: u32, spec: &ArtifactSpec) {
        writer::write(spec, None, &self.artifact(component_type, release)).expect("an Artifact");
    }

    /// The Manifest of a release, with absolute paths; writes the Artifacts that do not exist yet, and the Manifest to
    /// [`System::manifest_file`].
    pub fn manifest(&self, release: u32) -> String {
        let mut text = format!(
            "api_version: mender/v1\nkind: manifest\nname: release-{release}\nsystem_types_compatible: [test-system]\n\
             component_types:\n"
        );
        let types: BTreeMap<&str, u32> =
            self.components.iter().map(|component| (component.component_type.as_str(), component.order)).collect();
        for (component_type, order) in types {
            let artifact = self.artifact(component_type, release);
            if !artifact.exists() {
                self.write_artifact(component_type, release, &self.spec(component_type, release));
            }
            write!(
                text,
                "  {component_type}:\n    artifact_path: {}\n    update_strategy:\n      order: {order}\n",
                artifact.display()
            )
            .expect("text");
        }
        fs::write(self.manifest_file(release), &text).expect("the Manifest");
        text
    }

    /// Where the Manifest of a release lies.
    pub fn manifest_file(&self, release: u32) -> PathBuf {
        self.path("releases").join(format!("manifest-{release}.yaml"))
    }

    /// Writes the Topology with all Components.
    pub fn write_topology(&self) {
        let mut text = "api_version: mender/v1\nkind: topology\nsystem_type: test-system\ncomponents:\n".to_owned();
        for Component { component_type, instance, .. } in &self.components {
            write!(
                text,
                "  - component_type: {component_type}\n    interface: demo-{component_type}\n    interface_args: [{instance}]\n"
            )
            .expect("text");
        }
        fs::write(self.path("etc/topology.yaml"), text).expect("the Topology");
    }
}
