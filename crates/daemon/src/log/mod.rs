//! The daemon's log: lines of JSON in a file, and the same for people on standard error.
//!
//! Whoever logs never waits. A thread for each of the two writes what waits in a bounded queue, so a frozen or full file system
//! costs lines, which are counted, and stops neither requests nor the daemon's end. `limits` bounds what guests can cause.

pub mod limits;
pub mod lossy;
pub mod rotated;

mod lines;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::limits::Limits;
use self::lines::Lines;
use self::rotated::Rotated;

/// How long the log may become before it is put aside, in bytes.
const MAX_LENGTH: u64 = 16 * 1024 * 1024;

/// How long the last lines may take at the daemon's end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The running log.
#[derive(Debug)]
pub struct Log {
    file: Lines,
    stderr: Lines,
    limits: Limits,
}

impl Log {
    /// Sets up the log of this process: appends to the file at `path`, and to standard error. `filter` says what is logged, such
    /// as `debug`; if it makes no sense, `info`. If the file cannot be written, standard error says so, and the daemon goes on.
    ///
    /// # Errors
    /// Those of starting threads.
    pub fn set_up(path: &Path, filter: &str) -> io::Result<Log> {
        let stderr = Lines::start("log-stderr", io::stderr(), |lost| plain(&lost_lines(lost)), |_| {})?;
        let file = Rotated::new(path.to_owned(), aside(path), MAX_LENGTH);
        let failed = {
            let (path, mut stderr) = (path.display().to_string(), stderr.clone());
            move |error: &io::Error| {
                let line =
                    plain(&format!("cannot write the log {path}, lines are lost until it can be written: {error}"));
                drop(stderr.write_all(line.as_bytes()));
            }
        };
        let file = Lines::start("log-file", file, |lost| json(&lost_lines(lost)), failed)?;
        let limits = Limits::default();
        let (to_file, to_stderr) = (file.clone(), stderr.clone());
        tracing_subscriber::registry()
            .with(EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info")))
            .with(limits.clone())
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(move || to_file.clone()))
            .with(tracing_subscriber::fmt::layer().compact().with_writer(move || to_stderr.clone()))
            .init();
        Ok(Log { file, stderr, limits })
    }

    /// Logs how many lines were left out, while the daemon runs. Does not end.
    pub fn tell_counts(&self) -> impl Future<Output = ()> + Send + use<> {
        self.limits.clone().tell_counts()
    }

    /// Waits until the last lines are written, for a second at most.
    pub fn finish(&self) {
        self.limits.tell();
        let deadline = Instant::now() + LAST_LINES;
        self.file.flush(deadline);
        self.stderr.flush(deadline);
    }
}

/// Where the older part of a log is.
fn aside(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

fn lost_lines(count: u64) -> String {
    format!("{count} lines of this log could not be written")
}

/// A line as the file has them.
fn json(message: &str) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        timestamp: String,
        level: &'static str,
        message: &'a str,
        target: &'static str,
    }
    let line = Line { timestamp: now(), level: "WARN", message, target: module_path!() };
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

/// A line as standard error has them.
fn plain(message: &str) -> String {
    format!("{}  WARN {}: {message}\n", now(), module_path!())
}

fn now() -> String {
    let mut text = String::new();
    // It cannot fail: a string has room.
    SystemTime.format_time(&mut format::Writer::new(&mut text)).ok();
    text
}
