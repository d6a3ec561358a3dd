//! How long planning takes: `make bench-plan`.
//!
//! Prints the median over some runs, each from the text of the Manifest to the plan:
//!
//! * `plan-20x5x200-ms`: 20 Component types, five versions each, all of which every Component has to pass, 200 constraints;
//! * `plan-500-components-ms`: 500 Components of 50 types, in two versions of each, 300 constraints, ten types that reboot
//!   the host;
//! * `plan-hard-ms`: constraints between three types each, made so that no plan is found by following precedences alone; the
//!   budget bounds it.
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use orchestratord::core::document::Document;
use orchestratord::core::error::Error;
use orchestratord::update::component::ComponentKey;
use orchestratord::update::composition::{Composition, Part, compose};
use orchestratord::update::manifest::Manifest;
use orchestratord::update::selection::Candidate;

const RUNS: usize = 11;

/// The same numbers at each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(limit)).unwrap_or(0)
    }
}

/// A Manifest with the Components it is for: type and version.
struct System {
    text: String,
    components: Vec<(String, u32)>,
    versions: u32,
}

fn head(types: u32, versions: u32, hosts: u32) -> String {
    let mut text =
        "api_version: orchestrator/v1\nkind: manifest\nname: bench\nsystem_types_compatible: [bench]\n".to_owned();
    text.push_str("component_types:\n");
    for name in 0..types {
        let reboot = if name < hosts { "host" } else { "none" };
        let _ = writeln!(text, "  t{name}:\n    artifact_name: a\n    version: 'v{versions}'\n    reboot: {reboot}");
        if versions > 2 {
            let _ = writeln!(text, "    from: 'v{}'\n    intermediates:", versions - 1);
            for version in 2..versions {
                let _ = writeln!(text, "      - {{artifact_name: a, version: 'v{version}', from: 'v{}'}}", version - 1);
            }
        }
    }
    text.push_str("constraints:\n");
    text
}

/// Two types, the first of which comes before the second in an order that nobody is told.
fn pair(dice: &mut Dice, types: u32) -> (u32, u32) {
    loop {
        let (left, right) = (dice.below(types), dice.below(types));
        // Only neighbours, so that the graph has some depth, but many things can go side by side.
        if left < right && right - left < 6 {
            return (left, right);
        }
    }
}

fn constraint(text: &mut String, dice: &mut Dice, types: u32, versions: u32) {
    let (first, second) = pair(dice, types);
    match dice.below(3) {
        0 => {
            let rows = |row: &dyn Fn(u32) -> String, last: u32| (1..=last).map(row).collect::<Vec<_>>().join(", ");
            let end = rows(&|version| format!("[v{version}, v{version}]"), versions);
            let transition = rows(&|version| format!("[v{}, v{version}]", version + 1), versions - 1);
            let _ = writeln!(
                text,
                "  - combinations: {{types: [t{first}, t{second}], end: [{end}], transition: [{transition}]}}"
            );
        }
        1 => {
            let version = dice.below(versions - 1) + 2;
            let _ =
                writeln!(text, "  - {{when: {{t{second}: '>=v{version}'}}, requires: {{t{first}: '>=v{version}'}}}}");
        }
        _ => {
            let version = dice.below(versions - 1) + 1;
            let next = version + 1;
            let _ = writeln!(text, "  - {{conflicts: {{t{first}: '<=v{version}', t{second}: '>=v{next}'}}}}");
        }
    }
}

fn chains() -> System {
    let (mut text, mut dice) = (head(20, 5, 0), Dice(0x9e37_79b9_7f4a_7c15));
    for _ in 0..200 {
        constraint(&mut text, &mut dice, 20, 5);
    }
    System { text, components: (0..20).map(|name| (format!("t{name}"), 1)).collect(), versions: 5 }
}

