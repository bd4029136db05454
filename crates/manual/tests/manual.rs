//! The pages: one for each verb, and nothing in them that man(1) or mandoc(1) complains of; the same for the book's.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::collections::BTreeSet;
use std::process::Command;

use banger_manual::{Page, book, pages};

#[test]
fn every_verb_has_a_page_and_no_page_is_without_a_verb() {
    let wanted: BTreeSet<String> = verbs().into_iter().map(|verb| format!("{verb}.1")).collect();
    let others = ["banger.1", "bangerd.8", "banger-config.5"].map(str::to_owned);
    assert!(wanted.contains("banger-run.1") && wanted.contains("banger-image-build.1"));
    let made: BTreeSet<String> = pages().into_iter().map(|page| page.file).collect();
    assert_eq!(made, wanted.into_iter().chain(others).collect());
}

#[test]
fn the_book_has_a_page_for_every_verb_and_all_pages_in_its_contents() {
    let wanted: BTreeSet<String> = verbs().into_iter().map(|verb| format!("reference/{verb}.md")).collect();
    let others = ["banger", "bangerd", "configuration", "operations"].map(|name| format!("reference/{name}.md"));
    let mut made = book::pages();
    let contents = made.pop().unwrap();
    assert_eq!(contents.file, "contents.md");
    let contents = String::from_utf8(contents.text).unwrap();
    for page in &made {
        assert!(contents.contains(&format!("]({})\n", page.file)), "{contents}");
    }
    let text = |name: &str| {
        let page = made.iter().find(|page| page.file == format!("reference/{name}.md")).unwrap();
        String::from_utf8(page.text.clone()).unwrap()
    };
    assert!(text("banger-create").contains("- `--memory <SIZE>`: Memory, as 512M or 4G\n"));
    assert!(text("banger-run").contains("- `--pull[=<patch|branch>]`: "));
    assert!(text("banger-completion").contains("one of `bash`, `zsh`, `fish`"));
    assert!(text("bangerd").contains("BANGER_LOG") && !text("bangerd").contains("--fake-vmm"));
    for key in bangerd::config::KEYS {
        assert!(text("configuration").contains(&format!("`{}.{}`", key.table, key.key)), "{}", key.key);
    }
    let made: BTreeSet<String> = made.into_iter().map(|page| page.file).collect();
    assert_eq!(made, wanted.into_iter().chain(others).collect());
}

/// Every verb, as `banger-image-build`.
fn verbs() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for verb in banger_cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        names.insert(format!("banger-{}", verb.get_name()));
        for under in verb.get_subcommands().filter(|_| verb.get_name() != "vm") {
            names.insert(format!("banger-{}-{}", verb.get_name(), under.get_name()));
        }
    }
    names
}

#[test]
fn a_verbs_page_has_its_arguments_and_the_configurations_has_its_keys() {
    let pages = pages();
    let text = |file: &str| {
        let page = pages.iter().find(|page| page.file == file).unwrap();
        String::from_utf8(page.text.clone()).unwrap().replace("\\-", "-").replace("\\fR", "").replace("\\fB", "")
    };
    assert!(text("banger-create.1").contains("--memory"));
    assert!(text("banger.1").contains("BANGER_HOST"));
    assert!(text("bangerd.8").contains("--ready-fd") && !text("bangerd.8").contains("--fake-vmm"));
    for key in bangerd::config::KEYS {
        assert!(text("banger-config.5").contains(key.key), "{}", key.key);
    }
}

#[test]
fn man_has_nothing_to_complain_of() {
    let directory = tempfile::tempdir().unwrap();
    for Page { file, text } in pages() {
        let path = directory.path().join(&file);
        std::fs::write(&path, text).unwrap();
        let words = ["--warnings=w", "-l", "-Tutf8", "-Z"].map(Into::into);
        check("man", words.into_iter().chain([path.clone()]), &file);
        check("mandoc", ["-Tlint".into(), "-Wwarning".into(), path].into_iter(), &file);
    }
}

#[expect(clippy::disallowed_methods, reason = "tests use tools that are not banger's to judge what banger did")]
fn check(program: &str, words: impl Iterator<Item = std::path::PathBuf>, page: &str) {
    let command = Command::new(program).args(words).env("LC_ALL", "C.UTF-8").output();
    let output = command.unwrap_or_else(|error| panic!("{program}: {error}: scripts/install-packages --test"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = if program == "mandoc" { said + &String::from_utf8_lossy(&output.stdout) } else { said };
    assert!(output.status.success() && said.is_empty(), "{program} on {page}: {said}");
}
