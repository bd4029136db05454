//! A daemon that is none: it answers on a unix socket as the API's table says, and runs "guest" commands on this host.
//! It shares no code with the client but the API's types and frames.

#![allow(clippy::unwrap_used, reason = "a fake that cannot go on fails its test")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use banger_api::error::{ApiError, ErrorCode};
use banger_api::frame::{self, Frame, Kind};
use banger_api::vm::{RestartPolicy, Vm, VmState};
use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub mod guest;
pub mod screen;

/// How long anything here may take; far more than it does.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running fake.
pub struct Fake {
    pub dir: tempfile::TempDir,
    pub log: Log,
}

/// What happened, in order; tests wait for lines of it.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Log {
    pub fn add(&self, line: impl Into<String>) {
        self.0.0.lock().unwrap().push(line.into());
        self.0.1.notify_all();
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits for a line that begins so.
    pub fn wait(&self, start: &str) -> String {
        self.wait_for(start, 1)
    }

    /// Waits for that many lines that begin so; the last of them.
    pub fn wait_for(&self, start: &str, count: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().filter(|line| line.starts_with(start)).nth(count - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line '{start}' in {lines:#?}");
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}

impl Fake {
    /// Listens, and hands each request to `answer`, in a thread of its own.
    pub fn start(answer: impl Fn(Request) + Send + Sync + 'static) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("bangerd.sock")).unwrap();
        let log = Log::default();
        let (answer, lines, home) = (Arc::new(answer), log.clone(), dir.path().to_owned());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (answer, log, home) = (answer.clone(), lines.clone(), home.clone());
                std::thread::spawn(move || {
                    if let Some(request) = Request::read(stream, log, home) {
                        answer(request);
                    }
                });
            }
        });
        Fake { dir, log }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("bangerd.sock")
    }

    /// The command line, told to use this daemon.
    pub fn banger(&self, args: &[&str]) -> Command {
        let mut command = banger(self.dir.path(), args);
        command.env("BANGER_HOST", self.socket());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::new(self.banger(args).stdin(Stdio::null()).output().unwrap())
    }
}

/// The command line in an environment of its own, below `dir`.
pub fn banger(dir: &Path, args: &[&str]) -> Command {
    let mut command = unhindered(env!("CARGO_BIN_EXE_banger"));
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", dir).env("TERM", "xterm");
    command.env("BANGER_RUNTIME_DIR", dir).env("BANGER_STATE_DIR", dir);
    command
}

/// A program of this host.
pub fn tool(program: &str, args: &[&str]) -> Command {
    let mut command = unhindered(program);
    command.args(args);
    command
}

/// A program that ignores no signal, even if these tests run under nohup(1) or in a shell's background and inherit
/// ignored signals.
#[expect(
    clippy::disallowed_methods,
    reason = "tests start the program that they test, and tools that judge what it did"
)]
fn unhindered(program: &str) -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=HUP,INT,QUIT,TERM", "--", program]);
    command
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn new(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Waits for a child's end, but not for ever.
pub fn wait(mut child: Child) -> Ran {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ran::new(child.wait_with_output().unwrap())
}

/// One request, and the connection to answer on.
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: HashMap<String, Vec<u8>>,
    pub body: Vec<u8>,
    pub log: Log,
    /// The fake's directory.
    pub home: PathBuf,
    stream: UnixStream,
}

