//! Signals, terminals, cancelling.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::screen::{Screen, resize};
use crate::support::{Fake, Frames, guest, tool, wait};
use banger_api::frame::Kind;
use rustix::process::Signal;

fn send(child: &Child, signal: &str) {
    assert!(tool("/bin/kill", &[signal, &child.id().to_string()]).status().unwrap().success());
}

/// Starts a command that says when it runs, and waits for it.
fn start(fake: &Fake, script: &str) -> Child {
    let mut command = fake.banger(&["exec", "devbox", "--", "sh", "-c", &format!("echo up; {script}")]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    child
}

#[test]
fn signals_reach_the_command() {
    for (signal, number) in [("-INT", 2), ("-TERM", 15), ("-HUP", 1), ("-QUIT", 3)] {
        let fake = guest::start();
        let child = start(&fake, "exec sleep 60");
        send(&child, signal);
        fake.log.wait(&format!("signal {number}"));
        let ran = wait(child);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(128 + number), ""), "{signal}");
    }
    let fake = guest::start();
    let child = start(&fake, "trap 'echo caught; exit 9' INT; while :; do sleep 0.01; done");
    send(&child, "-INT");
    let ran = wait(child);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(9), "caught\n"));
}

#[test]
fn a_command_that_ignores_interrupts_is_hung_up_on() {
    let fake = guest::start();
    let child = start(&fake, "trap '' INT; while :; do sleep 0.01; done");
    for count in 1..=3 {
        send(&child, "-INT");
        fake.log.wait_for("signal 2", count);
    }
    send(&child, "-INT");
    let ran = wait(child);
    assert_eq!(ran.code, Some(130));
    assert_eq!(ran.stderr, "error: interrupted; the guest's command was hung up on\n");
    fake.log.wait("hung up on the command");
}

