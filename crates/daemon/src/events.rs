//! What happens, for whoever follows it: a numbered, bounded memory of changes. Fed by the VMs' owners, by image builds and
//! by operations; read by `api/events.rs`.
//!
//! A reader has no queue of its own, only the number of what it wants next: a slow one costs nothing, and is told so when
//! what it wants is forgotten. The lock guards this memory alone and is never held over an await.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_api::events::{Change, Line};
use banger_api::image::Image;
use banger_api::vm::Vm;
use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use crate::context::unix_nanos;

/// How many changes are remembered.
pub const REMEMBERED: usize = 4096;

/// How many bytes they may have together, as lines: some have an image with all of its VMs' names.
const REMEMBERED_BYTES: usize = 4 * 1024 * 1024;

/// How many bytes a reader is given at once, but for a line that is longer.
const BATCH: usize = 64 * 1024;

/// What happens in one run of a daemon.
#[derive(Debug)]
pub struct Changes {
    run: u64,
    memory: Mutex<Memory>,
    latest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The number of the last change; the first one is 1.
    last: u64,
    /// The last changes, as lines.
    lines: VecDeque<Bytes>,
    /// How many bytes these are.
    bytes: usize,
    /// Every VM as it was told last.
    vms: HashMap<String, Vm>,
    /// The number of the last change of an image.
    image: u64,
    closed: bool,
}

/// Where in the stream of changes a client is: the run of the daemon, and the last change that it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    run: u64,
    number: u64,
}

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not of the form that the lines of the stream have")]
pub struct NoToken;

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.run, self.number)
    }
}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Token, NoToken> {
        let (run, number) = text.split_once('-').ok_or(NoToken)?;
        let run = u64::from_str_radix(run, 16).map_err(|_| NoToken)?;
        let number = number.parse().map_err(|_| NoToken)?;
        let token = Token { run, number };
        // One text for each token: no signs, no capitals, no other count of zeros.
        if token.to_string() == text { Ok(token) } else { Err(NoToken) }
    }
}

impl Changes {
    /// Nothing has happened yet. `run` tells this daemon's tokens from those of the ones before.
    pub fn new(run: u64) -> Changes {
        Changes { run, memory: Mutex::default(), latest: watch::Sender::new(0) }
    }

    /// Something has happened.
    pub fn tell(&self, change: Change) {
        let mut memory = self.memory();
        if matches!(change, Change::ImageBuilt { .. } | Change::ImageRemoved { .. }) {
            memory.image = memory.last + 1;
        }
        self.remember(&mut memory, change);
    }

    /// A VM as it became. It is told where it differs from what was told last.
    pub fn vm(&self, vm: Vm) {
        let mut memory = self.memory();
        let change = match memory.vms.insert(vm.id.clone(), vm.clone()) {
            Some(before) if before == vm => return,
            Some(_) => Change::VmChanged { vm },
            None => Change::VmCreated { vm },
        };
        self.remember(&mut memory, change);
    }

    /// A VM that is gone, as it was last.
    pub fn vm_gone(&self, vm: Vm) {
        let mut memory = self.memory();
        if memory.vms.remove(&vm.id).is_some() {
            self.remember(&mut memory, Change::VmRemoved { vm });
        }
    }

    /// No more happens: every reader gets what it has not read yet, and then its end.
    pub fn close(&self) {
        self.memory().closed = true;
        self.latest.send_modify(|_| ());
    }

    /// The number of the last change of an image, for [`Changes::reset`].
    pub fn last_of_images(&self) -> u64 {
        self.memory().image
    }

    /// All that there is as one line, and a reader of what comes after. `images` were listed after `as_of` was asked for; there
    /// is no answer where they have changed since.
    pub fn reset(self: &Arc<Self>, images: Vec<Image>, as_of: u64) -> Option<(Bytes, Reader)> {
        let memory = self.memory();
        if memory.image != as_of {
            return None;
        }
        let mut vms: Vec<Vm> = memory.vms.values().cloned().collect();
        vms.sort_by(|one, two| (one.created, &one.name).cmp(&(two.created, &two.name)));
        let number = memory.last;
        drop(memory);
        Some((self.line(number, Change::Reset { vms, images }), self.reader(number)))
    }

    /// A reader of what came after `since`, where that is still known.
    pub fn resume(self: &Arc<Self>, since: Token) -> Option<Reader> {
        let memory = self.memory();
        let known = since.run == self.run && since.number <= memory.last && memory.has(since.number + 1);
        drop(memory);
        known.then(|| self.reader(since.number))
    }

    fn reader(self: &Arc<Self>, read: u64) -> Reader {
        Reader { changes: Arc::clone(self), latest: self.latest.subscribe(), read, over: false }
    }

    fn remember(&self, memory: &mut Memory, change: Change) {
        memory.last += 1;
        let line = self.line(memory.last, change);
        memory.bytes += line.len();
        memory.lines.push_back(line);
        while memory.lines.len() > REMEMBERED || memory.bytes > REMEMBERED_BYTES {
            memory.bytes -= memory.lines.pop_front().map_or(0, |line| line.len());
        }
        self.latest.send_replace(memory.last);
    }

