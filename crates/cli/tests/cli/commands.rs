//! What a user sees: exit codes, streams, the lines of each error, JSON.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Fake, Ran, VERSION, banger, guest, vm, wait};
use banger_api::error::{ApiError, ErrorCode};
use banger_api::vm::Vm;

fn check(ran: &Ran, code: i32, stdout: &str, stderr: &str) {
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(code), stdout, stderr));
}

#[test]
fn create_tells_its_stages_and_prints_the_name() {
    let fake = guest::start();
    let ran = fake.run(&["create", "devbox", "--cpus", "2", "--memory", "1.5G"]);
    check(&ran, 0, "devbox\n", "disk.clone: 3.0 ms\nagent.ready: 200 ms\ndevbox is running in 210 ms\n");
    let sent = fake.log.wait("create ");
    assert!(sent.contains(r#""cpus":2,"memory":1610612736,"disk":null"#), "{sent}");
    check(&fake.run(&["create", "-q"]), 0, "swift-otter\n", "");
    check(&fake.run(&["vm", "create", "-q", "-o", "name"]), 0, "swift-otter\n", "");
    let ran = fake.run(&["create", "-q", "--timings", "devbox"]);
    let table = "\
STAGE               TIME    SHARE
disk.clone        3.0 ms    1.4 %
agent.ready       200 ms   95.2 %
(between)         7.0 ms    3.3 %
total             210 ms  100.0 %
";
    check(&ran, 0, "devbox\n", table);
}

#[test]
fn lists_are_tables_names_or_the_apis_types() {
    let fake = guest::start();
    let ran = fake.run(&["ls"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "NAME      STATE    ADDRESS  IMAGE   CPUS  MEMORY  DISK   CREATED");
    assert!(lines[1].starts_with("devbox    running  -        debian  2     1 GiB   8 GiB  "), "{ran:?}");
    check(&fake.run(&["ps", "-q"]), 0, "devbox\ndatabase\n", "");
    check(&fake.run(&["vm", "ls", "-o", "name"]), 0, "devbox\ndatabase\n", "");
    let json = fake.run(&["ls", "-o", "json"]).stdout;
    assert_eq!(serde_json::from_str::<Vec<Vm>>(&json).unwrap(), [vm("devbox"), vm("database")]);
    let shown = fake.run(&["show", "devbox", "-o", "json"]).stdout;
    let expected = r#"{
  "id": "4f2a9c",
  "name": "devbox",
  "state": "running",
  "generation": 3,
  "image": "debian",
  "cpus": 2,
  "memory": 1073741824,
  "disk": 8589934592,
  "vmm": "qemu",
  "accelerator": "kvm",
  "pid": 4711,
  "boot_id": "0d9b",
  "ephemeral": false,
  "net": "none",
  "restart": "no",
  "created": 1700000000,
  "host_key": "ssh-ed25519 AAAA"
}
"#;
    assert_eq!(shown, expected);
}

#[test]
fn an_empty_list_is_a_head_and_a_hint() {
    let fake = Fake::start(|request| request.json(&Vec::<Vm>::new()));
    let hint = "no VMs yet: `banger run` makes one and opens a shell in it\n";
    check(&fake.run(&["ls"]), 0, "NAME  STATE  ADDRESS  IMAGE  CPUS  MEMORY  DISK  CREATED\n", hint);
    check(&fake.run(&["ls", "-o", "json"]), 0, "[]\n", "");
}

#[test]
fn commands_are_told_the_callers_language_time_and_user() {
    let fake = guest::start();
    for args in
        [&["exec", "devbox", "true"][..], &["exec", "-d", "devbox", "true"], &["run", "-u", "dev", "--", "true"]]
    {
        let mut command = fake.banger(args);
        command.env("LANG", "de_DE.UTF-8").env("LC_TIME", "C").env("TZ", "XYZ-3").stdin(std::process::Stdio::null());
        assert!(command.output().unwrap().status.success());
    }
    let sent: Vec<String> = fake.log.lines().into_iter().filter(|line| line.starts_with("exec ")).collect();
    assert_eq!(sent.len(), 3);
    for sent in &sent {
        let locale = r#""locale":{"LANG":"de_DE.UTF-8","LC_TIME":"C"},"time_zone":{"name":"XYZ-3","rule":"XYZ-3"}"#;
        assert!(sent.contains(locale), "{sent}");
    }
    assert!(sent[2].contains(r#""user":"dev""#), "{}", sent[2]);
}

#[test]
fn the_exit_code_is_the_commands() {
    let fake = guest::start();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)] {
        assert_eq!(fake.run(&["exec", "devbox", "--", "sh", "-c", script]).code, Some(code), "{script}");
    }
    let ran = fake.run(&["exec", "devbox", "no-such-program"]);
    check(&ran, 127, "", "error: cannot run 'no-such-program'\nhelp: look at what the guest has with `banger shell`\n");
    assert_eq!(fake.run(&["exec", "devbox", "/etc/passwd"]).code, Some(126));
    let ran = fake.run(&["exec", "devbux", "true"]);
    check(&ran, 125, "", "error: there is no VM devbux\nhelp: did you mean devbox? `banger ls` lists all VMs\n");
    check(&fake.run(&["show", "mail"]), 1, "", "error: there is no VM mail\nhelp: `banger ls` lists all VMs\n");
    let ran = fake.run(&["create", "--image", "debain"]);
    check(
        &ran,
        1,
        "",
        "error: there is no image debain\nhelp: did you mean debian? `banger image ls` lists all images\n",
    );
    assert_eq!(fake.run(&["run", "--image", "nixos", "--", "true"]).code, Some(125));
}

#[test]
fn what_makes_no_sense_connects_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (args, stderr) in [
        (
            &["create", "Dev_Box"][..],
            "error: invalid value 'Dev_Box' for '[NAME]': it contains 'D'\nhelp: try 'dev-box'\n",
        ),
        (
            &["run", "--memory", "4GB"],
            "error: invalid value '4GB' for '--memory <SIZE>': its unit is ambiguous\nhelp: write 4G or 4GiB\n",
        ),
        (&["creat"], "error: unrecognized subcommand 'creat'\nhelp: did you mean create?\n"),
        (&["ls", "--al"], "error: unexpected argument '--al' found\nhelp: usage: banger ls [OPTIONS]\n"),
        (
            &["cp", "a", "b"],
            "error: neither SRC nor DST is in a VM\n\
             help: one side is NAME:PATH, the other a path here, or '-' for a tar stream\n",
        ),
        (
            &["run", "--rm", "-d"],
            "error: --rm with --detach needs a command\nhelp: write it at the end: banger run --rm -d -- CMD\n",
        ),
    ] {
        check(&Ran::new(banger(dir.path(), args).output().unwrap()), 2, "", stderr);
    }
    for args in [
        &["exec", "devbox"][..],
        &["exec", "X", "true"],
        &["rm"],
        &["create", "--cpus", "0"],
        &["create", "-e", "=x"],
        &["logs", "devbox", "--list", "--console"],
        &["image", "build", "-x"],
        &["run", "-w", "relative", "--", "true"],
        &["-o", "yaml", "ls"],
        &[],
    ] {
        let ran = Ran::new(banger(dir.path(), args).output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?} {ran:?}");
        assert!(args.is_empty() || ran.stderr.starts_with("error: ") && ran.stderr.contains("\nhelp: "), "{ran:?}");
    }
}

#[test]
fn without_a_daemon_each_verb_says_so_in_its_own_way() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bangerd.sock");
    let run = |args: &[&str]| Ran::new(banger(dir.path(), args).output().unwrap());
    let socket = socket.display();
    check(&run(&["daemon", "status"]), 3, "", &format!("no daemon listens on {socket}\n"));
    check(&run(&["daemon", "stop"]), 0, "", "no daemon runs\n");
    let version = "client:  0.1.0 (API 1, agent protocol 4)\ndaemon:  not running\n";
    check(&run(&["version"]), 0, &format!("{version}socket:  {socket}\n"), "");
    let elsewhere = run(&["ls", "--host", "/nowhere/bangerd.sock"]);
    let error = "error: no daemon listens on /nowhere/bangerd.sock\nhelp: start one with `banger daemon start`\n";
    check(&elsewhere, 1, "", error);
    assert_eq!(run(&["exec", "--host", "/nowhere/bangerd.sock", "devbox", "true"]).code, Some(125));
}

