//! vPLCs as Components of a System, beside firmware: what fails together comes back together.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use orchestrator_tests::repository;
use orchestrator_tests::runtime::program;
use orchestratord_dbus::{UpdateProxy, VplcProxy};
use serde_json::{Value, json};
use zbus::proxy::CacheProperties;

use crate::programs::{deploy, runs, shown};
use crate::rig::{Host, NIC, until};
use orchestrator_tests::plant::Plant;

const SPEC: &str = "api_version: orchestrator/v1\nkind: vplc\nname: press1\nimage:\n  reference: runtime:1\n  pull: never\n\
                    command: [/usr/bin/stub-runtime]\ndata: {path: /var/run/runtime}\nprogram: {}\n";

/// Firmware of a device that is a file; the one that says "bad" cannot be installed.
const FIRMWARE: &str = r#"#!/bin/sh
device=$4
case $1 in
    NeedsUnpackedArtifact | SupportsRollback) echo Yes ;;
    Identity) echo id=drive ;;
    Provides) printf 'rootfs-image.firmware.version=%s\nartifact_name=%s\n' "$(cat "$device")" "$(cat "$device")" ;;
    Download) cp "$(cat stream-next)" tmp/new; [ -z "$(cat stream-next)" ] ;;
    ArtifactInstall)
        cp "$device" tmp/old
        ! grep -q bad tmp/new || exit 1
        cat header/artifact_name >"$device"
        ;;
    ArtifactRollback) [ ! -e tmp/old ] || cp tmp/old "$device" ;;
esac
"#;

const TOPOLOGY: &str = "api_version: mender/v1\nkind: topology\nsystem_type: press\ncomponents:\n\
    \x20 - component_type: firmware\n    interface: firmware\n    interface_args: [\"DEVICE\"]\n\
    \x20 - component_type: plc-program\n    interface: vplc-program\n    interface_args: [press1]\n\
    \x20 - component_type: plc-image\n    interface: vplc-image\n    interface_args: [press1, runtime-of-press1]\n";

/// The System: the image first, as a program may need a newer one, and the firmware last.
fn manifest(number: u32) -> String {
    let component = |name: &str, order: u32| {
        format!("  {name}:\n    artifact_path: {name}-{number}.mender\n    update_strategy: {{order: {order}}}\n")
    };
    format!(
        "api_version: mender/v1\nkind: manifest\nname: press-{number}\nsystem_types_compatible: [press]\ncomponent_types:\n{}{}{}",
        component("plc-image", 10),
        component("plc-program", 20),
        component("firmware", 30)
    )
}

async fn write(host: &Host, component: &str, interface: &str, number: u32, more: &str) {
    let file = host.path(&format!("{component}-{number}.mender"));
    let words = format!(
        "artifact write module-image -n {component}-{number} -t {component} -T {interface} -o {} {more}",
        file.display()
    );
    let (code, _, told) = host.ctl(words.trim_end()).await;
    assert_eq!(code, 0, "{told}");
}

/// Writes the Artifacts of a release and its Manifest; the image comes in its archive if there is one. Returns the place of the
/// Manifest.
async fn release(host: &Host, number: u32, plc: u16, archive: Option<&Path>, firmware: &str) -> String {
    let payload = host.path("payload");
    fs::write(&payload, program(plc, "good")).unwrap();
    write(host, "plc-program", "vplc-program", number, &format!("-f {}", payload.display())).await;
    let meta = host.file("meta.json", &json!({ "reference": format!("runtime:{number}") }).to_string());
    let archive = archive.map(|archive| format!(" -f {}", archive.display())).unwrap_or_default();
    write(host, "plc-image", "vplc-image", number, &format!("--meta-data {meta}{archive}")).await;
    fs::write(&payload, firmware).unwrap();
    write(host, "firmware", "firmware", number, &format!("-f {}", payload.display())).await;
    host.file(&format!("manifest-{number}.yaml"), &manifest(number))
}

/// All that has to be as it was: what the Components provide, image and program as the bus has them, the specification, what runs.
async fn state(host: &Host, vplc: &VplcProxy<'_>, plant: &Plant) -> Value {
    let provides = provided(host).await;
    let device = fs::read_to_string(host.path("device")).unwrap();
    let (image, spec) = (vplc.image().await.unwrap(), vplc.spec().await.unwrap());
    let program = shown(host).await["program"]["number"].clone();
    json!([provides, device, image, spec, program, plant.program(7), host.engine.volumes()])
}

