//! Text that cannot steer a terminal. Characters that command one, that change the order of what it shows, or that nobody
//! can see become escapes such as `\u{1b}`.
//!
//! Names, reasons and messages come from guests, from files and from other programs. All that this program prints as text
//! of its own is a [`Text`], whose lines can be made only by escaping. What passes bytes on as they are, such as `exec`,
//! does without it.

use std::borrow::Cow;

/// Lines for a terminal. Each ends with a line break; nothing else in them steers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// One line.
    pub fn line(line: &str) -> Text {
        Text::lines([line])
    }

    /// A line for each.
    pub fn lines(lines: impl IntoIterator<Item = impl AsRef<str>>) -> Text {
        let mut text = Text::default();
        for line in lines {
            text.push(line.as_ref());
        }
        text
    }

    /// Appends a line.
    pub fn push(&mut self, line: &str) {
        self.0 += &escaped(line);
        self.0.push('\n');
    }

    /// Appends all lines of another text.
    pub fn append(&mut self, other: &Text) {
        self.0 += &other.0;
    }

    /// What is printed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a terminal does something else with a character than to show it: C0, DEL and C1; marks and overrides of the
/// writing direction; line and paragraph separators; and what has no shape of its own, in which words can be hidden.
pub fn steers(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// On one line: a line break becomes `\n`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match steers(char) {
            true => line.extend(char.escape_default()),
            false => line.push(char),
        }
    }
    Cow::Owned(line)
}

/// A message on one line: its line breaks and tabs are blanks, and it is without the numbers that the standard library
/// adds to the operating system's words.
pub fn printable(message: &str) -> String {
    let blank = |char| if matches!(char, '\n' | '\r' | '\t') { ' ' } else { char };
    let mut line = escaped(&message.chars().map(blank).collect::<String>()).into_owned();
    while let Some(start) = line.find(" (os error ") {
        let Some(length) = line[start..].find(')') else { break };
        line.replace_range(start..=start + length, "");
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_steers_is_shown_and_the_rest_stays() {
        assert_eq!(escaped("a\x1b[2J\u{9b}\u{7f}\u{202e}b\n"), "a\\u{1b}[2J\\u{9b}\\u{7f}\\u{202e}b\\n");
        assert_eq!(escaped("\u{2028}\u{feff}\u{e0041}\u{200d}"), "\\u{2028}\\u{feff}\\u{e0041}\\u{200d}");
        for plain in ["", "devbox", "Größe 3 €", "файл", "名前", "✓ …", "e\u{301}", "\\u{1b}"] {
            assert!(matches!(escaped(plain), Cow::Borrowed(same) if same == plain), "{plain}");
        }
    }

    #[test]
    fn messages_are_for_people() {
        assert_eq!(printable("a\nb\t\x1b[2J\u{9b}c\n"), "a b \\u{1b}[2J\\u{9b}c");
        assert_eq!(printable("x: Gone (os error 2): y (os error 20)"), "x: Gone: y");
        assert_eq!(printable("x (os error 2"), "x (os error 2");
    }

    #[test]
    fn no_line_breaks_into_two() {
        let mut text = Text::lines(["a\nforged", "b"]);
        text.append(&Text::line("c\r"));
        assert_eq!(text.as_str(), "a\\nforged\nb\nc\\r\n");
    }

    proptest! {
        #[test]
        fn nothing_in_any_text_steers(words in any::<String>()) {
            prop_assert!(!escaped(&words).contains(steers));
            prop_assert!(!printable(&words).contains(steers));
            let once = escaped(&words).into_owned();
            prop_assert_eq!(escaped(&once), once.as_str());
        }
    }
}
