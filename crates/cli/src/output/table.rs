//! Columns for people. Programs read `--output json`. Cells are measured as they are printed, with what is escaped in them.

use super::escape::{Text, escaped};

/// Rows under a head, each column as wide as its widest cell, two blanks between; lines carry no trailing blanks.
pub fn columns(head: &[&str], rows: &[Vec<String>]) -> Text {
    let rows = printed(rows);
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str), &widths));
    Text::lines([line(head.iter().copied(), &widths)].into_iter().chain(rows))
}

fn printed(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    rows.iter().map(|row| row.iter().map(|cell| escaped(cell).into_owned()).collect()).collect()
}

/// The same where lines have so much room: columns go from the right, which is where the least important ones stand, until
/// the rest fits. Two stay: then the first is cut, with `mark` behind it, and the whole line where that is not enough.
pub fn columns_within(head: &[&str], rows: &[Vec<String>], room: usize, mark: &str) -> Text {
    let rows = printed(rows);
    let fits = |text: &Text| text.as_str().lines().all(|line| line.chars().count() <= room);
    let of = |kept: usize, rows: &[Vec<String>]| {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row[..kept].to_vec()).collect();
        columns(&head[..kept], &rows)
    };
    let least = LEAST.min(head.len());
    if let Some(text) = (least..=head.len()).rev().map(|kept| of(kept, &rows)).find(fits) {
        return text;
    }
    let others = rows.iter().flat_map(|row| &row[1..least]).map(|cell| cell.chars().count());
    let others = others.chain(head[1..least].iter().map(|name| name.chars().count())).max().map_or(0, |wide| wide + 2);
    let first = room.saturating_sub(others).max(NARROWEST);
    let mut cropped = rows;
    for cell in cropped.iter_mut().filter_map(|row| row.first_mut()) {
        *cell = cut(cell, first, mark);
    }
    Text::lines(of(least, &cropped).as_str().lines().map(|line| cut(line, room, mark)))
}

/// The columns that are never left out: what it is, and how it is.
const LEAST: usize = 2;

/// How much of a name is always left.
const NARROWEST: usize = 7;

fn cut(line: &str, room: usize, mark: &str) -> String {
    if line.chars().count() <= room {
        return line.to_owned();
    }
    let kept: String = line.chars().take(room.saturating_sub(mark.chars().count())).collect();
    format!("{}{mark}", kept.trim_end())
}

/// `key: value` lines, values under each other. Empty values are left out.
pub fn fields(rows: &[(&str, String)]) -> Text {
    let keys: Vec<_> = rows.iter().map(|(key, _)| escaped(key)).collect();
    let width = keys.iter().map(|key| key.chars().count()).max().unwrap_or(0);
    let shown = keys.iter().zip(rows).filter(|(_, (_, value))| !value.is_empty());
    Text::lines(shown.map(|(key, (_, value))| format!("{:<1$}  {value}", format!("{key}:"), width + 1)))
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.zip(widths) {
        line += &format!("{cell:<width$}  ");
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let rows = [vec!["a".to_owned(), "running".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(columns(&["NAME", "STATE"], &rows).as_str(), "NAME    STATE\na       running\nlonger\n");
    }

    #[test]
    fn what_does_not_fit_goes_from_the_right_and_is_cut_last() {
        let head = ["NAME", "STATE", "IMAGE"];
        let rows = [vec!["devbox".to_owned(), "running".to_owned(), "debian".to_owned()]];
        let within = |room| columns_within(&head, &rows, room, "…").as_str().to_owned();
        assert_eq!(within(23), "NAME    STATE    IMAGE\ndevbox  running  debian\n");
        assert_eq!(within(22), "NAME    STATE\ndevbox  running\n");
        assert_eq!(within(15), within(22));
        assert_eq!(within(12), "NAME    STA…\ndevbox  run…\n");
        let long = [vec!["a-long-name-of-a-machine".to_owned(), "running".to_owned()]];
        assert_eq!(columns_within(&head[..2], &long, 20, "…").as_str(), "NAME         STATE\na-long-nam…  running\n");
        assert_eq!(columns_within(&head[..1], &rows, 5, "…").as_str(), "NAME\ndevb…\n");
    }

    #[test]
    fn fields_line_up_and_skip_what_is_absent() {
        let rows = [("id", "1".to_owned()), ("reason", String::new()), ("memory", "2".to_owned())];
        assert_eq!(fields(&rows).as_str(), "id:      1\nmemory:  2\n");
    }

    #[test]
    fn what_steers_is_escaped_and_measured_as_it_is_printed() {
        let rows = [vec!["a\x1b[m".to_owned(), "x".to_owned()], vec!["b\nroot".to_owned(), "y".to_owned()]];
        let expected = "NAME       STATE\na\\u{1b}[m  x\nb\\nroot    y\n";
        assert_eq!(columns(&["NAME", "STATE"], &rows).as_str(), expected);
        assert_eq!(columns_within(&["NAME", "STATE"], &rows, 16, "~").as_str(), expected);
        assert_eq!(
            columns_within(&["NAME", "STATE"], &rows, 15, "~").as_str(),
            "NAME      STATE\na\\u{1b}~  x\nb\\nroot   y\n"
        );
        assert_eq!(
            fields(&[("\x1bk", "v\u{9b}".to_owned()), ("id", "1\n".to_owned())]).as_str(),
            "\\u{1b}k:  v\\u{9b}\nid:       1\\n\n"
        );
    }
}