    fn line(&self, number: u64, change: Change) -> Bytes {
        let token = Token { run: self.run, number }.to_string();
        let line = Line { token, at: unix_nanos() / 1000, change };
        let mut line = serde_json::to_vec(&line).expect("the API's types have string keys and no failing parts");
        line.push(b'\n');
        line.into()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Whether this change is remembered, or is the next to come.
    fn has(&self, number: u64) -> bool {
        number + self.lines.len() as u64 > self.last
    }

    /// What comes after a number: some lines, and the number of the last of them.
    fn after(&self, number: u64) -> (Bytes, u64) {
        let first = self.last + 1 - self.lines.len() as u64;
        let skipped = usize::try_from(number + 1 - first).unwrap_or(usize::MAX);
        let mut batch = BytesMut::new();
        let mut last = number;
        for line in self.lines.iter().skip(skipped) {
            if !batch.is_empty() && batch.len() + line.len() > BATCH {
                break;
            }
            batch.extend_from_slice(line);
            last += 1;
        }
        (batch.freeze(), last)
    }
}

/// Somebody who follows what happens.
#[derive(Debug)]
pub struct Reader {
    changes: Arc<Changes>,
    latest: watch::Receiver<u64>,
    read: u64,
    over: bool,
}

impl Reader {
    /// The next lines, when there are some; nothing after the last.
    pub async fn next(&mut self) -> Option<Bytes> {
        while !self.over {
            self.latest.borrow_and_update();
            if let Some(lines) = self.ready() {
                return Some(lines);
            }
            if !self.over && self.latest.changed().await.is_err() {
                return None;
            }
        }
        None
    }

    fn ready(&mut self) -> Option<Bytes> {
        let memory = self.changes.memory();
        if !memory.has(self.read + 1) {
            self.over = true;
            drop(memory);
            return Some(self.changes.line(self.read, Change::Lagged));
        }
        if self.read < memory.last {
            let (lines, last) = memory.after(self.read);
            self.read = last;
            return Some(lines);
        }
        self.over = memory.closed;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::events::Outcome;

    fn happening(number: usize) -> Change {
        Change::OperationFinished {
            operation: number.to_string(),
            verb: "test".into(),
            on: None,
            outcome: Outcome::Done,
            code: None,
            micros: 0,
        }
    }

    fn parse(lines: &[u8]) -> Vec<Line> {
        lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect()
    }

    #[test]
    fn a_token_has_one_text() {
        let token = Token { run: 0xab, number: 7 };
        assert_eq!(token.to_string(), "00000000000000ab-7");
        assert_eq!("00000000000000ab-7".parse(), Ok(token));
        for text in [
            "",
            "-",
            "ab-7",
            "00000000000000AB-7",
            "00000000000000ab-07",
            "00000000000000ab-+7",
            "00000000000000ab-18446744073709551616",
        ] {
            assert_eq!(text.parse::<Token>(), Err(NoToken), "{text}");
        }
    }

    #[tokio::test]
    async fn a_reader_gets_everything_in_order_and_once() {
        let changes = Arc::new(Changes::new(1));
        let (first, mut reader) = changes.reset(Vec::new(), 0).unwrap();
        assert!(matches!(parse(&first)[0].change, Change::Reset { .. }));
        for number in 0..1000 {
            changes.tell(happening(number));
        }
        changes.close();
        let mut read = Vec::new();
        while let Some(lines) = reader.next().await {
            read.extend(parse(&lines));
        }
        assert_eq!(read.len(), 1000);
        for (number, line) in read.into_iter().enumerate() {
            assert_eq!(
                (line.change, line.token),
                (happening(number), Token { run: 1, number: number as u64 + 1 }.to_string())
            );
        }
    }

    #[tokio::test]
    async fn what_is_forgotten_cannot_be_resumed_and_a_slow_reader_is_told() {
        let changes = Arc::new(Changes::new(1));
        let (_, mut slow) = changes.reset(Vec::new(), 0).unwrap();
        for number in 0..=REMEMBERED {
            changes.tell(happening(number));
        }
        assert!(changes.resume(Token { run: 1, number: 0 }).is_none(), "too old");
        assert!(changes.resume(Token { run: 1, number: 1 }).is_some(), "just known");
        assert!(changes.resume(Token { run: 1, number: REMEMBERED as u64 + 1 }).is_some(), "the present");
        assert!(changes.resume(Token { run: 1, number: REMEMBERED as u64 + 2 }).is_none(), "the future");
        assert!(changes.resume(Token { run: 1, number: u64::MAX }).is_none(), "the far future");
        assert!(changes.resume(Token { run: 2, number: 1 }).is_none(), "another daemon");
        let last = slow.next().await.unwrap();
        assert_eq!(parse(&last)[0].change, Change::Lagged);
        assert_eq!(slow.next().await, None);
    }

    #[test]
    fn long_lines_are_forgotten_sooner() {
        let changes = Changes::new(1);
        for _ in 0..100 {
            changes.tell(Change::OperationStarted { operation: "x".repeat(100_000), verb: "test".into(), on: None });
        }
        let memory = changes.memory();
        assert!(memory.bytes <= REMEMBERED_BYTES && memory.lines.len() < 50);
    }

    #[test]
    fn images_that_change_while_they_are_listed_are_listed_anew() {
        let changes = Arc::new(Changes::new(1));
        let as_of = changes.last_of_images();
        let image = Image {
            id: "i".into(),
            name: "n".into(),
            default: false,
            system: String::new(),
            kernel: String::new(),
            size: 0,
            allocated: 0,
            packages: 0,
            manifest: String::new(),
            work_seed: false,
            suite: String::new(),
            added: Vec::new(),
            created: 0,
            vms: Vec::new(),
        };
        changes.tell(Change::ImageBuilt { image });
        assert!(changes.reset(Vec::new(), as_of).is_none());
        assert!(changes.reset(Vec::new(), changes.last_of_images()).is_some());
    }
}
