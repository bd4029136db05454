//! `ssh`, `proxy`, `known-hosts` and `ssh-config`, with a fake daemon and a fake ssh.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use crate::support::{Fake, Frames, Ran, Request, vm, wait};
use banger_api::daemon::{Status, Version};
use banger_api::error::ErrorCode;
use banger_api::frame::Kind;
use banger_api::vm::{Vm, VmSshKeys, VmState};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// A daemon whose VMs are in the domain `lab.test`: `devbox`, and `down`, which is stopped. `carry` is what listens in `devbox`.
fn start(carry: impl Fn(&mut Frames) + Send + Sync + 'static) -> Fake {
    Fake::start(move |request: Request| {
        let path = request.path.clone();
        let words: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        match (request.method.as_str(), words.as_slice()) {
            ("GET", ["daemon"]) => request.json(&Status {
                version: Version { version: "0.1.0".into(), api: 1, protocol: 4 },
                pid: 1,
                started: 0,
                resident: 0,
                vms: 1,
                running: 1,
                state_dir: "/state".into(),
                domain: "lab.test".into(),
                log: "/log".into(),
            }),
            ("GET", ["vms", "devbox"]) | ("GET", ["vms", "4f2a9c", "wait"]) => request.json(&vm("devbox")),
            ("GET", ["vms", "down"]) => request.json(&Vm { state: VmState::Stopped, ..vm("down") }),
            ("POST", ["vms", "4f2a9c", "ssh-keys"]) => {
                let keys: VmSshKeys = request.parse();
                request.log.add(format!("key {}", keys.ssh_keys.join(",")));
                request.json(&vm("devbox"));
            }
            ("POST", ["vms", "4f2a9c", "dial"]) => {
                request.log.add(format!("dial {}", String::from_utf8_lossy(&request.body)));
                let mut frames = request.upgrade();
                frames.send(Kind::Message, r#"{"answer":"done"}"#);
                carry(&mut frames);
            }
            (_, ["vms", name, ..]) => {
                let message = format!("there is no VM {name}");
                request.error(ErrorCode::VmNotFound, &message, Some("`banger ls` lists all VMs"));
            }
            _ => request.error(ErrorCode::Unsupported, "no such path", None),
        }
    })
}

fn data(frames: &mut Frames) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(frame) = frames.next() {
        assert_eq!(frame.kind, Kind::Data);
        if frame.payload.is_empty() {
            break;
        }
        bytes.extend_from_slice(&frame.payload);
    }
    bytes
}

#[test]
fn a_proxy_carries_bytes_both_ways_and_answers_after_its_inputs_end() {
    let fake = start(|frames| {
        let heard = data(frames);
        frames.send(Kind::Data, &heard[..3]);
        frames.send(Kind::Data, &heard[3..]);
        frames.send(Kind::Data, "");
    });
    let mut child = fake.banger(&["vm", "proxy", "www.devbox.lab.test", "80"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"question").unwrap();
    let ran = wait(child);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "question", ""));
    assert_eq!(fake.log.wait("dial "), r#"dial {"port":80}"#);
    assert!(!fake.log.lines().iter().any(|line| line.starts_with("key ")), "{:?}", fake.log.lines());
}