fn fleet() -> System {
    let (mut text, mut dice) = (head(50, 2, 10), Dice(0x1234_5678_9abc_def1));
    for _ in 0..300 {
        constraint(&mut text, &mut dice, 50, 2);
    }
    let components = (0..500).map(|number| (format!("t{}", number % 50), 1 + u32::from(number % 70 == 0))).collect();
    System { text, components, versions: 2 }
}

/// Of every three types, one has to wait for either of the others: choices, and no way to tell which one is right.
fn hard() -> System {
    let (mut text, mut dice) = (head(40, 2, 0), Dice(0xdead_beef_0bad_cafe));
    for _ in 0..170 {
        let mut three = [dice.below(40), dice.below(40), dice.below(40)];
        while three[0] == three[1] || three[1] == three[2] || three[0] == three[2] {
            three = [dice.below(40), dice.below(40), dice.below(40)];
        }
        let mut versions = [1 + dice.below(2), 1 + dice.below(2), 1 + dice.below(2)];
        if versions[0] == versions[1] && versions[1] == versions[2] {
            versions[2] = 3 - versions[2];
        }
        let cells: Vec<String> =
            three.iter().zip(versions).map(|(name, version)| format!("t{name}: v{version}")).collect();
        let _ = writeln!(text, "  - {{conflicts: {{{}}}, scope: transition}}", cells.join(", "));
    }
    System { text, components: (0..40).map(|name| (format!("t{name}"), 1)).collect(), versions: 2 }
}

fn candidate(component_type: &str, version: u32) -> Candidate {
    let key = format!("rootfs-image.{component_type}.version");
    Candidate {
        size: 1,
        source: format!("{component_type}-v{version}"),
        device_types: vec![component_type.to_owned()],
        artifact_name: format!("{component_type}-v{version}"),
        artifact_group: None,
        provides: BTreeMap::from([(key.clone(), format!("v{version}"))]),
        depends: BTreeMap::new(),
        clears_provides: Some(vec![key]),
        payload_type: component_type.to_owned(),
    }
}

fn plan(system: &System) -> Result<Composition, Error> {
    let manifest = Manifest::parse(&Document::new("manifest", system.text.as_str())).map_err(Error::from)?;
    let mut artifacts = BTreeMap::new();
    for (name, _) in &system.components {
        artifacts.entry(name.clone()).or_insert_with(|| {
            let intermediates = (2..system.versions).map(|version| candidate(name, version));
            std::iter::once(candidate(name, system.versions)).chain(intermediates).collect()
        });
    }
    let known: Vec<(ComponentKey, BTreeMap<String, String>)> = system
        .components
        .iter()
        .enumerate()
        .map(|(number, (name, version))| {
            let key = ComponentKey { component_type: name.clone(), id: number.to_string() };
            (key, BTreeMap::from([(format!("rootfs-image.{name}.version"), format!("v{version}"))]))
        })
        .collect();
    let parts: Vec<Part<'_>> =
        known.iter().map(|(key, provides)| Part { key, interface: &key.component_type, provides }).collect();
    compose(&manifest, &parts, &artifacts)
}

fn measure(name: &str, system: &System) {
    let mut times: Vec<f64> = Vec::new();
    let mut told = String::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        let planned = plan(system);
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        told = match planned {
            Ok(composition) => {
                let steps = composition.iter().flatten().map(|made| made.step).max().unwrap_or(0);
                let moves = composition.iter().flatten().count();
                format!("{moves} updates in {steps} steps")
            }
            Err(error) => error.message.chars().take(200).collect(),
        };
    }
    times.sort_by(f64::total_cmp);
    println!("{name}: {told}; {:.2} to {:.2} ms", times[0], times[RUNS - 1]);
    println!("bench: {name} {:.2}", times[RUNS / 2]);
}

fn main() {
    measure("plan-20x5x200-ms", &chains());
    measure("plan-500-components-ms", &fleet());
    measure("plan-hard-ms", &hard());
}
