//! What is on the terminal: colours, tables that fit, and stages that do not outlive themselves.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::io::Write;

use crate::support::screen::Screen;
use crate::support::{Fake, guest, vm};
use banger_api::error::ErrorCode;

const BANGER: &str = env!("CARGO_BIN_EXE_banger");
const WIDE: (u16, u16) = (24, 80);

/// What takes a drawn line off the screen.
const OFF: &str = "\r\u{1b}[K";

#[test]
fn help_is_coloured_unless_that_is_not_wanted() {
    let fake = guest::start();
    for (variables, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false), (&[("NO_COLOR", "")], true)] {
        for args in [&["--help"][..], &["run", "--help"], &["image"]] {
            let seen = Screen::of(&fake, BANGER, args, variables, WIDE).read_until("Print help");
            assert_eq!(seen.contains('\u{1b}'), coloured, "{variables:?}: {seen:?}");
        }
    }
}

#[test]
fn what_is_typed_wrong_is_told_as_every_error_is() {
    let fake = guest::start();
    for (args, error, help) in [
        (&["crate", "devbox"][..], "error: unrecognized subcommand 'crate'", "help: did you mean create?"),
        (
            &["start"],
            "error: the following required arguments were not provided: <NAME>...",
            "help: usage: banger start",
        ),
        (&["start", "--wiat", "a"], "error: unexpected argument '--wiat' found", "help: did you mean --wait?"),
        (&["create", "--cpus", "x"], "error: invalid value 'x' for '--cpus <N>'", "help: "),
        (&["completion", "csh"], "error: invalid value 'csh' for '<SHELL>'", "help: "),
    ] {
        let ran = fake.run(args);
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert!(lines.len() == 2 && lines[0].starts_with(error) && lines[1].starts_with(help), "{ran:?}");
        let mut screen = Screen::of(&fake, BANGER, args, &[("NO_COLOR", "1")], WIDE);
        let seen = screen.read_until(&format!("{}\r\n", lines[1]));
        assert_eq!(seen, format!("{}\r\n{}\r\n", lines[0], lines[1]));
        assert_eq!((ran.code, screen.code()), (Some(2), Some(2)));
    }
}

#[test]
fn tables_fit_a_narrow_terminal_and_are_whole_elsewhere() {
    let fake = Fake::start(|request| match request.path.as_str() {
        "/v1/images" => request.json(&[guest::image()]),
        _ => request.json(&[vm("a-name-that-is-quite-long-for-a-machine"), vm("devbox")]),
    });
    let narrow = |args: &[&str], end: &str| Screen::of(&fake, BANGER, args, &[], (24, 40)).read_until(end);
    let seen = narrow(&["ls"], "devbox                           running\r\n");
    let rows = "NAME                             STATE\r\na-name-that-is-quite-long-for-…  running\r\n";
    assert!(seen.starts_with(rows), "{seen:?}");
    let seen = narrow(&["image", "ls"], "bookworm)\r\n");
    assert_eq!(seen, "NAME     SYSTEM\r\ndebian…  Debian GNU/Linux 12 (bookworm)\r\n");
    let whole = fake.run(&["ls"]).stdout;
    assert!(whole.starts_with("NAME ") && whole.contains("CREATED") && whole.contains("ago"), "{whole}");
}

/// A daemon whose operation is in one stage for as long as its peer, or what the test does, lets it.
fn busy(end: fn(crate::support::Events)) -> Fake {
    Fake::start(move |request| {
        let mut events = request.events();
        events.line(r#"{"event":"stage_started","stage":"agent.ready"}"#);
        end(events);
    })
}

#[test]
fn a_stage_goes_off_the_screen_with_its_command() {
    let drawn = "… agent.ready";
    // The user interrupts.
    let fake = busy(|events| events.hold("it"));
    let mut screen = Screen::start(&fake, &["create", "devbox"], 24, 80);
    screen.read_until(drawn);
    screen.master.write_all(b"\x03").unwrap();
    let seen = screen.read_until("the VM is not created\r\n");
    assert!(
        seen.ends_with(&format!("{OFF}error: interrupted during agent.ready; the VM is not created\r\n")),
        "{seen:?}"
    );
    assert_eq!(screen.code(), Some(130));
    // It fails, and the daemon dies.
    let fails: [fn(crate::support::Events); 2] = [
        |mut events| {
            std::thread::sleep(std::time::Duration::from_millis(400));
            let error = banger_api::error::ApiError {
                code: ErrorCode::GuestUnreachable,
                message: "no agent".into(),
                help: None,
                also: Vec::new(),
                operation: None,
            };
            events.error(&error);
        },
        |_| std::thread::sleep(std::time::Duration::from_millis(400)),
    ];
    for fail in fails {
        let fake = busy(fail);
        let mut screen = Screen::start(&fake, &["create", "devbox"], 24, 80);
        screen.read_until(drawn);
        let seen = screen.read_until("error: ");
        assert!(seen.ends_with(&format!("{OFF}error: ")), "{seen:?}");
        assert_eq!(screen.code(), Some(1));
    }
}

#[test]
fn a_stage_leaves_the_screen_to_the_shell_while_the_command_is_stopped() {
    let drawn = "… agent.ready";
    let fake = busy(|events| events.hold("it"));
    let shell = ["--norc", "--noprofile", "-i"];
    let mut screen = Screen::of(&fake, "/bin/bash", &shell, &[("PS1", "ready> ")], WIDE);
    screen.read_until("ready> ");
    screen.master.write_all(format!("{BANGER} create devbox\r").as_bytes()).unwrap();
    screen.read_until(drawn);
    screen.master.write_all(b"\x1a").unwrap();
    let seen = screen.read_until("Stopped");
    let (before, _) = seen.rsplit_once(OFF).unwrap_or_else(|| panic!("{seen:?}"));
    assert!(!seen[before.len()..].contains(drawn), "{seen:?}");
    screen.read_until("ready> ");
    screen.master.write_all(b"fg\r").unwrap();
    screen.read_until(drawn);
    // It can be stopped again, and interrupted.
    screen.master.write_all(b"\x1a").unwrap();
    screen.read_until("Stopped");
    screen.read_until("ready> ");
    screen.master.write_all(b"fg\r").unwrap();
    screen.read_until(drawn);
    screen.master.write_all(b"\x03").unwrap();
    screen.read_until("error: interrupted during agent.ready");
    screen.read_until("ready> ");
    screen.master.write_all(b"exit 0\r").unwrap();
    assert_eq!(screen.code(), Some(0));
}

#[test]
fn where_nothing_is_drawn_any_more_a_command_is_stopped_as_ever() {
    // First a stage, in which the signal is caught; then a command without a terminal, in which it is not.
    let fake = guest::start();
    let shell = ["--norc", "--noprofile", "-i"];
    let mut screen = Screen::of(&fake, "/bin/bash", &shell, &[("PS1", "ready> ")], WIDE);
    screen.read_until("ready> ");
    screen.master.write_all(format!("{BANGER} run -T -- sh -c 'echo is u''p; sleep 60'\r").as_bytes()).unwrap();
    screen.read_until("is up\r\n");
    screen.master.write_all(b"\x1a").unwrap();
    screen.read_until("Stopped");
    screen.read_until("ready> ");
    screen.master.write_all(b"kill -KILL %1; wait -f %1; exit 0\r").unwrap();
    assert_eq!(screen.code(), Some(0));
}
