//! What a user sees of verbs on several VMs, and of those that change one.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Fake, Ran, Request, vm, wait};
use banger_api::change::{Change, Effect, VmChanged};
use banger_api::error::ErrorCode;
use banger_api::stats::{Load, VmStats};
use banger_api::vm::{Vm, VmState};

fn check(ran: &Ran, code: i32, stdout: &str, stderr: &str) {
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(code), stdout, stderr));
}

fn known() -> Vec<Vm> {
    let one = |id: &str, name: &str, state| Vm { id: id.into(), state, ..vm(name) };
    vec![
        one("aaab01", "one", VmState::Running),
        one("aaac02", "two", VmState::Stopped),
        one("bbbb03", "three", VmState::Stopped),
    ]
}

/// Answers that three operations are given only when all three are under way, and the last one first.
fn start() -> Fake {
    let gate = Arc::new((Mutex::new(0), Condvar::new()));
    Fake::start(move |request| answer(request, &gate, 3))
}

fn answer(request: Request, gate: &(Mutex<u32>, Condvar), together: u32) {
    let path = request.path.clone();
    let words: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    match (request.method.as_str(), words.as_slice()) {
        ("GET", ["vms"]) => request.json(&known()),
        (_, ["vms", id, ..]) => {
            let found = known().into_iter().find(|vm| vm.id == *id);
            let vm = found.unwrap_or_else(|| panic!("they are named by their ids: {id}"));
            let place = known().iter().position(|other| other.id == vm.id).unwrap();
            let mut arrived = gate.0.lock().unwrap();
            *arrived += 1;
            gate.1.notify_all();
            while *arrived < together {
                let (guard, late) = gate.1.wait_timeout(arrived, Duration::from_secs(20)).unwrap();
                assert!(!late.timed_out(), "they are not worked on together");
                arrived = guard;
            }
            drop(arrived);
            std::thread::sleep(Duration::from_millis(100 * (2 - place as u64)));
            let mut events = request.events();
            events.stage("vmm.start", 1000);
            if vm.name == "two" && path.ends_with("start") {
                let message = "cannot start two: no luck".to_owned();
                let code = ErrorCode::VmmFailed;
                let (help, also) = (Some("try again".to_owned()), Vec::new());
                return events.error(&banger_api::error::ApiError { code, message, help, also, operation: None });
            }
            events.result(&vm, 2000);
        }
        _ => request.error(ErrorCode::Unsupported, "no such path", None),
    }
}

#[test]
fn they_are_worked_on_together_and_told_in_the_order_in_which_they_were_named() {
    let ran = start().run(&["stop", "three", "one", "two", "one", "aaab01", "aaab"]);
    check(&ran, 0, "", "three is stopped in 2.0 ms\none is stopped in 2.0 ms\ntwo is stopped in 2.0 ms\n");
}

#[test]
fn good_ones_go_on_where_others_fail_or_are_not_there() {
    let told = "\
error: there is no VM tree
help: did you mean three? `banger ls` lists all VMs
three is running in 2.0 ms
error: aaa is the beginning of several ids: one, two
help: give more of the id, or a name
error: cannot start two: no luck
help: try again
one is running in 2.0 ms
";
    let fake = start();
    check(&fake.run(&["start", "tree", "three", "aaa", "two", "one"]), 1, "", told);
    let lists = fake.log.lines().iter().filter(|line| *line == "GET /v1/vms").count();
    assert_eq!(lists, 1, "they are looked up once");
}

#[test]
fn all_means_those_that_it_can_be_done_with_and_json_is_of_the_good_ones() {
    let gate = Arc::new((Mutex::new(0), Condvar::new()));
    let fake = Fake::start(move |request| answer(request, &gate, 1));
    check(&fake.run(&["stop", "--all"]), 0, "", "one is stopped in 2.0 ms\n");
    let ran = fake.run(&["start", "--all", "-q", "-o", "json"]);
    assert_eq!(ran.code, Some(1));
    let names: Vec<String> =
        serde_json::from_str::<Vec<Vm>>(&ran.stdout).unwrap().into_iter().map(|vm| vm.name).collect();
    assert_eq!(names, ["three"]);
    check(&fake.run(&["rm", "--all", "-q", "-o", "name"]), 0, "two\nthree\n", "");
    assert_eq!(fake.run(&["rm", "--all", "one"]).code, Some(2));
}

