//! The usual answers of the fake: one VM, `devbox`, whose commands run on this host, and whose files are taken and given by
//! this host's tar(1).

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use banger_api::error::ErrorCode;
use banger_api::exec::ExecRequest;
use banger_api::frame::Kind;
use banger_api::image::Image;
use banger_api::vm::{Lifetime, Vm, VmCreate};

use super::{Fake, Frames, Request, tool, vm};

/// Starts a fake with the usual answers. What is put into the guest lands in `guest` below its directory.
pub fn start() -> Fake {
    Fake::start(answer)
}

/// The directory that plays the guest's root.
pub fn root(fake: &Fake) -> PathBuf {
    fake.dir.path().join("guest")
}

fn answer(request: Request) {
    let root = request.home.join("guest");
    let path = request.path.clone();
    let words: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    match (request.method.as_str(), words.as_slice()) {
        ("GET", ["vms"]) => request.json(&[vm("devbox"), vm("database")]),
        ("GET", ["images"]) => request.json(&[image()]),
        ("POST", ["vms"]) => create(request),
        ("GET", ["vms", "devbox"]) | ("GET", ["vms", "devbox" | "swift-otter", "wait"]) => request.json(&vm("devbox")),
        ("DELETE", ["vms", "devbox" | "4f2a9c"]) | ("POST", ["vms", "devbox", "start" | "stop"]) => {
            let mut events = request.events();
            events.stage("vmm.stop", 4000);
            events.result(&vm("devbox"), 5000);
        }
        ("POST", ["vms", "devbox" | "swift-otter", "exec"]) => exec(request),
        ("POST", ["vms", "devbox", "commands", "main", "output"]) => {
            let mut frames = request.upgrade();
            frames.send(Kind::Message, r#"{"answer":"done"}"#);
            frames.send(Kind::Stdout, "one\n");
            frames.send(Kind::Stderr, "two\n");
            frames.send(Kind::Exit, r#"{"code":3}"#);
        }
        ("POST", ["vms", "devbox" | "swift-otter", "put"]) => put(request, root),
        ("POST", ["vms", "devbox" | "swift-otter", "get"]) => get(request, root),
        ("GET", ["vms", "devbox", "console"]) => {
            request.raw("HTTP/1.1 200 OK\r\nbanger-api: 1\r\ncontent-length: 5\r\n\r\nboot\n");
        }
        (_, ["vms", name, ..]) => {
            let message = format!("there is no VM {name}");
            request.error(ErrorCode::VmNotFound, &message, None);
        }
        _ => request.error(ErrorCode::Unsupported, "no such path", None),
    }
}

pub fn image() -> Image {
    Image {
        id: "aa11".into(),
        name: "debian".into(),
        default: true,
        system: "Debian GNU/Linux 12 (bookworm)".into(),
        kernel: "6.1.0-40-cloud-amd64".into(),
        size: 4 << 30,
        allocated: 600 << 20,
        packages: 200,
        manifest: "00ff".into(),
        work_seed: true,
        suite: "bookworm".into(),
        added: Vec::new(),
        created: 1_700_000_000,
        vms: vec!["devbox".into()],
    }
}

fn create(request: Request) {
    let create: VmCreate = request.parse();
    request.log.add(format!("create {}", String::from_utf8_lossy(&request.body)));
    if create.image.as_deref().is_some_and(|image| image != "debian") {
        let message = format!("there is no image {}", create.image.unwrap());
        return request.error(ErrorCode::ImageNotFound, &message, None);
    }
    let mut events = request.events();
    events.line(r#"{"event":"started","operation":"op1"}"#);
    events.stage("disk.clone", 3_000);
    events.stage("agent.ready", 200_000);
    let ephemeral = create.lifetime != Lifetime::Kept;
    events.result(&Vm { ephemeral, ..vm(create.name.as_deref().unwrap_or("swift-otter")) }, 210_000);
    if ephemeral {
        events.hold("the lease");
    }
}

/// Runs the command here, with pipes, in a process group of its own.
fn exec(request: Request) {
    let exec: ExecRequest = request.parse();
    request.log.add(format!("exec {}", String::from_utf8_lossy(&request.body)));
    if exec.detached {
        return request.json(&serde_json::json!({ "id": if exec.main { "main" } else { "7c1d" }, "pid": 5 }));
    }
    let mut frames = request.upgrade();
    let argv = if exec.login_shell { vec!["/bin/sh".to_owned()] } else { exec.argv };
    let args: Vec<&str> = argv[1..].iter().map(String::as_str).collect();
    if !["/", "/bin"].iter().any(|place| Path::new(place).join(&argv[0]).exists()) {
        let error = format!(r#"{{"answer":"error","code":"not_found","message":"cannot run '{}'"}}"#, argv[0]);
        frames.send(Kind::Message, error);
        return;
    }
    let mut command = tool(&argv[0], &args);
    let stdin = if exec.stdin { Stdio::piped() } else { Stdio::null() };
    command.envs(&exec.env).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    frames.send(Kind::Message, r#"{"answer":"started","pid":1}"#);
    let group = format!("-{}", child.id());
    let outputs = [
        pump(child.stdout.take().unwrap(), Kind::Stdout, frames.twin()),
        pump(child.stderr.take().unwrap(), Kind::Stderr, frames.twin()),
    ];
    let mut input = child.stdin.take();
    let (mut back, log) = (frames.twin(), frames.log.clone());
    std::thread::spawn(move || {
        while let Some(frame) = frames.next() {
            match frame.kind {
                Kind::Stdin if frame.payload.is_empty() => input = None,
                Kind::Stdin => drop(input.as_mut().map(|input| input.write_all(&frame.payload))),
                Kind::Signal => {
                    log.add(format!("signal {}", frame.payload[0]));
                    tool("/bin/kill", &[&format!("-{}", frame.payload[0]), "--", &group]).status().unwrap();
                }
                kind => log.add(format!("{kind:?} {:?}", frame.payload)),
            }
        }
        tool("/bin/kill", &["-1", "--", &group]).stderr(Stdio::null()).status().unwrap();
        log.add("hung up on the command");
    });
    let status = child.wait().unwrap();
    for output in outputs {
        output.join().unwrap();
    }
    back.log.add(format!("ended {status:?}"));
    back.send(
        Kind::Exit,
        match (status.code(), status.signal()) {
            (Some(code), _) => format!(r#"{{"code":{code}}}"#),
            (None, signal) => format!(r#"{{"signal":{}}}"#, signal.unwrap()),
        },
    );
}

fn pump(mut from: impl Read + Send + 'static, kind: Kind, mut to: Frames) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 128 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !to.send(kind, &buffer[..count]) {
                return;
            }
        }
    })
}

/// As the agent's rule for the result's name: `path`, or `path/name` if `path` is a directory.
fn put(request: Request, root: PathBuf) {
    let (path, name) = (request.text("path"), request.text("name"));
    request.log.add(format!("put {path} {name}"));
    let target = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::create_dir_all(&target).unwrap();
    let mut frames = request.upgrade();
    frames.send(Kind::Message, r#"{"answer":"done"}"#);
    let mut tar =
        tool("/bin/tar", &["-x", "-p", "-C", target.to_str().unwrap()]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = tar.stdin.take().unwrap();
    let whole = loop {
        match frames.next() {
            Some(frame) if frame.kind == Kind::Data && frame.payload.is_empty() => break true,
            Some(frame) => input.write_all(&frame.payload).unwrap(),
            None => break false,
        }
    };
    drop(input);
    let unpacked = tar.wait().unwrap().success();
    if whole {
        assert!(unpacked);
        frames.send(Kind::Data, "");
    } else {
        frames.log.add("put broken off");
    }
}

/// Gives a path of the guest below `root`, as the agent does: named from its last component on.
fn get(request: Request, root: PathBuf) {
    let asked = request.text("path");
    // As the agent, which keeps what goes to `.` in root's home.
    let path = root.join(asked.strip_prefix("/root/").unwrap_or(asked.trim_start_matches('/')));
    let (directory, name) = (path.parent().unwrap().to_str().unwrap(), path.file_name().unwrap().to_str().unwrap());
    let pattern = request.query.contains_key("pattern");
    let mut frames = request.upgrade();
    let mut arguments = vec!["-c".to_owned(), "-S".to_owned(), "-C".to_owned(), directory.to_owned()];
    if pattern {
        let listed = tool("/bin/sh", &["-c", &format!("ls -d -- {name}")]).current_dir(directory).output().unwrap();
        let names = String::from_utf8(listed.stdout).unwrap();
        frames.send(Kind::Message, format!(r#"{{"answer":"files","count":{}}}"#, names.lines().count()));
        arguments.extend(names.lines().map(str::to_owned));
    } else {
        frames.send(Kind::Message, r#"{"answer":"done"}"#);
        arguments.push(name.to_owned());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut tar = tool("/bin/tar", &arguments).stdout(Stdio::piped()).spawn().unwrap();
    pump(tar.stdout.take().unwrap(), Kind::Data, frames.twin()).join().unwrap();
    assert!(tar.wait().unwrap().success());
    frames.send(Kind::Data, "");
}
