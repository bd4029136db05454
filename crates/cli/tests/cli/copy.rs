//! `cp` and `run DIR`: what arrives is what was sent, and a hostile guest gets nothing written elsewhere.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::ffi::OsStr;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use crate::support::guest::root;
use crate::support::{Fake, Ran, guest, tool, wait};
use banger_api::frame::Kind;
use tar::{EntryType, Header};

fn sh(directory: &Path, script: &str) -> String {
    let output = tool("/bin/sh", &["-ec", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Kinds, modes, times, sizes, links and contents of a tree, as find(1) and sha256sum(1) see them.
fn describe(directory: &Path) -> String {
    let list =
        "find . -mindepth 1 -printf '%y %m %Ts %s %l %p\\n' | sed 's/^d \\([0-9]* [0-9]*\\) [0-9]*/d \\1/' | sort -k5";
    sh(directory, &format!("{list}; find . -type f -exec sha256sum {{}} + | sort -k2"))
}

/// A tree with all that is hard to copy.
fn make_tree(at: &Path) {
    fs::create_dir_all(at.join("deep").join("d".repeat(120)).join("e".repeat(200))).unwrap();
    fs::write(at.join("deep").join("d".repeat(120)).join("e".repeat(200)).join("leaf"), "leaf").unwrap();
    fs::write(at.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at.join("secret"), "s").unwrap();
    fs::set_permissions(at.join("secret"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::write(at.join("empty"), "").unwrap();
    fs::write(at.join(OsStr::from_bytes(b"odd \xff\n'name")), "odd").unwrap();
    fs::write(at.join(OsStr::from_bytes(&[b"\xfe".as_slice(), &[b'n'; 180]].concat())), "long and odd").unwrap();
    symlink("run.sh", at.join("link")).unwrap();
    symlink("/nowhere/".repeat(30), at.join("dangling")).unwrap();
    fs::create_dir(at.join("locked")).unwrap();
    fs::write(at.join("locked/inside"), vec![7; 100_000]).unwrap();
    fs::set_permissions(at.join("locked"), fs::Permissions::from_mode(0o555)).unwrap();
    let mut sparse = fs::File::create(at.join("sparse")).unwrap();
    for position in 0..40u64 {
        sparse.seek(SeekFrom::Start(position * (1 << 20))).unwrap();
        sparse.write_all(b"data").unwrap();
    }
    sparse.set_len(64 << 20).unwrap();
    fs::File::create(at.join("hole")).unwrap().set_len(10 << 20).unwrap();
    sh(at, "find . -depth -exec touch -h -d @1600000000 {} +");
}

#[test]
fn a_tree_arrives_in_the_guest_as_it_was() {
    let fake = guest::start();
    let here = tempfile::tempdir().unwrap();
    make_tree(&here.path().join("tree"));
    let ran = fake.run(&["cp", "-r", here.path().join("tree").to_str().unwrap(), "devbox:/data"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    fake.log.wait("put /data tree");
    let arrived = root(&fake).join("data/tree");
    assert_eq!(describe(&arrived), describe(&here.path().join("tree")));
    assert!(fs::metadata(arrived.join("sparse")).unwrap().blocks() * 512 < 1 << 20, "holes were filled");
}

#[test]
fn a_tree_comes_out_of_the_guest_as_it_was() {
    let fake = guest::start();
    let here = tempfile::tempdir().unwrap();
    let there = root(&fake).join("data/tree");
    fs::create_dir_all(&there).unwrap();
    make_tree(&there);
    let copy = |to: &str| {
        let ran = fake.run(&["cp", "devbox:/data/tree", here.path().join(to).to_str().unwrap()]);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    };
    copy("new");
    assert_eq!(describe(&here.path().join("new")), describe(&there));
    assert!(fs::metadata(here.path().join("new/sparse")).unwrap().blocks() * 512 < 4 << 20, "holes were filled");
    fs::create_dir(here.path().join("existing")).unwrap();
    copy("existing/");
    assert_eq!(describe(&here.path().join("existing/tree")), describe(&there));
    // Again: files are replaced.
    copy("existing");
    let contents = fake.run(&["cp", "devbox:/data/tree/.", here.path().join("existing").to_str().unwrap()]);
    assert_eq!(contents.code, Some(0), "{contents:?}");
    assert!(here.path().join("existing/run.sh").exists());
    // One file: to a new name, over an old one, into a directory.
    let file = |to: &str| fake.run(&["cp", "devbox:/data/tree/run.sh", here.path().join(to).to_str().unwrap()]);
    assert_eq!(file("script").code, Some(0));
    assert_eq!(file("script").code, Some(0));
    assert_eq!(fs::read_to_string(here.path().join("script")).unwrap(), "#!/bin/sh\n");
    assert_eq!(file("absent/").code, Some(1));
    assert_eq!(file("absent/script").code, Some(1));
    assert!(!here.path().join("absent").exists());
    let ran = file("new/run.sh/");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.ends_with("new/run.sh has to be one\n"), "{ran:?}");
}

#[test]
fn tar_streams_come_and_go() {
    let fake = guest::start();
    let here = tempfile::tempdir().unwrap();
    make_tree(&here.path().join("tree"));
    sh(here.path(), "tar -cf tree.tar tree");
    let packed = fs::File::open(here.path().join("tree.tar")).unwrap();
    let child = fake.banger(&["cp", "-", "devbox:/data"]).stdin(packed).spawn().unwrap();
    assert_eq!(wait(child).code, Some(0));
    assert_eq!(describe(&root(&fake).join("data/tree")), describe(&here.path().join("tree")));
    let packed = fs::File::create(here.path().join("out.tar")).unwrap();
    let child = fake.banger(&["cp", "devbox:/data/tree", "-"]).stdin(Stdio::null()).stdout(packed).spawn().unwrap();
    assert_eq!(wait(child).code, Some(0));
    sh(here.path(), "mkdir out && tar -xpf out.tar -C out");
    assert_eq!(describe(&here.path().join("out/tree")), describe(&here.path().join("tree")));
    let mut broken =
        fake.banger(&["cp", "-", "devbox:/data"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    broken.stdin.take().unwrap().write_all(&[b'x'; 2000]).unwrap();
    let ran = wait(broken);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("error: cannot read a tar stream from standard input: "), "{ran:?}");
    fake.log.wait("put broken off");
}

#[test]
fn what_cannot_be_read_here_stops_the_copy_there() {
    let fake = guest::start();
    let ran = fake.run(&["cp", "/no/such/file", "devbox:/data"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (Some(1), "error: cannot read /no/such/file: No such file or directory\n")
    );
    let here = tempfile::tempdir().unwrap();
    sh(here.path(), "mkdir tree; mkfifo tree/pipe; echo 1 >tree/file");
    let ran = fake.run(&["cp", here.path().join("tree").to_str().unwrap(), "devbox:/data"]);
    assert_eq!(ran.code, Some(0));
    let note = "what is neither a file, a directory nor a link was left out: 1, the first is ";
    assert!(ran.stderr.starts_with(note) && ran.stderr.ends_with("tree/pipe\n"), "{ran:?}");
}

#[test]
fn the_guests_refusal_is_told_even_half_way() {
    let fake = Fake::start(|request| {
        let mut frames = request.upgrade();
        frames.send(Kind::Message, r#"{"answer":"done"}"#);
        frames.next();
        frames.send(Kind::Failed, r#"{"code":"failed","message":"cannot write /data/big: no space left"}"#);
        // The guest does not read on, nor does it hang up.
        std::thread::sleep(std::time::Duration::from_secs(20));
    });
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("big"), vec![1; 8 << 20]).unwrap();
    let big = here.path().join("big");
    let child = fake.banger(&["cp", big.to_str().unwrap(), "devbox:/data/"]).stderr(Stdio::piped()).spawn().unwrap();
    let ran = wait(child);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "error: cannot write /data/big: no space left\n"));
}

/// A tar entry with any name, target and type.
fn entry(kind: EntryType, name: &str, target: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o6755);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn directory(name: &str) -> Vec<u8> {
    entry(EntryType::Directory, name, "", b"")
}

fn file(name: &str) -> Vec<u8> {
    entry(EntryType::Regular, name, "", b"evil")
}

/// Has a guest send this stream for `devbox:/tree`, into `into/tree`.
fn receive(into: &Path, stream: &[u8]) -> Ran {
    give(stream.to_vec()).run(&["cp", "devbox:/tree", into.to_str().unwrap()])
}

/// A guest that sends this stream, whatever it is asked for.
fn give(stream: Vec<u8>) -> Fake {
    Fake::start(move |request| {
        let mut frames = request.upgrade();
        frames.send(Kind::Message, r#"{"answer":"done"}"#);
        for piece in stream.chunks(100_000) {
            frames.send(Kind::Data, piece);
        }
        frames.send(Kind::Data, "");
    })
}

#[test]
fn a_hostile_stream_writes_nothing_elsewhere() {
    for (what, stream) in [
        ("parent", [directory("tree/"), file("tree/../escaped")].concat()),
        ("absolute", [directory("tree/"), file("/tmp/banger-test-escaped")].concat()),
        ("beside", [directory("tree/"), file("escaped")].concat()),
        ("link", [directory("tree/"), entry(EntryType::Symlink, "tree/l", "..", b""), file("tree/l/escaped")].concat()),
        ("link over", [entry(EntryType::Symlink, "tree", "..", b""), file("tree/escaped")].concat()),
        (
            "hard link",
            [directory("tree/"), entry(EntryType::Link, "tree/h", "tree/../outside", b""), file("tree/h")].concat(),
        ),
        (
            "hard link by link",
            [
                directory("tree/"),
                entry(EntryType::Symlink, "tree/l", "..", b""),
                entry(EntryType::Link, "tree/h", "tree/l/outside", b""),
            ]
            .concat(),
        ),
        ("dots only", [directory("tree/"), file("..")].concat()),
        ("nothing", Vec::new()),
        ("garbage", vec![b'x'; 4096]),
        ("cut off", directory("tree/")[..300].to_vec()),
        ("short", entry(EntryType::Regular, "tree", "", b"evil")[..514].to_vec()),
    ] {
        let outer = tempfile::tempdir().unwrap();
        let into = outer.path().join("into");
        fs::create_dir(&into).unwrap();
        fs::write(into.join("outside"), "unchanged").unwrap();
        let ran = receive(&into, &stream);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{what}: {ran:?}");
        assert!(ran.stderr.starts_with("error: "), "{what}: {ran:?}");
        assert_eq!(fs::read_to_string(into.join("outside")).unwrap(), "unchanged", "{what}");
        let found = sh(outer.path(), "find . -name escaped; find . -type f ! -name outside; find . -links +1 -type f");
        assert_eq!(found, "", "{what}");
        assert!(!Path::new("/tmp/banger-test-escaped").exists(), "{what}");
    }
}

#[test]
fn a_link_that_was_here_before_is_not_written_through() {
    let outer = tempfile::tempdir().unwrap();
    sh(
        outer.path(),
        "mkdir into into/tree elsewhere; echo kept >kept; ln -s ../../elsewhere into/tree/d; ln -s ../../kept into/tree/f",
    );
    let ran = receive(&outer.path().join("into"), &[directory("tree/"), file("tree/d/x")].concat());
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("into/tree/d is in the way: it is a symbolic link\n"), "{ran:?}");
    let ran = receive(&outer.path().join("into"), &file("tree/f"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(fs::read_to_string(outer.path().join("kept")).unwrap(), "kept\n");
    assert_eq!(fs::read_to_string(outer.path().join("into/tree/f")).unwrap(), "evil");
}

#[test]
fn no_set_user_id_program_and_no_device_comes_out() {
    let outer = tempfile::tempdir().unwrap();
    let stream = [directory("tree/"), file("tree/su"), entry(EntryType::Char, "tree/dev", "", b"")].concat();
    let ran = receive(outer.path(), &stream);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.ends_with("left out: 1, the first is tree/dev\n"), "{ran:?}");
    assert_eq!(fs::metadata(outer.path().join("tree/su")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(outer.path().join("tree")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_device_as_destination_is_left_alone() {
    let outer = tempfile::tempdir().unwrap();
    sh(outer.path(), "mkfifo tree");
    let ran = receive(outer.path(), &file("tree"));
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("is in the way: it is a device, pipe or socket\n"), "{ran:?}");
}

#[test]
fn what_is_in_the_guests_root_comes_without_a_name() {
    let outer = tempfile::tempdir().unwrap();
    let stream = [directory("./"), directory("./etc/"), file("./etc/x"), file("./y")].concat();
    let fake = give(stream);
    let ran = fake.run(&["cp", "devbox:/", outer.path().join("new").to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(sh(outer.path(), "find . -type f | sort"), "./new/etc/x\n./new/y\n");
}

#[test]
fn hard_links_within_the_tree_are_made() {
    let outer = tempfile::tempdir().unwrap();
    let stream = [directory("tree/"), file("tree/a"), entry(EntryType::Link, "tree/b", "tree/a", b"")].concat();
    assert_eq!(receive(outer.path(), &stream).code, Some(0));
    assert_eq!(fs::metadata(outer.path().join("tree/b")).unwrap().nlink(), 2);
}

#[test]
fn run_brings_a_checkouts_files_and_nothing_else() {
    let fake = guest::start();
    let here = tempfile::tempdir().unwrap();
    let project = here.path().join("my project");
    fs::create_dir(&project).unwrap();
    let git = "git init -q . && git config user.email a@b && git config user.name n";
    sh(
        &project,
        &format!(
            "HOME=/ && {git} && mkdir -p src/deep && echo 1 >src/deep/tracked && echo 2 >gone && echo '*.o' >.gitignore"
        ),
    );
    sh(&project, "ln -s src link && printf x >exec && chmod 755 exec && : >\"$(printf 'odd\\377\\n')\" && git add -A");
    sh(&project, "rm gone && echo 3 >untracked && echo 4 >ignored.o && mkdir new && echo 5 >new/file && mkdir empty");
    sh(
        &project,
        "git init -q sub && cd sub && git -c user.email=a@b -c user.name=n commit -q --allow-empty -m x && cd .. && git add sub 2>/dev/null",
    );
    let ran = fake.run(&["run", "-q", "--name", "devbox", project.to_str().unwrap(), "--", "pwd"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    fake.log.wait("put . my project");
    let sent = fake.log.wait("create ");
    assert!(sent.contains(r#""workdir":"/root/my project""#), "{sent}");
    let arrived = root(&fake);
    let list = sh(&arrived, "find . -mindepth 1 -printf '%y %m %P\\n' | LC_ALL=C sort -k3");
    let expected = sh(
        &arrived,
        "printf 'd 755 my project\\nf 644 my project/.gitignore\\nf 755 my project/exec\\n\
        l 777 my project/link\\nd 755 my project/new\\nf 644 my project/new/file\\nf 644 my project/odd\\377\\n\
        d 755 my project/src\\nd 755 my project/src/deep\\nf 644 my project/src/deep/tracked\\nd 755 my project/sub\\n\
        f 644 my project/untracked\\n'",
    );
    assert_eq!(list, expected);
}

#[test]
fn run_wants_a_checkout() {
    let fake = guest::start();
    let here = tempfile::tempdir().unwrap();
    let ran = fake.run(&["run", here.path().to_str().unwrap(), "--", "true"]);
    let help = "help: run `git init` there, or create a VM without it and copy with `banger cp`\n";
    let path = here.path().canonicalize().unwrap();
    assert_eq!(ran.stderr, format!("error: {} is not in a git checkout\n{help}", path.display()));
    assert_eq!(ran.code, Some(125));
    let ran = fake.run(&["run", "ls"]);
    let help = "help: if it is meant as a command, write it after '--': banger run -- ls\n";
    assert_eq!(ran.stderr, format!("error: cannot use ls as a project: No such file or directory\n{help}"));
    assert_eq!(fake.log.lines(), Vec::<String>::new());
}

#[test]
fn every_number_of_a_header_is_one() {
    // GNU tar takes a blank for a zero; the agent's library does not.
    let fake = Fake::start(|request| {
        let mut frames = request.upgrade();
        frames.send(Kind::Message, r#"{"answer":"done"}"#);
        let mut stream = Vec::new();
        while let Some(frame) = frames.next() {
            if frame.payload.is_empty() {
                break;
            }
            stream.extend_from_slice(&frame.payload);
        }
        for entry in tar::Archive::new(stream.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            let numbers = [header.uid(), header.gid(), header.mtime(), header.mode().map(u64::from), header.size()];
            frames.log.add(format!("{} {numbers:?}", entry.path().unwrap().display()));
        }
        frames.send(Kind::Data, "");
    });
    let here = tempfile::tempdir().unwrap();
    sh(
        here.path(),
        "mkdir t && echo 1 >t/file && ln -s x t/link && truncate -s 1M t/hole && touch -h -d @5 t/* t && chmod 700 t/file",
    );
    assert_eq!(fake.run(&["cp", here.path().join("t").to_str().unwrap(), "devbox:/x"]).code, Some(0));
    fake.log.wait("t/file [Ok(0), Ok(0), Ok(5), Ok(448), Ok(2)]");
    fake.log.wait("t/link [Ok(0), Ok(0), Ok(5), Ok(511), Ok(0)]");
    fake.log.wait("t/hole [Ok(0), Ok(0), Ok(5), ");
}