#[test]
fn a_daemon_of_another_version_is_named_and_can_be_asked() {
    let fake = Fake::start(|request| {
        let body = r#"{"version":"9.0.0","api":7,"protocol":5}"#;
        let head = "HTTP/1.1 200 OK\r\nbanger-api: 7\r\nbanger-version: 9.0.0\r\n";
        request.raw(&format!("{head}content-length: {}\r\n\r\n{body}", body.len()));
    });
    let error = format!(
        "error: the daemon at {} is banger 9.0.0 with API 7; this is banger 0.1.0 with API 1\n\
         help: `banger daemon stop`, then `banger daemon start` brings up the daemon beside this banger; VMs run on\n",
        fake.socket().display()
    );
    check(&fake.run(&["ls"]), 1, "", &error);
    assert!(fake.run(&["version"]).stdout.contains("daemon:  9.0.0 (API 7, agent protocol 5)\n"));
}

#[test]
fn something_else_on_the_socket_is_not_taken_for_a_daemon() {
    let fake = Fake::start(|request| request.raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]"));
    let error = format!("error: what answers on {} is not bangerd\n", fake.socket().display());
    check(&fake.run(&["ls"]), 1, "", &(error + "help: see what --host or BANGER_HOST names\n"));
    let fake = Fake::start(|request| request.raw(&format!("HTTP/1.1 200 OK\r\n{VERSION}content-length: 9\r\n\r\n[{{")));
    let ran = fake.run(&["ls"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("error: the daemon hung up during GET /v1/vms"), "{ran:?}");
    let fake =
        Fake::start(|request| request.raw(&format!("HTTP/1.1 200 OK\r\n{VERSION}content-length: 2\r\n\r\n{{}}")));
    let ran = fake.run(&["ls"]);
    assert!(ran.stderr.starts_with("error: the daemon's answer to GET /v1/vms makes no sense: "), "{ran:?}");
    assert!(ran.stderr.ends_with("\nhelp: compare the two versions that `banger version` shows\n"), "{ran:?}");
}

#[test]
fn all_that_a_failure_says_is_shown_and_cannot_command_the_terminal() {
    let fake = Fake::start(|request| {
        let mut events = request.events();
        events.stage("disk.clone", 1000);
        events.error(&ApiError {
            code: ErrorCode::NoSpace,
            message: "cannot clone\nthe disk \x1b[2J: no space left".into(),
            help: Some("free some".into()),
            also: vec!["cannot remove a file".into()],
            operation: Some("op-5".into()),
        });
    });
    let stderr = "\
disk.clone: 1.0 ms
error: cannot clone the disk \\u{1b}[2J: no space left
help: free some
also: cannot remove a file
also: operation op-5 in the daemon's log
";
    check(&fake.run(&["create", "devbox"]), 1, "", stderr);
}

#[test]
fn of_several_vms_each_is_told() {
    let fake = guest::start();
    let ran = fake.run(&["rm", "-f", "nix", "devbox", "devbox"]);
    let told = "\
error: there is no VM nix
help: `banger ls` lists all VMs
devbox is removed in 5.0 ms
";
    check(&ran, 1, "", told);
    assert!(fake.log.lines().contains(&"DELETE /v1/vms/4f2a9c?force=true".to_owned()));
    check(&fake.run(&["-q", "stop", "devbox", "-o", "name"]), 0, "devbox\n", "");
    let json = fake.run(&["-q", "start", "devbox", "-o", "json"]).stdout;
    assert_eq!(serde_json::from_str::<Vec<Vm>>(&json).unwrap(), [vm("devbox")]);
}

#[test]
fn streams_are_kept_apart_and_whole() {
    let fake = guest::start();
    let ran = fake.run(&["exec", "devbox", "-e", "A=b", "--", "sh", "-c", "echo $A; echo err >&2"]);
    check(&ran, 0, "b\n", "err\n");
    // More than any buffer on the way holds.
    let script = "head -c 8000000 /dev/zero | tr '\\0' o; head -c 8000000 /dev/zero | tr '\\0' e >&2";
    let ran = fake.run(&["exec", "devbox", "--", "sh", "-c", script]);
    assert_eq!((ran.stdout.len(), ran.stderr.len()), (8_000_000, 8_000_000));
    assert!(ran.stdout.bytes().all(|byte| byte == b'o') && ran.stderr.bytes().all(|byte| byte == b'e'));
}

#[test]
fn input_reaches_the_command() {
    let fake = guest::start();
    let mut child = fake
        .banger(&["exec", "devbox", "--", "sha256sum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..64 {
        stdin.write_all(&vec![b'x'; 1 << 20]).unwrap();
    }
    drop(stdin);
    let ran = wait(child);
    assert_eq!(ran.stdout, "e20a69eca39368572e90b9135738a613838f954987a0b44b6220889c171cbb76  -\n");
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let fake = guest::start();
    let mut child = fake
        .banger(&["exec", "devbox", "--", "yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut two = [0; 2];
    let mut stdout = child.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut two).unwrap();
    let began = Instant::now();
    drop(stdout);
    let ran = wait(child);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""));
    fake.log.wait("hung up on the command");
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[test]
fn an_open_input_does_not_hold_up_the_end() {
    let fake = guest::start();
    let mut child = fake.banger(&["exec", "devbox", "true"]).stdin(Stdio::piped()).spawn().unwrap();
    let open = child.stdin.take();
    assert_eq!(wait(child).code, Some(0));
    drop(open);
}

#[test]
fn the_output_of_detached_commands_is_shown() {
    let fake = guest::start();
    check(&fake.run(&["exec", "-d", "devbox", "--", "sleep", "9"]), 0, "7c1d\n", "");
    check(&fake.run(&["logs", "devbox"]), 0, "one\n", "two\n");
    check(&fake.run(&["logs", "-f", "devbox"]), 0, "one\n", "two\n");
    assert!(fake.log.lines().contains(&"POST /v1/vms/devbox/commands/main/output?follow=true".to_owned()));
    check(&fake.run(&["logs", "--console", "devbox"]), 0, "boot\n", "");
}

#[test]
fn run_creates_runs_and_removes() {
    let fake = guest::start();
    let ran = fake.run(&["run", "-q", "--rm", "--name", "devbox", "--", "sh", "-c", "echo out; exit 5"]);
    check(&ran, 5, "out\n", "");
    let log = fake.log.lines();
    assert!(
        log.iter().any(|line| line.starts_with("create ") && line.contains(r#""lifetime":"connection""#)),
        "{log:#?}"
    );
    assert!(log.contains(&"DELETE /v1/vms/4f2a9c?force=true".to_owned()), "{log:#?}");
    fake.log.wait("hung up on the lease");
    let ran = fake.run(&["run", "-d", "--rm", "--name", "devbox", "-e", "A=1", "--", "sleep", "5"]);
    check(&ran, 0, "devbox\n", "disk.clone: 3.0 ms\nagent.ready: 200 ms\ndevbox is running in 210 ms\n");
    let log = fake.log.lines();
    assert!(log.iter().any(|line| line.contains(r#""lifetime":"command""#) && line.contains(r#""A":"1""#)), "{log:#?}");
    assert!(log.iter().any(|line| line.contains(r#""detached":true,"main":true"#)), "{log:#?}");
}

#[test]
fn run_without_a_command_opens_a_shell() {
    let fake = guest::start();
    let mut child = fake.banger(&["run", "-q"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"echo from the shell; exit 4\n").unwrap();
    let ran = wait(child);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(4), "from the shell\n"));
    fake.log.wait("GET /v1/vms/swift-otter/wait?level=system");
}
