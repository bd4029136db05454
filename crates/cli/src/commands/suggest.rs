//! What was perhaps meant.

use std::fmt;

/// A value that makes no sense, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flaw}")]
pub struct Rejected {
    flaw: String,
    /// One line.
    pub help: String,
}

impl Rejected {
    /// What is wrong and what to do about it.
    pub fn new(flaw: impl fmt::Display, help: impl Into<String>) -> Rejected {
        Rejected { flaw: flaw.to_string(), help: help.into() }
    }
}

/// The nearest name, if it is near enough for a slip of the finger.
pub fn nearest(typed: &str, names: &[String]) -> Option<String> {
    let allowed = (typed.chars().count() / 3).clamp(1, 3);
    let distances = names.iter().map(|name| (distance(typed, name), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= allowed).then(|| name.clone())
}

/// How many characters to insert, delete, replace or swap with their neighbour (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_recognised() {
        let names: Vec<String> = ["devbox", "web", "database"].map(str::to_owned).to_vec();
        assert_eq!(nearest("debvox", &names).as_deref(), Some("devbox"));
        assert_eq!(nearest("devbo", &names).as_deref(), Some("devbox"));
        assert_eq!(nearest("wev", &names).as_deref(), Some("web"));
        assert_eq!(nearest("databsae", &names).as_deref(), Some("database"));
        assert_eq!(nearest("mail", &names), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