#[test]
fn a_signal_behind_input_that_nobody_takes_hangs_up() {
    let fake = Fake::start(|request| {
        let mut frames = request.upgrade();
        frames.send(Kind::Message, r#"{"answer":"started","pid":1}"#);
        frames.send(Kind::Stdout, "up\n");
        // A guest whose command reads nothing: after a while nothing more fits into the stream.
        frames.log.add("reading nothing");
        std::thread::sleep(Duration::from_secs(20));
    });
    let input = fake.dir.path().join("input");
    File::create(&input).unwrap().set_len(1 << 30).unwrap();
    let mut command = fake.banger(&["exec", "devbox", "--", "sleep", "60"]);
    command.stdin(File::open(&input).unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    // It goes on reading until what it sends is stuck.
    let position = || std::fs::read_to_string(format!("/proc/{}/fdinfo/0", child.id())).unwrap();
    let mut before = String::new();
    while before != position() {
        before = position();
        std::thread::sleep(Duration::from_millis(300));
    }
    send(&child, "-TERM");
    assert_eq!(wait(child).code, Some(143));
}

#[test]
fn a_slow_reader_does_not_keep_signals_from_the_guest() {
    let fake = guest::start();
    let child = start(&fake, "yes");
    // Nobody reads: all on the way is full.
    std::thread::sleep(Duration::from_millis(200));
    send(&child, "-INT");
    fake.log.wait("signal 2");
    // What the command had written is all there, once somebody reads.
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert!(ended.stdout.len() > 100_000);
}

#[test]
fn what_nohup_has_ignored_stays_ignored() {
    let fake = guest::start();
    let program = env!("CARGO_BIN_EXE_banger");
    let socket = fake.socket();
    let command = "exec devbox -- sh -c 'echo up; sleep 2; exit 6'";
    let script = format!("trap '' HUP; exec {program} --host {} {command}", socket.display());
    let mut child = tool("/bin/sh", &["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    send(&child, "-HUP");
    assert_eq!(wait(child).code, Some(6));
    assert!(!fake.log.lines().iter().any(|line| line.starts_with("signal")));
}

#[test]
fn an_interrupt_cancels_a_creation() {
    let fake = Fake::start(|request| {
        let mut events = request.events();
        events.line(r#"{"event":"stage_started","stage":"vmm.start"}"#);
        events.line(r#"{"event":"progress","message":"starting"}"#);
        events.hold("the creation");
    });
    for args in [&["create", "devbox"][..], &["run", "--name", "devbox", "--", "true"]] {
        let mut child =
            fake.banger(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut progress = [0; 11];
        child.stderr.as_mut().unwrap().read_exact(&mut progress).unwrap();
        assert_eq!(&progress, b"  starting\n");
        send(&child, "-INT");
        let ran = wait(child);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(130), ""));
        assert_eq!(ran.stderr, "error: interrupted during vmm.start; the VM is not created\n", "after its progress");
        fake.log.wait("hung up on the creation");
    }
}

#[test]
fn a_guest_that_goes_away_is_no_success() {
    let fake = Fake::start(|request| {
        let mut frames = request.upgrade();
        frames.send(Kind::Message, r#"{"answer":"started","pid":1}"#);
        frames.send(Kind::Stdout, "half");
    });
    let ran = fake.run(&["exec", "devbox", "true"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(125), "half"));
    assert!(ran.stderr.starts_with("error: lost the guest while the command ran: the stream ended\nhelp: "), "{ran:?}");
}

/// A guest that has a terminal: it tells what it gets, and ends at `q`.
fn terminal_guest(mut frames: Frames) {
    frames.send(Kind::Message, r#"{"answer":"started","pid":1}"#);
    frames.send(Kind::Stdout, "ready\n");
    while let Some(frame) = frames.next() {
        match frame.kind {
            Kind::Resize => frames.log.add(format!("resize {:?}", frame.as_resize().unwrap())),
            Kind::Stdin if frame.payload.contains(&b'q') => {
                frames.send(Kind::Exit, r#"{"code":3}"#);
            }
            kind => frames.log.add(format!("{kind:?} {:?}", frame.payload)),
        }
    }
    frames.log.add("hung up");
}

fn terminal_fake() -> Fake {
    Fake::start(|request| {
        if request.path.ends_with("/exec") {
            request.log.add(format!("exec {}", String::from_utf8_lossy(&request.body)));
            terminal_guest(request.upgrade());
        } else {
            request.json(&crate::support::vm("devbox"));
        }
    })
}

#[test]
fn a_shell_has_the_terminal_for_itself_and_gives_it_back() {
    let fake = terminal_fake();
    let mut screen = Screen::start(&fake, &["shell", "devbox"], 30, 100);
    // Raw: the guest's own line breaks arrive as they are.
    screen.read_until("ready\n");
    fake.log.wait("GET /v1/vms/devbox/wait?level=system");
    let sent = fake.log.wait("exec ");
    assert!(sent.contains(r#""tty":{"rows":30,"columns":100,"term":"xterm-256color"}"#), "{sent}");
    assert!(sent.contains(r#""login_shell":true"#), "{sent}");
    assert!(screen.is_raw());
    screen.master.write_all(b"\x03").unwrap();
    fake.log.wait(r#"Stdin b"\x03""#);
    resize(&screen.slave, 41, 132);
    fake.log.wait("resize (41, 132)");
    screen.master.write_all(b"q").unwrap();
    assert_eq!(screen.code(), Some(3));
    assert!(!screen.is_raw());
}

#[test]
fn the_terminal_is_restored_however_it_ends() {
    let fake = terminal_fake();
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut screen = Screen::start(&fake, &["exec", "-it", "devbox", "sh"], 24, 80);
        screen.read_until("ready\n");
        assert!(screen.is_raw());
        screen.process.signal(signal).unwrap();
        assert_eq!(screen.code(), Some(code));
        assert!(!screen.is_raw());
    }
    let fake = Fake::start(|request| {
        let mut frames = request.upgrade();
        frames.send(Kind::Message, r#"{"answer":"started","pid":1}"#);
        frames.send(Kind::Stdout, "ready\n");
        frames.next();
    });
    let mut screen = Screen::start(&fake, &["exec", "devbox", "sh"], 24, 80);
    screen.read_until("ready\n");
    screen.master.write_all(b"x").unwrap();
    screen.read_until("error: lost the guest");
    assert_eq!(screen.code(), Some(125));
    assert!(!screen.is_raw());
}

#[test]
fn stages_are_drawn_live_and_fit_the_terminal() {
    let fake = Fake::start(|request| {
        let mut events = request.events();
        events.stage("disk.clone", 3_000);
        events.line(r#"{"event":"stage_started","stage":"image.unpack.of.a.long.name"}"#);
        events.line(r#"{"event":"progress","message":"Unpacking \u001b[31mlibc6"}"#);
        std::thread::sleep(Duration::from_millis(700));
        events.line(r#"{"event":"stage_finished","stage":"image.unpack.of.a.long.name","micros":300000}"#);
        events.result(&crate::support::vm("devbox"), 310_000);
    });
    let mut screen = Screen::start(&fake, &["create", "devbox"], 24, 40);
    let seen = screen.read_until("devbox is running in 310 ms\r\n");
    assert!(seen.starts_with("\u{1b}[32m✓\u{1b}[0m disk.clone \u{1b}[2m3.0 ms\u{1b}[0m\r\n"), "{seen:?}");
    let drawn = "… image.unpack.of.a.long.name  Unpackin";
    assert_eq!(drawn.chars().count(), 39);
    assert!(seen.contains(&format!("\r\n{drawn}\r\u{1b}[K")), "{seen:?}");
    let done = "\r\u{1b}[K\u{1b}[32m✓\u{1b}[0m image.unpack.of.a.long.name \u{1b}[2m300 ms\u{1b}[0m\r\n";
    assert!(seen.contains(done), "{seen:?}");
    assert_eq!(screen.code(), Some(0));
}

#[test]
fn standard_input_is_null_where_there_is_none() {
    let fake = guest::start();
    assert_eq!(fake.run(&["exec", "devbox", "cat"]).code, Some(0));
    assert!(fake.log.wait("exec ").contains(r#""stdin":false"#));
}
