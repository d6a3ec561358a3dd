//! A plan for people and programs: as a table with reasons, as JSON, as a graph.

use std::collections::BTreeMap;
use std::fmt::Write;

use orchestratord_dbus::PlanStep;
use serde::Serialize;

use crate::args::Graph;
use crate::client::Properties;
use crate::output::{Table, printable, size};

/// What is done with one Component in one step.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    pub order: u64,
    pub component_type: String,
    pub id: String,
    pub action: String,
    pub interface: String,
    pub from_version: String,
    pub to_version: String,
    pub artifact_name: String,
    pub artifact: String,
    pub size: u64,
    pub leg: u64,
    pub reasons: Vec<String>,
    pub way_back: String,
}

impl Step {
    /// A step as it came over the bus; what an older daemon does not say is empty.
    pub fn new(step: PlanStep) -> Self {
        let step = Properties::new(step);
        let text = |name| step.text(name).unwrap_or_default();
        let number = |name| step.number(name).unwrap_or_default();
        Self {
            order: number("order"),
            component_type: text("component-type"),
            id: text("id"),
            action: text("action"),
            interface: text("interface"),
            from_version: text("from-version"),
            to_version: text("to-version"),
            artifact_name: text("artifact-name"),
            artifact: text("artifact"),
            size: number("size"),
            leg: number("leg"),
            reasons: step.list("reasons").unwrap_or_default(),
            way_back: text("way-back"),
        }
    }

    fn component(&self) -> String {
        format!("{}.{}", self.component_type, self.id)
    }

    fn moves(&self) -> bool {
        self.action == "install"
    }
}

/// The plan as a table, followed by what there is to know about its steps.
pub fn text(steps: &[Step]) -> String {
    let judged = steps.iter().any(|step| !step.way_back.is_empty());
    let mut head = vec!["ORDER", "COMPONENT", "ACTION", "FROM", "TO", "SIZE", "ARTIFACT"];
    if judged {
        head.insert(5, "WAY BACK");
    }
    let mut table = Table::new(&head);
    for step in steps {
        let bytes = if step.artifact.is_empty() { String::new() } else { size(step.size) };
        let (order, component) = (step.order.to_string(), step.component());
        let mut row: Vec<&str> =
            vec![&order, &component, &step.action, &step.from_version, &step.to_version, &bytes, &step.artifact];
        if judged {
            row.insert(5, &step.way_back);
        }
        table.row(&row);
    }
    let mut text = table.render();
    for (last, first) in commits(steps) {
        let _ = writeln!(
            text,
            "\nAfter step {last} everything is committed; a failure from step {first} on leads back to there."
        );
    }
    let mut blank = true;
    for step in steps {
        for reason in &step.reasons {
            let gap = if std::mem::take(&mut blank) { "\n" } else { "" };
            let _ = writeln!(text, "{gap}{} {}: {}", step.order, printable(&step.component()), printable(reason));
        }
    }
    text
}

/// The steps around each commit within the plan.
fn commits(steps: &[Step]) -> Vec<(u64, u64)> {
    let moves = || steps.iter().filter(|step| step.moves());
    let legs = moves().map(|step| step.leg).max().unwrap_or(0);
    let ends = (1..legs).map(|leg| {
        let last = moves().filter(|step| step.leg <= leg).map(|step| step.order).max();
        let first = moves().filter(|step| step.leg > leg).map(|step| step.order).min();
        (last.unwrap_or(0), first.unwrap_or(0))
    });
    ends.collect()
}

/// The steps as a graph, one box around what runs side by side.
pub fn graph(steps: &[Step], kind: Graph) -> String {
    let mut groups: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.moves()) {
        let label = format!("{}: {} to {}", step.component(), shown(&step.from_version), shown(&step.to_version));
        groups.entry((step.leg, step.order)).or_default().push(label);
    }
    match kind {
        Graph::Mermaid => mermaid(&groups),
        Graph::Dot => dot(&groups),
    }
}

fn shown(version: &str) -> &str {
    if version.is_empty() { "?" } else { version }
}

