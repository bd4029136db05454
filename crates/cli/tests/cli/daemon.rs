//! Starting, finding and stopping daemons. `bangerd` is a script here, and listens through the test.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Fake, Ran, guest, tool, wait};
use banger_api::daemon::{Finding, Status, Verdict, Version};

/// A directory with the command line and a `bangerd` beside it that runs this script; `$fd` is where it reports.
fn install(directory: &Path, script: &str) {
    place(Path::new(env!("CARGO_BIN_EXE_banger")), &directory.join("banger"));
    let script = format!("#!/bin/sh\n[ \"$1\" = --ready-fd ] && fd=$2\ncd \"$BANGER_RUNTIME_DIR\"\n{script}\n");
    fs::write(directory.join("script"), script).unwrap();
    fs::set_permissions(directory.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    place(&directory.join("script"), &directory.join("bangerd"));
}

/// Copies a program by another process: a child that another test forks meanwhile would hold a descriptor of this one open
/// for writing, and the program could not be executed.
fn place(from: &Path, to: &Path) {
    assert!(
        tool("/bin/cp", &["--remove-destination", from.to_str().unwrap(), to.to_str().unwrap()])
            .status()
            .unwrap()
            .success()
    );
}

fn banger(directory: &Path, args: &[&str]) -> Command {
    let mut command = tool(directory.join("banger").to_str().unwrap(), args);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("SECRET", "1");
    command.env("BANGER_RUNTIME_DIR", directory).env("BANGER_STATE_DIR", directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(directory: &Path, args: &[&str]) -> Ran {
    wait(banger(directory, args).spawn().unwrap())
}

#[test]
fn a_daemon_is_started_where_none_runs() {
    let fake = guest::start();
    let directory = tempfile::tempdir().unwrap();
    // It takes a while until it listens: then the socket of the fake gets its place.
    let link = format!("ln -s {} bangerd.sock", fake.socket().display());
    let script = format!(
        "env >env; echo $$ $(ps -o sid= -p $$) >sid; readlink /proc/$$/fd/0 /proc/$$/fd/2 >fds; sleep 0.2; {link}; echo ready >/proc/$$/fd/$fd; eval \"exec $fd>&-\"; exec sleep 0.1"
    );
    install(directory.path(), &script);
    let ran = run(directory.path(), &["ls", "-q"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "devbox\ndatabase\n", ""));
    let env = fs::read_to_string(directory.path().join("env")).unwrap();
    assert!(env.contains("BANGER_STATE_DIR=") && !env.contains("SECRET"), "{env}");
    let session = fs::read_to_string(directory.path().join("sid")).unwrap();
    let (pid, session) = session.trim().split_once(' ').unwrap();
    assert_eq!(session, pid, "it leads no session of its own");
    let fds = fs::read_to_string(directory.path().join("fds")).unwrap();
    assert_eq!(fds, "/dev/null\n/dev/null\n");
    let ran = run(directory.path(), &["daemon", "start"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
}

#[test]
fn what_the_daemon_says_is_passed_on() {
    let directory = tempfile::tempdir().unwrap();
    install(directory.path(), "printf 'error: the disk is full\\nhelp: free some\\n' >/proc/$$/fd/$fd");
    let ran = run(directory.path(), &["ls"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (Some(1), "error: the daemon does not start: the disk is full\nhelp: free some\n")
    );
    assert_eq!(run(directory.path(), &["run", "--", "true"]).code, Some(125));
    install(directory.path(), "exit 9");
    let ran = run(directory.path(), &["ls"]);
    let log = directory.path().join("bangerd.log");
    let help = format!("help: read {}, or run `banger daemon run` to see it\n", log.display());
    assert_eq!(ran.stderr, format!("error: the daemon ended before it listened\n{help}"));
    fs::remove_file(directory.path().join("bangerd")).unwrap();
    let ran = run(directory.path(), &["ls"]);
    let absent = directory.path().join("bangerd");
    assert!(
        ran.stderr.starts_with(&format!("error: no daemon runs, and there is no {} to start\n", absent.display())),
        "{ran:?}"
    );
}

#[test]
fn another_command_lines_daemon_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    // Ours finds that another process is the daemon, which does not listen yet.
    let winner = tool("/bin/sleep", &["60"]).spawn().unwrap();
    install(directory.path(), &taken_by(winner.id()));
    let child = banger(directory.path(), &["ls", "-q"]).spawn().unwrap();
    wait_until(|| directory.path().join("tried").exists());
    std::thread::sleep(std::time::Duration::from_millis(200));
    let fake = guest::start();
    std::os::unix::fs::symlink(fake.socket(), directory.path().join("bangerd.sock")).unwrap();
    let ran = wait(child);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "devbox\ndatabase\n"), "{ran:?}");
    assert_eq!(fs::read_to_string(directory.path().join("tried")).unwrap(), "tried\n");
    end(winner);
}

#[test]
fn where_another_command_lines_daemon_ends_without_listening_a_new_one_is_started() {
    let fake = guest::start();
    let directory = tempfile::tempdir().unwrap();
    let winner = tool("/bin/sleep", &["60"]).spawn().unwrap();
    let link = format!("ln -s {} bangerd.sock; echo ready >/proc/$$/fd/$fd", fake.socket().display());
    install(directory.path(), &format!("[ -e tried ] && {{ {link}; exit; }}\n{}", taken_by(winner.id())));
    let child = banger(directory.path(), &["ls", "-q"]).spawn().unwrap();
    wait_until(|| directory.path().join("tried").exists());
    end(winner);
    let ran = wait(child);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "devbox\ndatabase\n"), "{ran:?}");
}

#[test]
fn a_lock_is_nothing_to_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    install(directory.path(), "echo 'error: no' >/proc/$$/fd/$fd");
    // A pipe: a command line that opened it to look for a lock would wait forever.
    let made = tool("/usr/bin/mkfifo", &[directory.path().join("lock").to_str().unwrap()]).status().unwrap();
    assert!(made.success());
    let ran = run(directory.path(), &["ls"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), "error: the daemon does not start: no\n"));
}

