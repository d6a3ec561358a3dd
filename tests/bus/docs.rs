//! `docs/dbus-api.md` says what the code says.

use std::collections::BTreeSet;
use std::fs;

use orchestrator_tests::repository;
use orchestratord::bus::MAX_DOCUMENT;
use orchestratord::core::error::Kind;

const INTERFACES: [&str; 10] =
    ["Manager", "Update", "Network", "Host", "Vplcs", "Vplc", "Nic", "Link", "Component", "Job"];

fn page() -> String {
    fs::read_to_string(repository().join("docs/dbus-api.md")).unwrap()
}

/// The lines between this heading and the next one of the same or a higher level.
fn section<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let level = heading.split(' ').next().unwrap();
    let lines = page.lines().skip_while(|line| *line != heading).skip(1);
    let section: Vec<&str> = lines
        .take_while(|line| !line.starts_with('#') || line.split(' ').next().unwrap().len() > level.len())
        .collect();
    assert!(!section.is_empty(), "the page has no section \"{heading}\"");
    section
}

/// The first words of the first cells of all tables of a section.
fn first_cells<'a>(section: &[&'a str]) -> Vec<&'a str> {
    section.iter().filter_map(|line| line.strip_prefix("| `")).map(|rest| rest.split_once('`').unwrap().0).collect()
}

#[test]
fn the_table_of_errors_is_that_of_the_code() {
    let page = page();
    let rows: Vec<(&str, &str)> = section(&page, "## Errors")
        .into_iter()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| line.split_once("` | ").unwrap())
        .map(|(name, rest)| (name, rest.split_once(" | ").unwrap().0))
        .collect();
    let codes = Kind::ALL.map(|kind| kind.exit_code().to_string());
    let expected: Vec<(&str, &str)> =
        Kind::ALL.iter().zip(&codes).map(|(kind, code)| (kind.dbus_name(), code.as_str())).collect();
    assert_eq!(rows, expected);
}

#[test]
fn every_member_has_its_row() {
    let page = page();
    for interface in INTERFACES {
        let file = repository().join(format!("dbus-interfaces/xml/org.orchestratord1.{interface}.xml"));
        let xml = fs::read_to_string(file).unwrap();
        let in_xml: BTreeSet<String> = ["<method name=\"", "<signal name=\"", "<property name=\""]
            .iter()
            .flat_map(|tag| xml.split(tag).skip(1))
            .map(|rest| rest.split_once('"').unwrap().0.to_owned())
            .collect();
        let on_page: BTreeSet<String> = first_cells(&section(&page, &format!("### {interface}")))
            .into_iter()
            .map(|cell| cell.split_once('(').map_or(cell, |(name, _)| name).to_owned())
            // Options are words in lower case, members are not.
            .filter(|name| name.starts_with(char::is_uppercase))
            .collect();
        assert_eq!(on_page, in_xml, "{interface}");
    }
}

#[test]
fn types_and_change_signals_of_properties_are_those_of_the_xml() {
    let page = page();
    for interface in INTERFACES {
        let file = repository().join(format!("dbus-interfaces/xml/org.orchestratord1.{interface}.xml"));
        let xml = fs::read_to_string(file).unwrap();
        let section = section(&page, &format!("### {interface}")).join("\n");
        for property in xml.split("<property name=\"").skip(1) {
            let (name, rest) = property.split_once('"').unwrap();
            let kind = rest.split_once("type=\"").unwrap().1.split_once('"').unwrap().0;
            let signal = rest.split_once("</property>").map_or("", |(property, _)| property);
            let change = match (signal.contains("value=\"const\""), signal.contains("value=\"false\"")) {
                (true, _) => "c",
                (_, true) => "f",
                _ => "t",
            };
            let row = format!("| `{name}` {kind} | {change} |");
            assert!(section.contains(&row), "{interface} has no row \"{row}\"");
        }
    }
}

#[test]
fn the_bound_of_documents_is_the_one_on_the_page() {
    assert_eq!(MAX_DOCUMENT, 1024 * 1024);
    assert!(page().contains("has 1 MiB at most"));
}
