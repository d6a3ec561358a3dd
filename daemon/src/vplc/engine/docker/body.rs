//! What the engine is sent: containers and volumes in its words.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ExecConfig, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
    VolumeCreateRequest,
};

use super::super::{Errand, GENERATION_LABEL, Plan, ROLE_LABEL, Role, VPLC_LABEL, volume as volume_name};
use crate::vplc::serial::DIRECTORY;

/// A volume of a vPLC.
pub(super) fn volume(vplc: &str) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: Some(volume_name(vplc)),
        labels: Some(HashMap::from([(VPLC_LABEL.to_owned(), vplc.to_owned())])),
        ..Default::default()
    }
}

/// A container of a vPLC. A runtime with serial ports finds them in the volume `ports` of its holder.
pub(super) fn container(plan: &Plan, network: String, ports: Option<String>) -> ContainerCreateBody {
    let labels = HashMap::from([
        (VPLC_LABEL.to_owned(), plan.vplc.clone()),
        (ROLE_LABEL.to_owned(), plan.role.as_str().to_owned()),
        (GENERATION_LABEL.to_owned(), plan.generation.to_string()),
    ]);
    let (entrypoint, command) = match plan.command.split_first() {
        Some((program, words)) => (Some(vec![program.clone()]), Some(words.to_vec())),
        None => (None, None),
    };
    // The runtime has the host name of its holder, and the engine refuses a second one.
    let hostname = (plan.role == Role::Holder).then(|| plan.vplc.clone());
    ContainerCreateBody {
        image: Some(plan.image.clone()),
        labels: Some(labels),
        hostname,
        entrypoint,
        cmd: command,
        env: Some(plan.environment.iter().map(|(variable, value)| format!("{variable}={value}")).collect()),
        // The holder has nothing to put in order, and as process 1 it does not hear SIGTERM.
        stop_signal: (plan.role == Role::Holder).then(|| "SIGKILL".to_owned()),
        stop_timeout: Some(number(plan.stop_seconds)),
        healthcheck: Some(health(plan)),
        host_config: Some(host(plan, network, ports)),
        ..Default::default()
    }
}

/// A command in a container.
pub(super) fn errand(errand: &Errand) -> ExecConfig {
    ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(errand.terminal.is_some()),
        env: errand.terminal.as_ref().map(|terminal| vec![format!("TERM={}", terminal.kind)]),
        cmd: Some(errand.command.clone()),
        ..Default::default()
    }
}

fn health(plan: &Plan) -> HealthConfig {
    let nanoseconds = |duration: Duration| Some(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX));
    match &plan.health {
        Some(health) => {
            let test = std::iter::once("CMD".to_owned()).chain(health.command.iter().cloned()).collect();
            HealthConfig {
                test: Some(test),
                interval: nanoseconds(health.interval),
                timeout: nanoseconds(health.timeout),
                retries: Some(health.retries.into()),
                start_period: nanoseconds(health.start_period),
                start_interval: None,
            }
        }
        // What the image says about a runtime is no use in its holder.
        None if plan.role == Role::Holder => HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() },
        None => HealthConfig::default(),
    }
}

/// The directory for serial ports. That of the holder is a volume without a name, which goes with the holder: memory, on which device
/// nodes work, and little of it.
fn directory(plan: &Plan, ports: Option<String>) -> Mount {
    let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=64k,nr_inodes=256,mode=0755,nosuid,noexec")];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let driver = MountVolumeOptionsDriverConfig { name: Some("local".to_owned()), options: Some(options.into()) };
    let volume = MountVolumeOptions {
        no_copy: Some(true),
        labels: Some(HashMap::from([(VPLC_LABEL.to_owned(), plan.vplc.clone())])),
        driver_config: Some(driver),
        ..Default::default()
    };
    Mount {
        typ: Some(MountType::VOLUME),
        target: Some(DIRECTORY.to_owned()),
        volume_options: ports.is_none().then_some(volume),
        source: ports,
        ..Default::default()
    }
}

fn host(plan: &Plan, network: String, ports: Option<String>) -> HostConfig {
    let directory = plan.ports.is_some().then(|| directory(plan, ports));
    let mounts = plan.volume.iter().map(|volume| Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.name.clone()),
        target: Some(volume.path.clone()),
        ..Default::default()
    });
    let logs = HashMap::from([
        ("max-size".to_owned(), plan.logs.size.to_string()),
        ("max-file".to_owned(), plan.logs.files.to_string()),
    ]);
    // What nearly every program wants to write to, if the rest cannot be written to.
    let tmpfs = || ["/run", "/tmp"].map(|path| (path.to_owned(), "rw,nosuid,nodev".to_owned())).into();
    HostConfig {
        network_mode: Some(network),
        // Restarts are for the daemon to decide: the engine knows neither NICs nor what an operator wanted.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        mounts: Some(mounts.chain(directory).collect()),
        log_config: Some(HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(logs) }),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(plan.capabilities.clone()),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        readonly_rootfs: Some(plan.read_only_root),
        tmpfs: (plan.read_only_root && plan.role == Role::Runtime).then(tmpfs),
        cpuset_cpus: plan.cpuset.clone(),
        memory: plan.memory.map(number),
        // Without it the engine allows as much swap again.
        memory_swap: plan.memory.map(number),
        device_cgroup_rules: plan.ports.clone(),
        pids_limit: plan.pids.map(i64::from),
        ulimits: Some(limits(plan)),
        ..Default::default()
    }
}

fn limits(plan: &Plan) -> Vec<ResourcesUlimits> {
    let limit =
        |name: &str, value: i64| ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) };
    let real_time = plan.real_time.as_ref();
    real_time
        .map(|limits| {
            let memory = limits.locked_memory.map_or(-1, number);
            vec![limit("rtprio", limits.priority.into()), limit("memlock", memory)]
        })
        .unwrap_or_default()
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