#[test]
fn a_request_is_repeated_only_if_the_daemon_that_ends_cannot_have_acted_on_it() {
    // How the old daemon ends: before it accepts, before it reads, in the middle, or after it has read everything.
    for (reads, safe, repeated) in [
        (None, false, true),
        (Some(0), false, true),
        (Some(10), false, true),
        (Some(9999), false, false),
        (Some(9999), true, true),
    ] {
        let fake = guest::start();
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("bangerd.sock");
        let link =
            format!("rm bangerd.sock; ln -s {} bangerd.sock; echo ready >/proc/$$/fd/$fd", fake.socket().display());
        install(directory.path(), &format!("echo started >>started; {link}"));
        let listener = UnixListener::bind(&socket).unwrap();
        let args: &[&str] = if safe { &["ls", "-q"] } else { &["rename", "devbox", "other"] };
        let child = banger(directory.path(), args).spawn().unwrap();
        match reads {
            None => {
                let mut fds = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut fds, None).unwrap();
            }
            Some(count) => {
                let (mut stream, _) = listener.accept().unwrap();
                let mut fds = [rustix::event::PollFd::new(&stream, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut fds, None).unwrap();
                let mut bytes = vec![0; count];
                let _count = std::io::Read::read(&mut stream, &mut bytes).unwrap();
            }
        }
        drop(listener);
        let ran = wait(child);
        assert_eq!(directory.path().join("started").exists(), repeated, "{reads:?} {safe}: {ran:?}");
        if !repeated {
            assert!(ran.stderr.starts_with("error: the daemon hung up during "), "{ran:?}");
        }
        assert!(!ran.stderr.contains("before it took"), "{ran:?}");
    }
}

/// The report of a daemon that finds another.
fn taken_by(pid: u32) -> String {
    let report = format!("error: another daemon, process {pid}, runs here\\nhelp: use it\\ntaken: {pid}\\n");
    format!("printf '{report}' >/proc/$$/fd/$fd; echo tried >>tried")
}

fn wait_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn end(mut process: std::process::Child) {
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn no_daemon_is_started_for_verbs_that_need_none_or_for_a_socket_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    install(directory.path(), "echo started >started");
    for args in
        [&["version"][..], &["daemon", "status"], &["daemon", "stop"], &["--help"], &["ls", "--host", "/nowhere"]]
    {
        run(directory.path(), args);
    }
    assert!(!directory.path().join("started").exists());
}

