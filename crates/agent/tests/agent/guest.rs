//! A fake guest and a client of it, as the daemon is one.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use banger_linux::process::{Launch, Leash, Process, Program, Stream as Stdio};
use banger_protocol::boot::Boot;
use banger_protocol::call::{Answer, Call, CallError, Command, Exec, Exit};
use banger_protocol::frame::{self, Frame, FrameError, Kind};
use banger_protocol::hello::{self, Welcome};
use banger_protocol::session::{self, Opener, Stream};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

/// A running agent program.
pub struct Guest {
    dir: TempDir,
    process: Option<Leash>,
    extra: Vec<String>,
}

/// A session with it.
pub struct Session {
    opener: Opener,
    pub welcome: Welcome,
}

/// One call's stream, after its answer.
pub struct Reply {
    pub answer: Answer,
    stream: Stream,
    seen: Vec<u8>,
}

/// How a command went.
#[derive(Debug)]
pub struct Outcome {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit: Exit,
}

/// Far more than anything here takes.
pub const LONG: Duration = Duration::from_secs(20);

/// Runs a command to its end.
pub async fn run(session: &Session, exec: Exec) -> (String, String, Exit) {
    let outcome = session.exec(exec).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(outcome.stdout), text(outcome.stderr), outcome.exit)
}

pub fn shell(script: &str) -> Exec {
    Exec { argv: vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()], ..Exec::default() }
}

pub async fn write(connection: &mut UnixStream, bytes: &[u8]) {
    connection.write_all(bytes).await.unwrap();
}

impl Guest {
    pub fn start() -> Guest {
        Guest::start_with(&[])
    }

    pub fn start_with(extra: &[&str]) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("boot.json"), serde_json::to_vec(&Boot::default()).unwrap()).unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let mut guest = Guest { dir, process: None, extra: extra.iter().map(|&word| word.to_owned()).collect() };
        guest.boot();
        guest
    }

    fn boot(&mut self) {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let mut args: Vec<String> = vec!["--fake-guest".into(), "--listen".into(), path("socket")];
        args.extend(["--root".into(), path("root"), "--boot".into(), path("boot.json")]);
        args.extend(self.extra.clone());
        let mut launch = Launch::new(Program::Agent(env!("CARGO_BIN_EXE_banger-agent").into()), args);
        launch.stderr = Stdio::Inherit;
        launch.die_with_parent = true;
        self.process = Some(Leash::start(launch).unwrap());
    }

    /// Pulls the plug, and boots again.
    pub fn reboot(&mut self) {
        self.process = None;
        std::fs::remove_file(self.dir.path().join("socket")).unwrap();
        self.boot();
    }

    pub fn root(&self) -> PathBuf {
        std::fs::canonicalize(self.dir.path().join("root")).unwrap()
    }

    pub fn write_program(&self, name: &str, text: &str) {
        let path = self.root().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub async fn connect(&self) -> UnixStream {
        let socket = self.dir.path().join("socket");
        tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                match UnixStream::connect(&socket).await {
                    Ok(stream) => return stream,
                    // The program is still starting: there is no event for a socket that appears.
                    Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        })
        .await
        .unwrap()
    }

    pub async fn session(&self) -> Session {
        Session::begin(self.connect().await).await
    }

    pub fn kill(&self, pid: &str) {
        Process::open(pid.parse().unwrap(), None).unwrap().signal(Signal::KILL).unwrap();
    }

    /// Waits on the process itself, not on what the agent says of it.
    pub async fn wait_until_gone(&self, pid: &str, within: Duration) {
        let Ok(process) = Process::open(pid.parse().unwrap(), None) else { return };
        tokio::time::timeout(within, process.ended()).await.expect("the process lives").unwrap();
    }

    pub async fn wait_for_end(&mut self) {
        let ended = self.process.take().unwrap().ended();
        assert!(tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().unwrap().success());
    }
}

impl Session {
    pub async fn begin(mut connection: UnixStream) -> Session {
        static NONCE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let nonce = NONCE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let welcome = hello::greet(&mut connection, &format!("{nonce:032x}")).await.unwrap();
        let (opener, drive) = session::open(connection);
        tokio::spawn(drive);
        Session { opener, welcome }
    }

    pub async fn call(&self, call: &Call) -> Reply {
        self.send(&serde_json::to_vec(call).unwrap()).await
    }

    pub async fn call_raw(&self, json: &[u8]) -> Answer {
        self.send(json).await.answer
    }

    async fn send(&self, json: &[u8]) -> Reply {
        let mut stream = self.opener.open().await.unwrap();
        frame::write(&mut stream, &Frame::new(Kind::Message, json.to_vec())).await.unwrap();
        let answer = frame::read(&mut stream).await.unwrap().parse().unwrap();
        Reply { answer, stream, seen: Vec::new() }
    }

    pub async fn start(&self, exec: Exec) -> Result<Reply, CallError> {
        let call = self.call(&Call::Exec(exec)).await;
        match call.answer {
            Answer::Error(error) => Err(error),
            _ => Ok(call),
        }
    }

    pub async fn exec(&self, exec: Exec) -> Result<Outcome, CallError> {
        Ok(self.start(exec).await?.outcome().await)
    }

    pub async fn commands(&self) -> Vec<Command> {
        match self.call(&Call::Commands).await.answer {
            Answer::Commands { commands } => commands,
            other => panic!("{other:?}"),
        }
    }
}

impl Reply {
    pub async fn next(&mut self) -> Frame {
        frame::read(&mut self.stream).await.unwrap()
    }

    pub async fn frame(&mut self, frame: &Frame) {
        frame::write(&mut self.stream, frame).await.unwrap();
    }

    pub async fn send(&mut self, kind: Kind, payload: &[u8]) {
        self.frame(&Frame::new(kind, payload.to_vec())).await;
    }

    /// Whether nothing follows.
    pub async fn ended(&mut self) -> bool {
        matches!(frame::read(&mut self.stream).await, Err(FrameError::Ended))
    }

    /// Everything up to `mark`.
    pub async fn until(&mut self, mark: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = text.find(mark) {
                self.seen.drain(..at + mark.len());
                return text[..at + mark.len()].to_owned();
            }
            let frame = self.next().await;
            assert_eq!(frame.kind, Kind::Stdout, "{frame:?} before {mark:?}, after {text:?}");
            self.seen.extend_from_slice(&frame.payload);
        }
    }

    pub async fn first_line(&mut self) -> String {
        self.until("\n").await.trim().to_owned()
    }

    /// Everything up to the end.
    pub async fn outcome(&mut self) -> Outcome {
        let call = self;
        let mut outcome = Outcome { stdout: std::mem::take(&mut call.seen), stderr: Vec::new(), exit: Exit::Lost };
        loop {
            let frame = call.next().await;
            match frame.kind {
                Kind::Stdout => outcome.stdout.extend_from_slice(&frame.payload),
                Kind::Stderr => outcome.stderr.extend_from_slice(&frame.payload),
                Kind::Exit => {
                    outcome.exit = frame.parse().unwrap();
                    return outcome;
                }
                Kind::Data if frame.payload.is_empty() => return outcome,
                other => panic!("{other:?}: {:?}", frame.payload),
            }
        }
    }
}