/// What all Components provide: Component, key and value in a line.
async fn provided(host: &Host) -> String {
    let (code, text, told) = host.ctl("provides").await;
    assert_eq!(code, 0, "{told}");
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[tokio::test]
async fn program_image_and_firmware_are_updated_together_and_come_back_together() {
    let test = "program_image_and_firmware_are_updated_together_and_come_back_together";
    let Some(mut host) = Host::start(test).await else { return };
    host.engine.import_runtimes(&[("1", ""), ("2", "STUB_VERSION=4.2.0"), ("3", "STUB_VERSION=4.3.0")]);
    let archive = host.path("runtime-2.tar");
    host.engine.take_out("runtime:2", &archive);
    let plant = Plant::at("plant0", &host.net);
    let interfaces = host.path("share/interfaces/v1");
    fs::create_dir_all(&interfaces).unwrap();
    for name in ["vplc-program", "vplc-image"] {
        fs::copy(repository().join("interfaces/v1").join(name), interfaces.join(name)).unwrap();
    }
    fs::write(interfaces.join("firmware"), FIRMWARE).unwrap();
    fs::set_permissions(interfaces.join("firmware"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(host.path("device"), "firmware-1").unwrap();
    let device = host.path("device");
    fs::write(host.path("state/topology.yaml"), TOPOLOGY.replace("DEVICE", device.to_str().unwrap())).unwrap();

    let vplc = host.run(&format!("{SPEC}{NIC}")).await;
    assert_eq!(deploy(&host, 11, "good").await.1, "done");
    let provides = provided(&host).await;
    // What came otherwise than in an Artifact has its hash for a version.
    let hash = shown(&host).await["program"]["sha256"].as_str().unwrap().to_owned();
    let digest = vplc.image().await.unwrap().split(' ').nth(1).unwrap().to_owned();
    assert!(provides.contains(&format!("rootfs-image.vplc-program.version {hash}\n")), "{provides}");
    assert!(
        provides.contains(&format!("plc-image.runtime-of-press1 rootfs-image.vplc-image.version {digest}\n")),
        "{provides}"
    );

    // A release that works; its image is nowhere but in the Artifact.
    let second = release(&host, 2, 12, Some(&archive), "good").await;
    let (code, _, told) = host.ctl(&format!("install {second}")).await;
    assert_eq!(code, 0, "{told}");
    assert_eq!(plant.program(7), Some(12));
    assert!(vplc.image().await.unwrap().starts_with("runtime:2 sha256:"));
    let provides = provided(&host).await;
    for version in
        ["vplc-program.version plc-program-2", "vplc-image.version plc-image-2", "firmware.version firmware-2"]
    {
        assert!(provides.contains(version), "{version}: {provides}");
    }
    let before = state(&host, &vplc, &plant).await;
    // It is there already.
    let runtime = host.engine.pid("vplc.press1");
    assert_eq!(host.ctl(&format!("install {second}")).await.0, 0);
    assert_eq!(host.engine.pid("vplc.press1"), runtime);

    // The last one fails: image and program are installed and proved by then.
    let third = release(&host, 3, 13, None, "bad").await;
    let (code, printed, told) = host.ctl(&format!("--json install {third}")).await;
    assert_ne!(code, 0, "{told}");
    assert!(printed.contains("\"result\": \"rolled-back\""), "{printed} {told}");
    assert!(told.contains("firmware"), "{told}");
    assert_eq!(state(&host, &vplc, &plant).await, before);
    assert_ne!(host.engine.pid("vplc.press1"), runtime, "it was another one in between");

    // The daemon ends while the new program is proved: the next one takes everything back.
    let fourth = release(&host, 3, 14, None, "good").await;
    let update = UpdateProxy::builder(&host.client).cache_properties(CacheProperties::No).build().await.unwrap();
    update
        .install(
            &fs::read_to_string(&fourth).unwrap(),
            [("base-directory", host.path("").to_str().unwrap().into())].into(),
        )
        .await
        .unwrap();
    runs(&plant, 14).await;
    host.kill_daemon();
    host.start_daemon().await;
    until("it is taken back", async || {
        let state = update.state().await.ok()?;
        let error = update.last_error().await.ok()?;
        (state == "idle" && !error.1.is_empty()).then_some(())
    })
    .await;
    assert_eq!(state(&host, &vplc, &plant).await, before);

    // Nobody has to know how it was deployed: what is there is what counts.
    assert_eq!(host.ctl("vplc rollback press1 1").await.0, 0);
    let provides = provided(&host).await;
    assert!(provides.contains(&format!("rootfs-image.vplc-program.version {hash}\n")), "{provides}");
    host.delete().await;
}