impl Request {
    fn read(mut stream: UnixStream, log: Log, home: PathBuf) -> Option<Request> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).ok()? == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).unwrap();
        assert!(head.to_ascii_lowercase().contains("banger-api: 1"), "{head}");
        log.add(format!("{method} {target}"));
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let query = pairs.map(|(name, value)| (name.to_owned(), unescape(value))).collect();
        let path = String::from_utf8(unescape(path)).unwrap();
        Some(Request { method, path, query, body, log, home, stream })
    }

    pub fn parse<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.query[name].clone()).unwrap()
    }

    pub fn raw(mut self, answer: &str) {
        self.stream.write_all(answer.as_bytes()).unwrap();
    }

    pub fn json(self, value: &impl Serialize) {
        self.answer(200, &serde_json::to_string(value).unwrap());
    }

    pub fn error(self, code: ErrorCode, message: &str, help: Option<&str>) {
        let error =
            ApiError { code, message: message.into(), help: help.map(Into::into), also: Vec::new(), operation: None };
        self.fail(&error);
    }

    pub fn fail(self, error: &ApiError) {
        self.answer(error.code.status(), &serde_json::to_string(error).unwrap());
    }

    fn answer(mut self, status: u16, body: &str) {
        let head = format!("HTTP/1.1 {status} X\r\n{VERSION}content-length: {}\r\n\r\n", body.len());
        drop(self.stream.write_all((head + body).as_bytes()));
    }

    /// Answers with events: each a line of JSON.
    pub fn events(mut self) -> Events {
        // Who has gone meanwhile is heard of when its next word is waited for.
        drop(self.stream.write_all(format!("HTTP/1.1 200 OK\r\n{VERSION}\r\n").as_bytes()));
        Events { stream: self.stream, log: self.log }
    }

    /// Answers with frames.
    pub fn upgrade(mut self) -> Frames {
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: banger-stream\r\n";
        self.stream.write_all(format!("{head}{VERSION}\r\n").as_bytes()).unwrap();
        Frames { stream: self.stream, received: BytesMut::new(), log: self.log }
    }
}

pub const VERSION: &str = "banger-api: 1\r\nbanger-version: 0.1.0\r\n";

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            plain.push(u8::from_str_radix(&text[at + 1..at + 3], 16).unwrap());
            at += 3;
        } else {
            plain.push(bytes[at]);
            at += 1;
        }
    }
    plain
}

/// An answer of events.
pub struct Events {
    stream: UnixStream,
    log: Log,
}

impl Events {
    pub fn line(&mut self, line: &str) {
        drop(self.stream.write_all(format!("{line}\n").as_bytes()));
    }

    pub fn stage(&mut self, name: &str, micros: u64) {
        self.line(&format!(r#"{{"event":"stage_started","stage":"{name}"}}"#));
        self.line(&format!(r#"{{"event":"stage_finished","stage":"{name}","micros":{micros}}}"#));
    }

    pub fn result(&mut self, result: &impl Serialize, micros: u64) {
        let result = serde_json::to_string(result).unwrap();
        self.line(&format!(r#"{{"event":"result","result":{result},"micros":{micros}}}"#));
    }

    pub fn error(&mut self, error: &ApiError) {
        let error = serde_json::to_string(error).unwrap();
        self.line(&format!(r#"{{"event":"error","error":{error}}}"#));
    }

    /// Waits until the client hangs up, and says so in the log.
    pub fn hold(mut self, what: &str) {
        drop(self.stream.read_to_end(&mut Vec::new()));
        self.log.add(format!("hung up on {what}"));
    }
}

/// An upgraded connection.
pub struct Frames {
    pub stream: UnixStream,
    pub received: BytesMut,
    pub log: Log,
}

impl Frames {
    /// False where the client has hung up.
    pub fn send(&mut self, kind: Kind, payload: impl AsRef<[u8]>) -> bool {
        let mut bytes = BytesMut::new();
        frame::encode(&mut bytes, &Frame::new(kind, payload.as_ref().to_vec())).unwrap();
        self.stream.write_all(&bytes).is_ok()
    }

    /// None where the client has hung up.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = frame::decode(&mut self.received).unwrap() {
                return Some(frame);
            }
            let mut buffer = vec![0; 64 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// The sending half of the same connection.
    pub fn twin(&self) -> Frames {
        Frames { stream: self.stream.try_clone().unwrap(), received: BytesMut::new(), log: self.log.clone() }
    }
}

/// A VM as the fake has it.
pub fn vm(name: &str) -> Vm {
    Vm {
        id: if name == "database" { "77aa01" } else { "4f2a9c" }.into(),
        name: name.into(),
        state: VmState::Running,
        reason: None,
        generation: 3,
        image: "debian".into(),
        cpus: 2,
        memory: 1 << 30,
        disk: 8 << 30,
        vmm: "qemu".into(),
        accelerator: Some("kvm".into()),
        pid: Some(4711),
        boot_id: Some("0d9b".into()),
        ephemeral: false,
        net: banger_api::vm::Net::None,
        address: None,
        publish: Vec::new(),
        restart: RestartPolicy::No,
        starts_again: None,
        workdir: None,
        user: None,
        created: 1_700_000_000,
        started: None,
        host_key: "ssh-ed25519 AAAA".into(),
    }
}