fn mermaid(groups: &BTreeMap<(u64, u64), Vec<String>>) -> String {
    let mut text = "flowchart LR\n".to_owned();
    // Mermaid reads these as markup also between quotes.
    let escaped = |label: &str| {
        let mut safe = String::new();
        for character in printable(label).chars() {
            match character {
                '"' | '#' | '<' | '>' | '&' | ';' | '`' => {
                    let _ = write!(safe, "#{};", u32::from(character));
                }
                character => safe.push(character),
            }
        }
        safe
    };
    let mut before: Option<(u64, u64)> = None;
    for ((leg, order), labels) in groups {
        let _ = writeln!(text, "    subgraph s{order}[\"step {order}\"]");
        for (index, label) in labels.iter().enumerate() {
            let _ = writeln!(text, "        s{order}n{index}[\"{}\"]", escaped(label));
        }
        text.push_str("    end\n");
        match before.replace((*leg, *order)) {
            Some((other, last)) if other == *leg => {
                let _ = writeln!(text, "    s{last} --> s{order}");
            }
            Some((_, last)) => {
                let _ = writeln!(text, "    s{last} -- commit --> s{order}");
            }
            None => {}
        }
    }
    text
}

fn dot(groups: &BTreeMap<(u64, u64), Vec<String>>) -> String {
    let mut text = "digraph plan {\n    rankdir=LR;\n    compound=true;\n    node [shape=box];\n".to_owned();
    let escaped = |label: &str| printable(label).replace('\\', "\\\\").replace('"', "\\\"");
    let mut before: Option<(u64, u64)> = None;
    for ((leg, order), labels) in groups {
        let _ = writeln!(text, "    subgraph cluster_{order} {{\n        label=\"step {order}\";");
        for (index, label) in labels.iter().enumerate() {
            let _ = writeln!(text, "        s{order}n{index} [label=\"{}\"];", escaped(label));
        }
        text.push_str("    }\n");
        if let Some((other, last)) = before.replace((*leg, *order)) {
            let label = if other == *leg { "" } else { ", label=\"commit\"" };
            let _ = writeln!(text, "    s{last}n0 -> s{order}n0 [ltail=cluster_{last}, lhead=cluster_{order}{label}];");
        }
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(order: u64, leg: u64, id: &str, from: &str, to: &str) -> Step {
        Step {
            order,
            component_type: "rtos".to_owned(),
            id: id.to_owned(),
            action: if leg == 0 { "unchanged" } else { "install" }.to_owned(),
            interface: "rtos".to_owned(),
            from_version: from.to_owned(),
            to_version: to.to_owned(),
            artifact_name: String::new(),
            artifact: String::new(),
            size: 0,
            leg,
            reasons: if order == 2 { vec!["after \"A\"\u{1b}".to_owned()] } else { Vec::new() },
            way_back: if leg == 0 { "" } else { "full" }.to_owned(),
        }
    }

    #[test]
    fn a_plan_shows_commits_and_reasons_below_the_table() {
        let steps = [
            step(0, 0, "C", "v1", "v1"),
            step(1, 1, "A", "v1", "v2"),
            step(2, 1, "B", "", "v2"),
            step(3, 2, "A", "v2", "v3"),
        ];
        assert_eq!(
            text(&steps),
            "ORDER  COMPONENT  ACTION     FROM  TO  WAY BACK  SIZE  ARTIFACT\n\
             0      rtos.C     unchanged  v1    v1  -         -     -\n\
             1      rtos.A     install    v1    v2  full      -     -\n\
             2      rtos.B     install    -     v2  full      -     -\n\
             3      rtos.A     install    v2    v3  full      -     -\n\
             \n\
             After step 2 everything is committed; a failure from step 3 on leads back to there.\n\
             \n\
             2 rtos.B: after \"A\"\\u{1b}\n"
        );
    }

    #[test]
    fn graphs_are_safe_whatever_a_component_is_called() {
        let steps = [step(1, 1, "a\"#", "v1", "v2"), step(2, 1, "b\\", "v1", "v2"), step(3, 2, "c", "v1", "v2")];
        assert_eq!(
            graph(&steps, Graph::Mermaid),
            "flowchart LR\n    \
                 subgraph s1[\"step 1\"]\n        s1n0[\"rtos.a#34;#35;: v1 to v2\"]\n    end\n    \
                 subgraph s2[\"step 2\"]\n        s2n0[\"rtos.b\\: v1 to v2\"]\n    end\n    \
                 s1 --> s2\n    \
                 subgraph s3[\"step 3\"]\n        s3n0[\"rtos.c: v1 to v2\"]\n    end\n    \
                 s2 -- commit --> s3\n"
        );
        let dot = graph(&steps, Graph::Dot);
        assert!(dot.contains("s1n0 [label=\"rtos.a\\\"#: v1 to v2\"];"), "{dot}");
        assert!(dot.contains("s2n0 [label=\"rtos.b\\\\: v1 to v2\"];"), "{dot}");
        assert!(dot.contains("s2n0 -> s3n0 [ltail=cluster_2, lhead=cluster_3, label=\"commit\"];"), "{dot}");
    }
}
