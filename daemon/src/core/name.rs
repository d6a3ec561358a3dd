//! Names that cross a border: onto the file system and into D-Bus object paths.

/// Escapes a label for one segment of a D-Bus object path, as systemd escapes unit names: ASCII letters and digits
/// stay (a leading digit does not), every other byte becomes `_xx`, and the empty string becomes `_`.
pub fn dbus_escape(label: &str) -> String {
    if label.is_empty() {
        return "_".to_owned();
    }
    let mut escaped = String::with_capacity(label.len());
    for (index, byte) in label.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && index > 0) {
            escaped.push(char::from(byte));
        } else {
            push_hex(&mut escaped, '_', byte);
        }
    }
    escaped
}

/// What [`dbus_escape`] made this segment of. What cannot be its work stays as it is.
pub fn dbus_unescape(segment: &str) -> String {
    if segment == "_" {
        return String::new();
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment;
    while let Some((plain, escaped)) = rest.split_once('_') {
        bytes.extend(plain.bytes());
        let Some(byte) = escaped.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            return segment.to_owned();
        };
        bytes.push(byte);
        rest = escaped.get(2..).unwrap_or_default();
    }
    bytes.extend(rest.bytes());
    String::from_utf8(bytes).unwrap_or_else(|_| segment.to_owned())
}

/// Escapes a name for one directory entry: `A-Z a-z 0-9 . _ : -` stay, every other byte becomes `%xx`.
/// The result is injective, never empty, `.` or `..`, and at most three times as long as the name.
pub fn file_escape(name: &str) -> String {
    let dots_only = name.bytes().all(|byte| byte == b'.');
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-') || (byte == b'.' && !dots_only);
        if plain {
            escaped.push(char::from(byte));
        } else {
            push_hex(&mut escaped, '%', byte);
        }
    }
    if escaped.is_empty() { "%".to_owned() } else { escaped }
}

fn push_hex(text: &mut String, mark: char, byte: u8) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    text.push(mark);
    text.push(DIGITS[usize::from(byte >> 4)]);
    text.push(DIGITS[usize::from(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dbus_labels_follow_systemd() {
        assert_eq!(dbus_escape("R123"), "R123");
        assert_eq!(dbus_escape("7up"), "_37up");
        assert_eq!(dbus_escape("52:54:00"), "_352_3a54_3a00");
        assert_eq!(dbus_escape("a_b-c"), "a_5fb_2dc");
        assert_eq!(dbus_escape(""), "_");
        for name in ["", "7up", "a_b-c", "plc0", "é", "_"] {
            assert_eq!(dbus_unescape(&dbus_escape(name)), name);
        }
        for foreign in ["_x", "a_", "_ff"] {
            assert_eq!(dbus_unescape(foreign), foreign);
        }
    }

    #[test]
    fn file_names_stay_inside_their_directory() {
        assert_eq!(file_escape("52:54:00:1d:94:82"), "52:54:00:1d:94:82");
        assert_eq!(file_escape("../x"), "..%2fx");
        assert_eq!(file_escape(".."), "%2e%2e");
        assert_eq!(file_escape("."), "%2e");
        assert_eq!(file_escape("a b"), "a%20b");
        assert_eq!(file_escape(""), "%");
    }
}