#[test]
fn a_stale_socket_is_no_daemon() {
    let directory = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(directory.path().join("bangerd.sock")).unwrap());
    install(directory.path(), "echo 'error: cannot do it' >/proc/$$/fd/$fd");
    assert_eq!(run(directory.path(), &["daemon", "status"]).code, Some(3));
    assert_eq!(run(directory.path(), &["ls"]).stderr, "error: the daemon does not start: cannot do it\n");
}

#[test]
fn daemon_run_becomes_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    install(directory.path(), "echo $$; echo err >&2; exit 5");
    let child = banger(directory.path(), &["daemon", "run"]).spawn().unwrap();
    let id = child.id();
    let ran = wait(child);
    assert_eq!((ran.code, ran.stdout, ran.stderr.as_str()), (Some(5), format!("{id}\n"), "err\n"));
}

#[test]
fn a_socket_that_may_not_be_opened_says_who_may() {
    if !rustix::process::geteuid().is_root() {
        banger_skip::skipped!("needs root to become somebody else");
        return;
    }
    let fake = guest::start();
    fs::set_permissions(fake.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(fake.socket(), fs::Permissions::from_mode(0o600)).unwrap();
    let program = fake.dir.path().join("banger");
    place(Path::new(env!("CARGO_BIN_EXE_banger")), &program);
    let args = ["--reuid", "65534", "--regid", "65534", "--clear-groups", program.to_str().unwrap(), "ls"];
    let ran = Ran::new(tool("/usr/bin/setpriv", &args).env("BANGER_HOST", fake.socket()).output().unwrap());
    let help = "help: only root and the group `banger` may: `sudo usermod -aG banger $USER`, then log in anew\n";
    let error = format!("error: no permission to use the daemon at {}\n{help}", fake.socket().display());
    assert_eq!((ran.code, ran.stderr), (Some(1), error));
}

/// A daemon that says it is this process, and ends it when it is told to stop.
fn status(pid: u32) -> Status {
    Status {
        version: Version { version: "0.1.0".into(), api: 1, protocol: 2 },
        pid,
        started: 1_700_000_000,
        resident: 20 << 20,
        vms: 3,
        running: 1,
        state_dir: "/var/lib/banger".into(),
        domain: "vm".into(),
        log: "/var/lib/banger/bangerd.log".into(),
    }
}

#[test]
fn stop_returns_when_the_daemon_is_gone() {
    let daemon = tool("/bin/sleep", &["60"]).spawn().unwrap();
    let pid = daemon.id();
    let daemon = std::sync::Mutex::new(Some(daemon));
    let fake = Fake::start(move |request| match request.path.as_str() {
        "/v1/daemon" => request.json(&status(pid)),
        _ => {
            request.raw("HTTP/1.1 204 X\r\nbanger-api: 1\r\n\r\n");
            std::thread::sleep(std::time::Duration::from_millis(200));
            let mut daemon = daemon.lock().unwrap().take().unwrap();
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    });
    let shown = fake.run(&["daemon", "status"]);
    assert_eq!(shown.code, Some(0));
    assert!(shown.stdout.contains(&format!("pid:      {pid}\n")) && shown.stdout.contains("3, 1 running"), "{shown:?}");
    let ran = fake.run(&["daemon", "stop"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), "the daemon has stopped; 1 VM runs on\n"));
    // Ended, if perhaps not reaped yet.
    let found = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(found.is_empty() || found.contains(") Z "), "{found}");
}

#[test]
fn doctor_fails_where_vms_cannot_run() {
    for (verdict, code) in [(Verdict::Pass, 0), (Verdict::Warn, 0), (Verdict::Fail, 1)] {
        let finding = Finding { check: "qemu".into(), verdict, found: "7.2".into(), fix: Some("apt install".into()) };
        let fake = Fake::start(move |request| request.json(&std::slice::from_ref(&finding)));
        let ran = fake.run(&["doctor"]);
        assert_eq!(ran.code, Some(code));
        assert!(ran.stdout.ends_with("  qemu  7.2\n            help: apt install\n"), "{ran:?}");
        let json = fake.run(&["doctor", "-o", "json"]).stdout;
        assert_eq!(serde_json::from_str::<Vec<Finding>>(&json).unwrap()[0].verdict, verdict);
    }
}
