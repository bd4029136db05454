//! The JSON that programs read from `-o json`, word for word. What stands here is a promise: fields are added (with a line in
//! CHANGELOG.md), never renamed, and never given another type.

#![expect(clippy::unwrap_used, reason = "a test that fails shall panic")]

use banger_api::change::{Change, Effect, VmChanged};
use banger_api::console::Attached;
use banger_api::daemon::{Finding, Status, Verdict, Version};
use banger_api::dns::{ByHand, Dns, Wired};
use banger_api::error::{ApiError, ErrorCode};
use banger_api::events::{Change as Happening, Line, Outcome};
use banger_api::exec::{Command, ExecStarted, Exit};
use banger_api::image::Image;
use banger_api::operation::Event;
use banger_api::stats::{FileSystem, Load, VmStats};
use banger_api::vm::{Net, RestartPolicy, User, Vm, VmState};

/// All of them, a line each.
fn all() -> Vec<String> {
    let full = Vm {
        id: "3x4mp13".into(),
        name: "devbox".into(),
        state: VmState::Running,
        reason: Some("why".into()),
        generation: 4,
        image: "debian".into(),
        cpus: 2,
        memory: 1 << 30,
        disk: 8 << 30,
        vmm: "qemu".into(),
        accelerator: Some("kvm".into()),
        pid: Some(4711),
        boot_id: Some("0d9a".into()),
        ephemeral: false,
        net: Net::Nat,
        address: Some([10, 77, 0, 2].into()),
        publish: vec!["8080:80".parse().unwrap()],
        restart: RestartPolicy::OnFailure,
        starts_again: Some(1_700_000_002),
        workdir: Some("/root/project".into()),
        user: Some(User { name: "dev".into(), uid: 1000, gid: 100 }),
        created: 1_700_000_000,
        started: Some(1_700_000_001),
        host_key: "ssh-ed25519 AAAA".into(),
    };
    let least = Vm {
        state: VmState::Stopped,
        reason: None,
        accelerator: None,
        pid: None,
        boot_id: None,
        net: Net::None,
        address: None,
        publish: Vec::new(),
        restart: RestartPolicy::No,
        starts_again: None,
        workdir: None,
        user: None,
        started: None,
        ..full.clone()
    };
    let image = Image {
        id: "1m4g3".into(),
        name: "debian".into(),
        default: true,
        system: "Debian GNU/Linux 12 (bookworm)".into(),
        kernel: "6.1.0-50-cloud-amd64".into(),
        size: 8 << 30,
        allocated: 600 << 20,
        packages: 200,
        manifest: "ab12".into(),
        work_seed: true,
        suite: "bookworm".into(),
        added: vec!["golang".into()],
        created: 1_700_000_000,
        vms: vec!["devbox".into()],
    };
    let status = Status {
        version: Version { version: "0.1.0".into(), api: 1, protocol: 2 },
        pid: 42,
        started: 1_700_000_000,
        resident: 10 << 20,
        vms: 2,
        running: 1,
        state_dir: "/state".into(),
        domain: "vm".into(),
        log: "/state/log".into(),
    };
    let finding =
        Finding { check: "kvm".into(), verdict: Verdict::Warn, found: "none".into(), fix: Some("load it".into()) };
    let command =
        Command { id: "main".into(), argv: vec!["make".into()], started: 1_700_000_000, exit: Some(Exit::Code(7)) };
    let error = ApiError {
        code: ErrorCode::VmNotFound,
        message: "there is no VM devbox".into(),
        help: Some("did you mean devbux?".into()),
        also: vec!["more".into()],
        operation: Some("op-1".into()),
    };
    let events = [
        Event::Started { operation: "op-1".into() },
        Event::StageStarted { stage: "disk.clone".into() },
        Event::StageFinished { stage: "disk.clone".into(), micros: 12 },
        Event::Progress { message: "unpacking".into() },
        Event::Result { result: 1, micros: 34 },
        Event::Error { error: error.clone() },
    ];
    let (operation, verb, on) = ("op-1".to_owned(), "create".to_owned(), Some("devbox".to_owned()));
    let happenings = [
        Happening::Reset { vms: Vec::new(), images: Vec::new() },
        Happening::VmCreated { vm: least.clone() },
        Happening::VmChanged { vm: least.clone() },
        Happening::VmRemoved { vm: least.clone() },
        Happening::ImageBuilt { image: image.clone() },
        Happening::ImageRemoved { image: image.clone() },
        Happening::OperationStarted { operation: operation.clone(), verb: verb.clone(), on: on.clone() },
        Happening::OperationFinished {
            operation,
            verb,
            on,
            outcome: Outcome::Failed,
            code: Some(ErrorCode::NameTaken),
            micros: 56,
        },
        Happening::Lagged,
    ];
    let happenings =
        happenings.map(|change| Line { token: "00000000000000ab-7".into(), at: 1_700_000_000_000_000, change });
    let change = Change {
        field: "cpus".into(),
        from: Some("2".into()),
        to: Some("4".into()),
        effect: Effect::NextStart,
        reason: Some("why".into()),
    };
    let gone = Change { to: None, effect: Effect::Now, reason: None, ..change.clone() };
    let stats = VmStats {
        id: "3x4mp13".into(),
        name: "devbox".into(),
        cpus: 2,
        at: 1_700_000_000_000_000,
        cpu_micros: 5,
        resident: 6,
        read: 7,
        written: 8,
        disk: 9,
        guest: Some(Load {
            averages: [1, 2, 3],
            tasks: 4,
            memory: 5,
            memory_available: 6,
            file_systems: vec![FileSystem { mounted_on: "/".into(), size: 2, free: 1 }],
            uptime: 7,
        }),
        guest_error: Some("why".into()),
    };
    let mut lines = vec![
        serde_json::to_string(&full).unwrap(),
        serde_json::to_string(&least).unwrap(),
        serde_json::to_string(&image).unwrap(),
        serde_json::to_string(&status).unwrap(),
        serde_json::to_string(&finding).unwrap(),
        serde_json::to_string(&command).unwrap(),
        serde_json::to_string(&[Exit::Signal(9), Exit::Lost]).unwrap(),
        serde_json::to_string(&ExecStarted { id: "main".into(), pid: 77 }).unwrap(),
    ];
    lines.extend([
        serde_json::to_string(&VmChanged { vm: least.clone(), changes: vec![change, gone] }).unwrap(),
        serde_json::to_string(&stats).unwrap(),
        serde_json::to_string(&VmStats { guest: None, guest_error: None, ..stats.clone() }).unwrap(),
        serde_json::to_string(&Attached { shell: false, reason: Some("why".into()) }).unwrap(),
    ]);
    lines.extend(dns().iter().map(|dns| serde_json::to_string(dns).unwrap()));
    lines.extend(events.iter().map(|event| serde_json::to_string(event).unwrap()));
    lines.extend(happenings.iter().map(|line| serde_json::to_string(line).unwrap()));
    lines
}

/// All that there can be of how the host is told names, and the least.
fn dns() -> [Dns; 2] {
    let full = Dns {
        wired: Wired::Resolved,
        resolves: true,
        name: "host.vm".into(),
        address: Some([10, 77, 0, 1].into()),
        domain: "vm".into(),
        server: Some("127.0.0.1:42069".parse().unwrap()),
        findings: vec![Finding { check: "names".into(), verdict: Verdict::Pass, found: "all".into(), fix: None }],
        by_hand: vec![ByHand { resolver: "dnsmasq".into(), place: "file".into(), lines: vec!["server=".into()] }],
    };
    let least = Dns { wired: Wired::HostsFile, address: None, server: None, findings: vec![], ..full.clone() };
    [full, least]
}

#[test]
fn it_is_as_programs_know_it() {
    let known: Vec<&str> = include_str!("json.snapshot").lines().collect();
    let now = all();
    for (now, known) in now.iter().zip(&known) {
        assert_eq!(now, known);
    }
    assert_eq!(now.len(), known.len(), "{now:#?}");
}
