//! A daemon, of another host perhaps, all of whose words would steer a terminal: the command line escapes them itself.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::io::Read;

use banger_api::error::{ApiError, ErrorCode};
use banger_api::frame::Kind;
use banger_api::vm::{Vm, VmState};
use serde::Serialize;
use serde_json::{Value, json};

use crate::support::screen::Screen;
use crate::support::{Fake, Request, guest, vm};

/// OSC, CSI, C1, DEL, marks of the writing direction, a separator, what nobody can see, and a line in somebody else's name.
const EVIL: &str =
    "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\u{2066}\u{2028}\u{feff}\u{e0041}\r\nforged\u{8}";

/// How it begins where it is shown.
const SHOWN: &str = "\\u{1b}]0;owned\\u{7}\\u{1b}[2J\\u{9b}31m\\u{7f}\\u{202e}\\u{2066}\\u{2028}\\u{feff}\\u{e0041}";

/// The fields whose words are chosen from a few, or are numbers.
const CHOSEN: [&str; 10] =
    ["state", "net", "restart", "effect", "verdict", "kind", "problem", "wired", "event", "address"];

/// The same value with evil words.
fn evil(value: &impl Serialize) -> Value {
    fn poison(value: &mut Value) {
        match value {
            Value::String(text) => EVIL.clone_into(text),
            Value::Array(values) => values.iter_mut().for_each(poison),
            Value::Object(fields) => {
                let words = fields.iter_mut().filter(|(name, _)| !CHOSEN.contains(&name.as_str()));
                words.for_each(|(_, value)| poison(value));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut value = serde_json::to_value(value).unwrap();
    poison(&mut value);
    value
}

fn answer(request: Request) {
    let mut running = vm("devbox");
    (running.reason, running.workdir) = (Some("r".into()), Some("/".into()));
    let (vm, image) = (evil(&running), evil(&guest::image()));
    let change = json!({"field": "f", "from": "a", "to": "b", "effect": "next_start", "reason": "r"});
    let changed = evil(&json!({"vm": running, "changes": [change]}));
    let finding = json!({"check": "c", "verdict": "warn", "found": "f", "fix": "x"});
    let version = json!({"version": "v", "api": 1, "protocol": 4});
    let path = request.path.clone();
    let words: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    match (request.method.as_str(), words.as_slice()) {
        (_, ["vms", "refused", ..]) => request.fail(&ApiError {
            code: ErrorCode::VmmFailed,
            message: EVIL.into(),
            help: Some(EVIL.into()),
            also: vec![EVIL.into(), EVIL.into()],
            operation: Some(EVIL.into()),
        }),
        ("GET", ["vms"]) => request.json(&[vm, evil(&Vm { state: VmState::Stopped, ..running })]),
        ("GET", ["vms", "devbox", "ports"]) => request.json(&evil(
            &json!([{"port": 80, "addresses": [], "process": "p", "reached_at": "a", "published_at": []}]),
        )),
        ("GET", ["vms", "devbox", "commands"]) => {
            request.json(&evil(&json!([{"id": "i", "argv": ["a", "b"], "started": 1, "exit": {"code": 1}}])));
        }
        ("POST", ["vms", "devbox", "exec"]) => request.json(&evil(&json!({"id": "i", "pid": 1}))),
        ("POST", ["vms", "devbox", "commands", "main", "output"]) => {
            let mut frames = request.upgrade();
            frames.send(Kind::Message, json!({"answer": "error", "code": "not_found", "message": EVIL}).to_string());
        }
        ("GET", ["vms", _] | ["vms", _, "wait"]) => request.json(&vm),
        ("GET", ["images"]) => request.json(&[image]),
        ("GET" | "DELETE", ["images", _]) => request.json(&image),
        ("GET", ["doctor"]) => request.json(&evil(&[finding])),
        ("GET", ["verify"]) => {
            request.json(&evil(&json!([{"kind": "file", "problem": "leak", "which": "w", "found": "f", "fix": "x"}])))
        }
        ("GET", ["network"]) => request.json(&evil(
            &json!({"subnet": "s", "domain": "d", "leases": [{"name": "n", "address": "10.0.0.2", "vm": true}]}),
        )),
        ("GET", ["dns"]) => {
            let by_hand = json!({"resolver": "r", "place": "p", "lines": ["l"]});
            request
                .json(&evil(&json!({"wired": "none", "resolves": false, "name": "n", "address": null, "domain": "d",
                "server": null, "findings": [finding], "by_hand": [by_hand]})));
        }
        ("POST", ["dns", "install"]) => request.error(ErrorCode::HostUnfit, EVIL, Some(EVIL)),
        ("GET", ["version"]) => request.json(&evil(&version)),
        ("GET", ["daemon"]) => request.json(&evil(&json!({"version": version, "pid": 1, "started": 1, "resident": 1,
            "vms": 1, "running": 1, "state_dir": "s", "domain": "d", "log": "l"}))),
        ("GET", ["events"]) => {
            let mut events = request.events();
            let operation = json!({"event": "operation_started", "operation": "o", "verb": "v", "on": "n"});
            for change in [json!({"event": "vm_changed", "vm": running}), operation] {
                let mut line = evil(&change);
                (line["token"], line["at"]) = (EVIL.into(), 1.into());
                events.line(&line.to_string());
            }
        }
        ("POST" | "PATCH" | "DELETE", ["vms" | "images", ..]) => {
            let result = match (request.method.as_str(), words.last()) {
                ("PATCH", _) | (_, Some(&"rename")) => changed,
                (_, Some(&"images")) => image,
                _ => vm,
            };
            let mut events = request.events();
            events.line(&json!({"event": "started", "operation": EVIL}).to_string());
            events.line(&json!({"event": "stage_started", "stage": EVIL}).to_string());
            events.line(&json!({"event": "progress", "message": EVIL}).to_string());
            events.line(&json!({"event": "stage_finished", "stage": EVIL, "micros": 90_000}).to_string());
            events.line(&json!({"event": "result", "result": result, "micros": 100_000}).to_string());
        }
        _ => request.error(ErrorCode::Unsupported, EVIL, Some(EVIL)),
    }
}

const VERBS: [&[&str]; 30] = [
    &["ls"],
    &["show", "devbox"],
    &["create", "devbox"],
    &["create", "devbox", "--timings"],
    &["create", "devbox", "--wait", "system"],
    &["start", "devbox"],
    &["start", "refused"],
    &["stop", "--all"],
    &["restart", "devbox"],
    &["rm", "devbox"],
    &["set", "devbox", "--cpus", "2"],
    &["rename", "devbox", "other"],
    &["prune", "--dry-run"],
    &["exec", "-d", "devbox", "--", "true"],
    &["logs", "devbox"],
    &["logs", "--list", "devbox"],
    &["ports", "devbox"],
    &["known-hosts", "devbox"],
    &["image", "ls"],
    &["image", "show", "debian"],
    &["image", "rm", "debian"],
    &["image", "build"],
    &["network", "ls"],
    &["dns", "status"],
    &["dns", "install"],
    &["doctor"],
    &["verify"],
    &["daemon", "status"],
    &["version"],
    &["events"],
];

fn steers(text: &str) -> bool {
    let invisible = ['\u{202e}', '\u{2066}', '\u{2028}', '\u{feff}', '\u{e0041}'];
    text.chars().any(|char| (char.is_control() && char != '\n') || invisible.contains(&char))
        || text.lines().any(|line| line.starts_with("forged"))
}

#[test]
fn no_word_of_a_daemons_steers_the_terminal() {
    let fake = Fake::start(answer);
    for verb in VERBS {
        for format in ["table", "json", "name"] {
            let ran = fake.run(&[verb, &["-o", format]].concat());
            assert!(!steers(&ran.stdout) && !steers(&ran.stderr), "{verb:?} {format}: {ran:?}");
            if format == "table" {
                assert!((ran.stdout.clone() + &ran.stderr).contains(SHOWN), "{verb:?}: {ran:?}");
            }
            if format == "json" && ran.stdout.starts_with(['{', '[']) {
                let values = serde_json::Deserializer::from_str(&ran.stdout).into_iter::<Value>();
                assert!(
                    values.collect::<Result<Vec<_>, _>>().unwrap().iter().any(|value| holds(value, EVIL)),
                    "{verb:?}"
                );
            }
        }
    }
}

fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found == text,
        Value::Array(values) => values.iter().any(|value| holds(value, text)),
        Value::Object(fields) => fields.values().any(|value| holds(value, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[test]
fn nor_where_stages_are_drawn() {
    let fake = Fake::start(answer);
    for verb in VERBS {
        let Screen { mut master, slave, process } = Screen::start(&fake, verb, 24, 80);
        drop(slave);
        let mut seen = Vec::new();
        // The terminal's end is an error.
        drop(master.read_to_end(&mut seen));
        drop(process);
        let mut seen = String::from_utf8(seen).unwrap().replace("\r\n", "\n");
        for own in ["\r\u{1b}[K", "\u{1b}[0m", "\u{1b}[2m", "\u{1b}[32m"] {
            seen = seen.replace(own, "");
        }
        assert!(!steers(&seen), "{verb:?}: {seen:?}");
    }
}

#[test]
fn nor_does_it_reach_a_shell_or_ssh() {
    let fake = Fake::start(answer);
    let ran = fake.run(&["__complete", "banger", "show", ""]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""), "a name that cannot be typed");
    let ran = fake.run(&["ssh-config", "--print"]);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("error: the daemon gives its VMs the domain"), "{ran:?}");
    assert!(!steers(&ran.stderr), "{ran:?}");
}
