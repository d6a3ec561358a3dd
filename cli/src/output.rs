//! What goes to standard output: tables, JSON, times, sizes.

use std::io::Write;

use serde::Serialize;

use crate::failure::Failure;

/// Writes to standard output; unlike `print!` it reports a failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(|error| Failure::from_output(&error))
}

/// Writes a line about this program's own doings to standard error; unlike `eprintln!` it survives a lost reader.
pub fn complain(program: &str, message: &str) {
    let line = format!("{program}: {}\n", printable(message));
    // Nobody can be told that nobody listens.
    drop(std::io::stderr().lock().write_all(line.as_bytes()));
}

/// Writes one value as indented JSON.
fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    print(&format!("{}\n", json(serde_json::to_string_pretty(value))?))
}

/// Writes the value as JSON, or the text for people.
pub fn show<T: Serialize>(json: bool, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
    if json { print_json(value) } else { print(&text()) }
}

/// Writes one value as one line of JSON.
pub fn print_json_line<T: Serialize>(value: &T) -> Result<(), Failure> {
    print(&format!("{}\n", json(serde_json::to_string(value))?))
}

fn json(text: serde_json::Result<String>) -> Result<String, Failure> {
    text.map_err(|error| Failure::from_output(&error.into()))
}

/// Columns that fit their widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// Adds a row; an empty cell shows as `-`.
    pub fn row(&mut self, cells: &[&str]) {
        let shown = cells.iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { printable(cell) });
        self.rows.push(shown.collect());
    }

    /// The text, one line per row, without blanks at line ends.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let padded = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            let line = padded.collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Makes text from elsewhere safe for one line of a terminal: a script's output must not move the cursor, change the
/// window title or forge a line.
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => clean.push(' '),
            // Besides the control characters: marks that reverse the direction of what follows.
            character
                if character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                clean.extend(character.escape_default());
            }
            character => clean.push(character),
        }
    }
    clean
}

/// A size for people, in binary units.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scaled = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    // Tenths of the unit; 10240 of them are one of the next.
    while scaled >= 10240 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", scaled / 10, scaled % 10, UNITS[unit])
}

/// A date and time of day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
    microsecond: u64,
}

impl Moment {
    /// From microseconds since 1970.
    pub fn from_micros(micros: u64) -> Self {
        let seconds = micros / 1_000_000;
        // Days are counted from 1 March of year 0, so that the leap day is the last of its year.
        let days = seconds / 86_400 + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            second_of_day: seconds % 86_400,
            microsecond: micros % 1_000_000,
        }
    }

    /// The present.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// `2025-10-15T11:08:51Z`
    pub fn rfc3339(self) -> String {
        format!("{:04}-{:02}-{:02}T{}Z", self.year, self.month, self.day, self.time_of_day())
    }

    /// `2025-Oct-15 11:08:51.593812`, the shape in Mender's log records.
    pub fn mender(self) -> String {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = usize::try_from(self.month - 1).ok().and_then(|index| MONTHS.get(index)).copied().unwrap_or("???");
        format!("{:04}-{month}-{:02} {}.{:06}", self.year, self.day, self.time_of_day(), self.microsecond)
    }

    fn time_of_day(self) -> String {
        let second = self.second_of_day;
        format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_leave_no_blanks_behind() {
        let mut table = Table::new(&["COMPONENT", "STATE"]);
        table.row(&["rtos.R123", ""]);
        table.row(&["ä.1", "idle"]);
        assert_eq!(table.render(), "COMPONENT  STATE\nrtos.R123  -\nä.1        idle\n");
    }

    #[test]
    fn control_characters_cannot_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc\td"), "a\\u{1b}[31mb\\nc d");
        assert_eq!(printable("\u{9b}2J"), "\\u{9b}2J");
        assert_eq!(printable("größer \"x\""), "größer \"x\"");
    }

    #[test]
    fn sizes_are_rounded_down() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(1536 * 1024), "1.5 MiB");
        assert_eq!(size(1024 * 1024 - 1), "1023.9 KiB");
        assert_eq!(size(u64::MAX), "15.9 EiB");
    }

    #[test]
    fn moments_know_the_calendar() {
        // The figures are those of `date -u -d @<seconds>`.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_760_526_531, "2025-10-15T11:08:51Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Moment::from_micros(seconds * 1_000_000).rfc3339(), expected);
        }
        assert_eq!(Moment::from_micros(1_760_526_531_593_812).mender(), "2025-Oct-15 11:08:51.593812");
    }
}
