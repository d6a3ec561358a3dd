//! Figures as `OpenMetrics` 1.0 text, for whatever scrapes.

use std::fmt;
use std::fmt::Write;

use futures_util::future::BoxFuture;

/// A value of a family: its labels, written by [`label`] or none, and the value.
pub type Value = (String, String);

/// Whoever has figures.
pub trait Source: fmt::Debug + Send + Sync {
    /// Adds its families.
    fn describe<'a>(&'a self, text: &'a mut OpenMetrics) -> BoxFuture<'a, ()>;
}

/// Text that grows by one family after the other.
#[derive(Debug, Default)]
pub struct OpenMetrics(String);

impl OpenMetrics {
    /// Adds what goes up and down. A family without values is left out.
    pub fn gauge(&mut self, name: &str, unit: &str, help: &str, values: &[Value]) {
        self.family(name, "gauge", "", [unit, help], values);
    }

    /// Adds what only grows, and begins again with zero now and then.
    pub fn counter(&mut self, name: &str, unit: &str, help: &str, values: &[Value]) {
        self.family(name, "counter", "_total", [unit, help], values);
    }

    fn family(&mut self, name: &str, kind: &str, suffix: &str, [unit, help]: [&str; 2], values: &[Value]) {
        if values.is_empty() {
            return;
        }
        // Writing to a string cannot fail.
        let text = &mut self.0;
        let _ = writeln!(text, "# TYPE {name} {kind}");
        if !unit.is_empty() {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(text, "# HELP {name} {help}");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{suffix}{labels} {value}");
        }
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        self.0.push_str("# EOF\n");
        self.0
    }
}

/// One label with its value.
pub fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{{name}=\"{value}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_their_form() {
        let mut text = OpenMetrics::default();
        text.gauge("a_bytes", "bytes", "One.", &[(String::new(), "7".to_owned())]);
        text.gauge("nothing", "", "None.", &[]);
        text.counter("b", "", "Two.", &[(label("name", "x\\\"\ny"), "1".to_owned())]);
        assert_eq!(
            text.finish(),
            "# TYPE a_bytes gauge\n# UNIT a_bytes bytes\n# HELP a_bytes One.\na_bytes 7\n\
             # TYPE b counter\n# HELP b Two.\nb_total{name=\"x\\\\\\\"\\ny\"} 1\n# EOF\n"
        );
    }
}
