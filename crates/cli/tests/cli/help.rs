//! Every help text, as a user reads it in 80 columns: what changes there is seen in review.
//!
//! `BLESS=1 cargo test -p banger --test cli help` rewrites the snapshot.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::path::Path;

use crate::support::{Ran, banger};

#[test]
fn help_texts_are_as_recorded() {
    let mut text = String::new();
    write_all(&banger_cli::command(), &[], &mut text);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help.snapshot");
    #[expect(clippy::disallowed_methods, reason = "this is how a test is told to bless")]
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    let changed = text.lines().zip(recorded.lines()).find(|(now, then)| now != then);
    assert!(text == recorded, "help texts have changed, first here: {changed:#?}\nbless them with BLESS=1");
}

fn write_all(command: &clap::Command, words: &[&str], text: &mut String) {
    let dir = tempfile::tempdir().unwrap();
    let args = [words, &["--help"]].concat();
    let ran = Ran::new(banger(dir.path(), &args).env("COLUMNS", "80").output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
    *text += &format!("$ banger {}\n{}\n", args.join(" "), ran.stdout);
    // The verbs below `vm` are those without it.
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && words != ["vm"]) {
        write_all(verb, &[words, &[verb.get_name()]].concat(), text);
    }
}