#[test]
fn an_interrupt_says_how_many_were_under_way() {
    let fake = Fake::start(|request| match request.path.as_str() {
        "/v1/vms" => request.json(&known()),
        _ => request.events().hold("an operation"),
    });
    let child = fake.banger(&["start", "two", "three"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    fake.log.wait_for("POST ", 2);
    crate::support::tool("/bin/kill", &["-INT", &child.id().to_string()]).status().unwrap();
    let ran = wait(child);
    let told = "error: interrupted with 2 of 2 under way; the start is undone; its disks are kept\n";
    check(&ran, 130, "", told);
    fake.log.wait_for("hung up on an operation", 2);
}

#[test]
fn prune_asks_unless_told_not_to_and_forces_nothing() {
    let gate = Arc::new((Mutex::new(0), Condvar::new()));
    let fake = Fake::start(move |request| answer(request, &gate, 1));
    check(&fake.run(&["prune", "--dry-run"]), 0, "two\nthree\n", "");
    let help = "error: cannot ask whether to remove VMs: standard input is no terminal\nhelp: use --force\n";
    check(&fake.run(&["prune"]), 2, "", help);
    check(&fake.run(&["prune", "-f"]), 0, "", "two is removed in 2.0 ms\nthree is removed in 2.0 ms\n");
    let removed: Vec<String> = fake.log.lines().into_iter().filter(|line| line.starts_with("DELETE")).collect();
    assert!(removed.len() == 2 && removed.iter().all(|line| line.ends_with("?force=false")), "{removed:?}");
}

#[test]
fn a_change_says_when_each_field_takes_effect() {
    let fake = Fake::start(|request| {
        request.log.add(format!("body {}", String::from_utf8_lossy(&request.body)));
        let change = |field: &str, from: &str, to: &str, effect| Change {
            field: field.into(),
            from: Some(from.into()),
            to: Some(to.into()),
            effect,
            reason: None,
        };
        let changes = match request.path.as_str() {
            "/v1/vms/devbox" => vec![
                change("cpus", "2", "4", Effect::NextStart),
                change("disk", "8589934592", "17179869184", Effect::Now),
            ],
            "/v1/vms/devbox/rename" => vec![change("name", "devbox", "web", Effect::Now)],
            path => panic!("{path}"),
        };
        let name = if request.path.ends_with("rename") { "web" } else { "devbox" };
        request.events().result(&VmChanged { vm: vm(name), changes }, 1000);
    });
    let told = "\
cpus: 4 instead of 2, at its next start
disk: 16 GiB instead of 8 GiB, now
`banger restart devbox` brings the rest into effect
";
    let ran = fake.run(&["set", "devbox", "--cpus", "4", "--disk", "16G", "-e", "A=1", "--unset-env", "B", "-w", ""]);
    check(&ran, 0, "", told);
    let body = fake.log.wait("body ");
    assert!(body.contains(r#""env":{"A":"1","B":null},"workdir":"""#), "{body}");
    assert!(fake.log.lines().contains(&"PATCH /v1/vms/devbox".to_owned()));
    check(&fake.run(&["rename", "devbox", "web"]), 0, "", "name: web instead of devbox, now\n");
    let none = "error: nothing is to be changed\nhelp: say what, as: banger set --cpus 4 NAME\n";
    check(&fake.run(&["set", "devbox"]), 2, "", none);
}

#[test]
fn stats_come_as_one_table_or_line_by_line() {
    let count = Mutex::new(0);
    let fake = Fake::start(move |request| {
        let mut count = count.lock().unwrap();
        *count += 1;
        let guest = Some(Load { averages: [50, 0, 0], memory: 1 << 30, memory_available: 1 << 29, ..Load::default() });
        let stats = VmStats {
            id: "4f2a9c".into(),
            name: "devbox".into(),
            cpus: 2,
            at: 1_000_000 * *count,
            cpu_micros: 250_000 * *count,
            resident: 1 << 28,
            read: 0,
            written: 0,
            disk: 1 << 30,
            guest,
            guest_error: None,
        };
        request.json(&[stats]);
    });
    let table = "\
NAME    CPU     HOST-MEM  GUEST-MEM        LOAD  DISK   READ  WRITTEN
devbox  25.0 %  256 MiB   512 MiB / 1 GiB  0.50  1 GiB  0 B   0 B
";
    let began = Instant::now();
    check(&fake.run(&["stats", "--no-stream"]), 0, table, "");
    assert!(began.elapsed() >= Duration::from_secs(1), "a rate needs two measurements");
    let json = fake.run(&["stats", "--no-stream", "-o", "json"]).stdout;
    assert_eq!(serde_json::from_str::<Vec<VmStats>>(&json).unwrap().len(), 1);

    let mut child = fake.banger(&["stats", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for _ in 0..2 {
        let line = lines.next().unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Vec<VmStats>>(&line).unwrap().len(), 1, "{line}");
    }
    crate::support::tool("/bin/kill", &["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(wait(child).code, Some(130));
}

#[test]
fn a_console_needs_a_terminal() {
    let ran = start().run(&["console", "one"]);
    let told = "\
error: a console needs a terminal on standard input
help: `banger logs --console --follow one` reads along without one
";
    check(&ran, 2, "", told);
}
