//! `cp` with patterns: what matches arrives, and nothing else.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::support::guest::root;
use crate::support::{Fake, guest, tool, wait};
use banger_api::frame::Kind;
use tar::{EntryType, Header};

fn sh(directory: &Path, script: &str) -> String {
    let output = tool("/bin/sh", &["-ec", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An entry as the library would not write it: with any name, and a link's target.
fn entry(kind: EntryType, name: &str, link: &str) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn file(name: &str) -> Vec<u8> {
    entry(EntryType::Regular, name, "")
}

#[test]
fn a_pattern_brings_what_matches_into_a_directory() {
    let fake = guest::start();
    let here = tempfile::tempdir().unwrap();
    fs::create_dir_all(root(&fake).join("log/dir.log")).unwrap();
    for name in ["a.log", "b.log", "c.txt", "dir.log/inside"] {
        fs::write(root(&fake).join("log").join(name), name).unwrap();
    }
    let copy = |from: &str, to: &str| fake.run(&["cp", from, here.path().join(to).to_str().unwrap()]);
    fs::create_dir(here.path().join("into")).unwrap();
    let ran = copy("devbox:/log/*.log", "into");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(sh(&here.path().join("into"), "find . -type f | sort"), "./a.log\n./b.log\n./dir.log/inside\n");
    // One that matches may get another name, several may not.
    assert_eq!(copy("devbox:/log/a*", "one").code, Some(0));
    assert_eq!(fs::read_to_string(here.path().join("one")).unwrap(), "a.log");
    let ran = copy("devbox:/log/*.log", "none");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("error: 3 files match, and "), "{ran:?}");
    assert!(ran.stderr.ends_with("help: name an existing directory, or '-' for one tar stream\n"), "{ran:?}");
    assert!(!here.path().join("none").exists());
    let packed = fs::File::create(here.path().join("out.tar")).unwrap();
    let child = fake.banger(&["cp", "devbox:/log/?.*", "-"]).stdin(Stdio::null()).stdout(packed).spawn().unwrap();
    assert_eq!(wait(child).code, Some(0));
    assert_eq!(sh(here.path(), "tar -tf out.tar"), "a.log\nb.log\nc.txt\n");
}

#[test]
fn a_guest_sends_no_file_that_no_pattern_asked_for() {
    for (stream, taken) in [
        ([file("a.log"), file(".profile")].concat(), true),
        ([file("a.log"), file("../b.log")].concat(), true),
        ([file("./")].concat(), false),
        ([file("a.log"), entry(EntryType::Link, "b.log", "outside")].concat(), true),
    ] {
        let fake = Fake::start(move |request| {
            let mut frames = request.upgrade();
            frames.send(Kind::Message, r#"{"answer":"files","count":2}"#);
            frames.send(Kind::Data, &stream);
            frames.send(Kind::Data, [0; 1024]);
            frames.send(Kind::Data, "");
        });
        let into = tempfile::tempdir().unwrap();
        fs::write(into.path().join("outside"), "unchanged").unwrap();
        let ran = fake.run(&["cp", "devbox:/var/*.log", into.path().to_str().unwrap()]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("from the guest: "), "{ran:?}");
        let expected = if taken { "./a.log\n./outside\n" } else { "./outside\n" };
        assert_eq!(sh(into.path(), "find . -mindepth 1 -links 1 -type f -o -name a.log | sort"), expected);
    }
}
