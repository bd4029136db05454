//! Columns for people. Programs read `--output json`.

/// Rows under a head, each column as wide as its widest cell, two blanks between; lines carry no trailing blanks.
pub fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = line(head.iter().copied(), &widths);
    for row in rows {
        text += &line(row.iter().map(String::as_str), &widths);
    }
    text
}

/// `key: value` lines, values under each other. Empty values are left out.
pub fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let shown = rows.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(key, value)| format!("{:<1$}  {value}\n", format!("{key}:"), width + 1)).collect()
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.zip(widths) {
        line += &format!("{cell:<width$}  ");
    }
    line.truncate(line.trim_end().len());
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let rows = [vec!["a".to_owned(), "running".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(columns(&["NAME", "STATE"], &rows), "NAME    STATE\na       running\nlonger\n");
    }

    #[test]
    fn fields_line_up_and_skip_what_is_absent() {
        let rows = [("id", "1".to_owned()), ("reason", String::new()), ("memory", "2".to_owned())];
        assert_eq!(fields(&rows), "id:      1\nmemory:  2\n");
    }
}