#[test]
fn a_proxys_output_ends_before_its_input_does() {
    let fake = start(|frames| {
        frames.send(Kind::Data, "bye");
        frames.send(Kind::Data, "");
        let heard = data(frames);
        frames.log.add(format!("heard {}", String::from_utf8(heard).unwrap()));
    });
    let mut child = fake.banger(&["proxy", "devbox"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "bye");
    child.stdin.take().unwrap().write_all(b"late").unwrap();
    assert_eq!(wait(child).code, Some(0));
    assert_eq!(fake.log.wait("heard "), "heard late");
    assert!(fake.log.wait("key ").starts_with("key ssh-ed25519 "));
}

#[test]
fn a_reader_that_has_gone_ends_a_proxy_without_a_word() {
    let fake = start(|frames| while frames.send(Kind::Data, [0; 100_000]) {});
    let mut child = fake.banger(&["proxy", "devbox", "80"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    // SIGPIPE's code, whatever is still to be sent.
    let _stdin = child.stdin.take();
    let ran = wait(child);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""));
}

#[test]
fn what_stands_in_a_proxys_way_is_a_line() {
    let fake = start(|frames| assert!(frames.send(Kind::Failed, r#"{"code":"failed","message":"it broke"}"#)));
    let line = |args: &[&str]| {
        let ran = fake.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
        ran.stderr
    };
    assert_eq!(line(&["vm", "proxy", "down"]), "banger: down is stopped; start it with: banger vm start down\n");
    assert_eq!(line(&["vm", "proxy", "none"]), "banger: there is no VM none; `banger ls` lists all VMs\n");
    let elsewhere = "banger: devbox.vm is no VM: names of VMs end in .lab.test; `banger ls` lists all VMs\n";
    assert_eq!(line(&["vm", "proxy", "devbox.vm"]), elsewhere);
    assert_eq!(line(&["vm", "proxy", "devbox"]), "banger: it broke\n");
}

#[test]
fn a_host_key_is_told_as_ssh_asks_for_it() {
    let fake = start(|_| ());
    for name in ["devbox.lab.test", "[devbox.lab.test]:2222"] {
        assert_eq!(fake.run(&["vm", "known-hosts", name]).stdout, format!("{name} ssh-ed25519 AAAA\n"));
    }
    assert_eq!(fake.run(&["vm", "known-hosts", "github.com"]).code, Some(1));
}

/// Runs banger with a program `ssh` of these lines in its PATH.
fn with_ssh(fake: &Fake, script: &str, args: &[&str]) -> Ran {
    let path = fake.dir.path().join("ssh");
    std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = fake.banger(args);
    command.env("PATH", fake.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    wait(command.spawn().unwrap())
}

#[test]
fn ssh_is_told_how_to_get_there_and_its_code_is_the_code() {
    let fake = start(|_| ());
    let args = ["ssh", "-A", "-L", "1:a:2", "-tt", "--option", "Port=22", "dev@devbox", "--", "make", "-j", "a b"];
    let ran = with_ssh(&fake, "printf '%s\\n' \"$@\"; exit 9", &args);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(9), ""), "{ran:?}");
    let (banger, home) = (env!("CARGO_BIN_EXE_banger"), fake.dir.path().display());
    let command = format!("'{banger}' --host '{}' vm", fake.socket().display());
    let expected = format!(
        "-A\n-t\n-t\n-L\n1:a:2\n-o\nPort=22\n-o\nProxyCommand={command} proxy devbox %p\n-o\nKnownHostsCommand={command} \
         known-hosts %H\n-o\nUserKnownHostsFile=/dev/null\n-o\nGlobalKnownHostsFile=/dev/null\n-o\n\
         StrictHostKeyChecking=yes\n-o\nHostKeyAlgorithms=ssh-ed25519\n-o\nCheckHostIP=no\n-o\nUpdateHostKeys=no\n-o\n\
         IdentityFile=\"{home}/.local/share/banger/id_ed25519\"\n-o\nIdentitiesOnly=yes\n-l\ndev\n--\ndevbox.lab.test\n\
         make\n-j\na b\n"
    );
    assert_eq!(ran.stdout, expected);
    assert_eq!(with_ssh(&fake, "kill -15 $$", &["ssh", "devbox"]).code, Some(143));
}

#[test]
fn who_waits_for_ssh_has_the_terminal_while_ssh_is_stopped() {
    let fake = start(|_| ());
    let path = fake.dir.path().join("ssh");
    std::fs::write(&path, "#!/bin/sh\nkill -STOP $$\nexit 5\n").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = fake.banger(&["ssh", "devbox"]);
    // A job of its own, as a shell makes one: it is stopped as a whole, and goes on as a whole.
    command.env("PATH", fake.dir.path()).process_group(0);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let status = rustix::process::waitid(
        WaitId::Pid(pid),
        WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    );
    assert!(status.unwrap().unwrap().stopped());
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(wait(child).code, Some(5));
}

#[test]
fn an_ssh_that_is_missing_or_old_is_said() {
    let fake = start(|_| ());
    let mut command = fake.banger(&["ssh", "devbox"]);
    let ran = Ran::new(command.env("PATH", fake.dir.path().join("none")).output().unwrap());
    let help = "help: install OpenSSH's client: apt-get install openssh-client\n";
    assert_eq!((ran.code, ran.stderr), (Some(125), format!("error: there is no program ssh in PATH\n{help}")));
    let script = "[ \"$1\" = -V ] && echo OpenSSH_8.2p1 Ubuntu >&2; exit 255";
    let ran = with_ssh(&fake, script, &["ssh", "devbox"]);
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.starts_with("help: this is OpenSSH 8.2, and `banger ssh` needs 8.5 or later"), "{ran:?}");
    let script = "[ \"$1\" = -V ] && echo OpenSSH_9.2p1 Debian >&2; exit 255";
    assert_eq!(with_ssh(&fake, script, &["ssh", "devbox"]).stderr, "");
}

#[test]
fn ssh_config_is_printed_installed_and_taken_back() {
    let fake = start(|_| ());
    let home = fake.dir.path();
    let printed = fake.run(&["ssh-config"]).stdout;
    assert!(printed.contains("\nHost *.lab.test !host.lab.test\n"), "{printed}");
    let users = home.join(".ssh/config");
    std::fs::create_dir(home.join(".ssh")).unwrap();
    std::fs::write(&users, "Host a\n").unwrap();
    let (own, at) = (home.join(".config/banger/ssh_config"), |path: &Path| path.display().to_string());
    let ran = fake.run(&["ssh-config", "--install"]);
    let told = format!("{} includes {}: ssh NAME.lab.test reaches the VM NAME\n", at(&users), at(&own));
    assert_eq!((ran.code, ran.stderr), (Some(0), told));
    assert_eq!(std::fs::read_to_string(&own).unwrap(), printed);
    let ran = fake.run(&["ssh-config", "--install"]);
    assert_eq!(ran.stderr, format!("{} included {} already, as it is now\n", at(&users), at(&own)));
    assert_eq!(fake.run(&["ssh-config", "--uninstall"]).code, Some(0));
    assert_eq!(std::fs::read_to_string(&users).unwrap(), "Host a\n");
    assert_eq!(fake.run(&["ssh-config", "--install", "--uninstall"]).code, Some(2));
}

#[test]
fn a_new_vm_lets_the_callers_keys_in() {
    let fake = crate::support::guest::start();
    assert_eq!(fake.run(&["create", "-q", "devbox"]).code, Some(0));
    let sent = fake.log.wait("create ");
    assert!(sent.contains(r#""ssh_keys":["ssh-ed25519 "#), "{sent}");
    assert!(fake.dir.path().join(".local/share/banger/id_ed25519").is_file());
}
