//! The pages: one for each verb, and nothing in them that man(1) or mandoc(1) complains of.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::collections::BTreeSet;
use std::process::Command;

use banger_manual::{Page, pages};

#[test]
fn every_verb_has_a_page_and_no_page_is_without_a_verb() {
    let mut wanted: BTreeSet<String> = ["banger.1", "bangerd.8", "banger-config.5"].map(str::to_owned).into();
    for verb in banger_cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        wanted.insert(format!("banger-{}.1", verb.get_name()));
        for under in verb.get_subcommands().filter(|_| verb.get_name() != "vm") {
            wanted.insert(format!("banger-{}-{}.1", verb.get_name(), under.get_name()));
        }
    }
    assert!(wanted.contains("banger-run.1") && wanted.contains("banger-image-build.1"));
    let made: BTreeSet<String> = pages().into_iter().map(|page| page.file).collect();
    assert_eq!(made, wanted);
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
