//! Results as JSON. What would steer a terminal is escaped in it; who parses it gets the same values.

use std::fmt::Write;

use serde::Serialize;

use super::escape::steers;

/// As several lines, for `--output json`.
pub fn pretty(value: &impl Serialize) -> String {
    plain(&written(serde_json::to_string_pretty(value)))
}

/// As one line, for a stream of values.
pub fn line(value: &impl Serialize) -> String {
    plain(&written(serde_json::to_string(value)))
}

fn written(json: serde_json::Result<String>) -> String {
    json.expect("the API's types have string keys and no failing parts") + "\n"
}

/// The line breaks are those between values: the serializer has escaped those within strings, as it has all of C0. What is
/// left can be within strings only, where an escape means the same.
fn plain(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for char in json.chars() {
        if char == '\n' || !steers(char) {
            plain.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            write!(plain, "\\u{unit:04x}").expect("writing to a string cannot fail");
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_those_of_json() {
        let value = ["\x1b\u{7f}\u{9b}\u{202e}\u{e0041}ü"];
        assert_eq!(line(&value), "[\"\\u001b\\u007f\\u009b\\u202e\\udb40\\udc41ü\"]\n");
        assert_eq!(pretty(&value), "[\n  \"\\u001b\\u007f\\u009b\\u202e\\udb40\\udc41ü\"\n]\n");
    }

    proptest! {
        #[test]
        fn values_stay_the_same_and_nothing_steers(values in proptest::collection::hash_map(any::<String>(), any::<String>(), 0..4)) {
            for json in [pretty(&values), line(&values)] {
                prop_assert!(!json.replace('\n', "").contains(steers));
                prop_assert_eq!(&serde_json::from_str::<std::collections::HashMap<String, String>>(&json).unwrap(), &values);
            }
        }
    }
}
