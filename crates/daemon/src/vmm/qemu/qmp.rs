//! A small client of QEMU's monitor (QMP): one connection per errand.
//!
//! A connection that is kept would have to be read for ever, or QEMU piles up the events that nobody fetches. A new one
//! costs less than a millisecond, and works the same for a VM that an earlier daemon started. QEMU serves one client at a
//! time; a second waits in the socket's queue.
//!
//! Who called this knows the deadline. What QEMU says is bounded: it runs a hostile guest.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;

use super::socket;

/// The longest line that is read. The answers to the commands used here have a few hundred bytes.
const MAX_LINE: u64 = 64 * 1024;

/// A connection that is ready for commands.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    next_id: u64,
}

/// Why QEMU could not be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The connection failed or ended.
    #[error("the monitor's connection failed")]
    Io(#[from] io::Error),
    /// A line that is too long, no JSON, or of no known kind.
    #[error("the monitor said something that is no QMP: {0}")]
    Malformed(String),
    /// A command failed.
    #[error("{command} failed: {description}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's class of the error.
        class: String,
        /// QEMU's words.
        description: String,
    },
}

impl Qmp {
    /// Connects within `patience`, waits for the greeting, and negotiates.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn connect(path: &Path, patience: Duration) -> Result<Qmp, QmpError> {
        // What a client before this one did not live to hear may be said to this one: no two may use the same ids.
        let first_id = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Qmp::greet(socket::connect(path, patience).await?, u64::try_from(first_id).unwrap_or_default()).await
    }

    /// The same over a connection that stands; the first command gets `first_id`.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn greet(stream: UnixStream, first_id: u64) -> Result<Qmp, QmpError> {
        let mut qmp = Qmp { stream: BufReader::new(stream), next_id: first_id };
        while qmp.receive().await? != Message::Greeting {}
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Whether the guest's processors run.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn running(&mut self) -> Result<bool, QmpError> {
        let status = self.execute("query-status", json!({})).await?;
        status["running"].as_bool().ok_or_else(|| QmpError::Malformed(status.to_string()))
    }

    /// Whether the guest is paused because a write to one of its disks found no space on the host.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn is_out_of_space(&mut self) -> Result<bool, QmpError> {
        // In this order: what is not yet so by the first answer is told as an event after it.
        if self.execute("query-status", json!({})).await?["status"] != "io-error" {
            return Ok(false);
        }
        let disks = self.execute("query-block", json!({})).await?;
        Ok(disks.as_array().is_some_and(|disks| disks.iter().any(|disk| disk["io-status"] == "nospace")))
    }

    /// Lets a paused guest go on. Accepted also where it pauses again at once.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn cont(&mut self) -> Result<(), QmpError> {
        self.execute("cont", json!({})).await.map(drop)
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn system_powerdown(&mut self) -> Result<(), QmpError> {
        self.execute("system_powerdown", json!({})).await.map(drop)
    }

    /// Unplugs a device that needs no guest for it. It is unplugged on return, though QEMU frees it only after a while. One
    /// that is not there is no error.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn device_del(&mut self, id: &str) -> Result<(), QmpError> {
        match self.execute("device_del", json!({ "id": id })).await {
            Err(QmpError::Refused { class, .. }) if class == "DeviceNotFound" => Ok(()),
            result => result.map(drop),
        }
    }

    /// Plugs a device; `properties` names its driver, id, bus and the rest.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn device_add(&mut self, properties: Value) -> Result<(), QmpError> {
        self.execute("device_add", properties).await.map(drop)
    }

    /// The names of all character devices.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn chardevs(&mut self) -> Result<Vec<String>, QmpError> {
        let list = self.execute("query-chardev", json!({})).await?;
        let Value::Array(list) = list else { return Err(QmpError::Malformed(list.to_string())) };
        Ok(list.iter().filter_map(|chardev| chardev["label"].as_str()).map(str::to_owned).collect())
    }

    /// Whether a device has opened its end of a character device: a port's device does while the guest holds the port open.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn chardev_is_open(&mut self, id: &str) -> Result<bool, QmpError> {
        let list = self.execute("query-chardev", json!({})).await?;
        let found = list.as_array().and_then(|list| list.iter().find(|chardev| chardev["label"] == id));
        Ok(found.is_some_and(|chardev| chardev["frontend-open"] == true))
    }

    /// The next event: its name and its data. Hears only what happens while it is connected.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn event(&mut self) -> Result<(String, Value), QmpError> {
        loop {
            if let Message::Event { name, data } = self.receive().await? {
                return Ok((name, data));
            }
        }
    }

    /// Gives a disk another size, in bytes; the guest is told.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn block_resize(&mut self, node: &str, bytes: u64) -> Result<(), QmpError> {
        self.execute("block_resize", json!({ "node-name": node, "size": bytes })).await.map(drop)
    }

    /// Removes a character device. One that a device still uses is refused.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn chardev_remove(&mut self, id: &str) -> Result<(), QmpError> {
        self.execute("chardev-remove", json!({ "id": id })).await.map(drop)
    }

    /// Closes what is behind a character device; the device that uses it is left with one that is never connected.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn chardev_close(&mut self, id: &str) -> Result<(), QmpError> {
        let backend = json!({ "type": "null", "data": {} });
        self.execute("chardev-change", json!({ "id": id, "backend": backend })).await.map(drop)
    }

    /// Makes a character device of a connected socket, which QEMU gets from us.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn chardev_add(&mut self, id: &str, socket: OwnedFd) -> Result<(), QmpError> {
        self.execute_with("getfd", json!({ "fdname": id }), Some(socket)).await?;
        let address = json!({ "type": "fd", "data": { "str": id } });
        let backend = json!({ "type": "socket", "data": { "addr": address, "server": false } });
        self.execute("chardev-add", json!({ "id": id, "backend": backend })).await.map(drop)
    }

    async fn execute(&mut self, command: &'static str, arguments: Value) -> Result<Value, QmpError> {
        self.execute_with(command, arguments, None).await
    }

    async fn execute_with(
        &mut self,
        command: &'static str,
        arguments: Value,
        fd: Option<OwnedFd>,
    ) -> Result<Value, QmpError> {
        let id = self.next_id;
        self.next_id += 1;
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments, "id": id }));
        let sent = match &fd {
            Some(fd) => self.send_with(line.as_bytes(), fd).await?,
            None => 0,
        };
        self.stream.get_mut().write_all(&line.as_bytes()[sent..]).await?;
        loop {
            match self.receive().await? {
                Message::Return { id: Some(replied), value } if replied == id => return Ok(value),
                // An error without an id is one that QEMU could not tell the command of: it is ours.
                Message::Error { id: replied, class, description } if replied.is_none_or(|replied| replied == id) => {
                    return Err(QmpError::Refused { command, class, description });
                }
                // No errand waits for an event.
                Message::Event { .. } | Message::Greeting | Message::Return { .. } | Message::Error { .. } => {}
            }
        }
    }

    /// Sends the beginning of a line, and with it a descriptor. How much was sent.
    async fn send_with(&mut self, line: &[u8], fd: &OwnedFd) -> io::Result<usize> {
        let stream = self.stream.get_ref();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [fd.as_fd()];
            if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            Ok(rustix::net::sendmsg(stream, &[io::IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?)
        };
        loop {
            stream.writable().await?;
            match stream.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    async fn receive(&mut self) -> Result<Message, QmpError> {
        let mut line = Vec::new();
        (&mut self.stream).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        match line.pop() {
            Some(b'\n') => parse(&line),
            Some(_) if line.len() as u64 + 1 == MAX_LINE => Err(QmpError::Malformed("a line without end".into())),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// One line of QEMU's.
#[derive(Debug, Clone, PartialEq)]
enum Message {
    Greeting,
    Return { id: Option<u64>, value: Value },
    Error { id: Option<u64>, class: String, description: String },
    Event { name: String, data: Value },
}

fn parse(line: &[u8]) -> Result<Message, QmpError> {
    let malformed = || QmpError::Malformed(String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned());
    let Ok(Value::Object(mut object)) = serde_json::from_slice(line) else { return Err(malformed()) };
    let id = object.get("id").and_then(Value::as_u64);
    if let Some(value) = object.remove("return") {
        return Ok(Message::Return { id, value });
    }
    if let Some(error) = object.remove("error") {
        let word = |key: &str| error[key].as_str().map(str::to_owned).ok_or_else(malformed);
        return Ok(Message::Error { id, class: word("class")?, description: word("desc")? });
    }
    if let Some(Value::String(name)) = object.remove("event") {
        return Ok(Message::Event { name, data: object.remove("data").unwrap_or_default() });
    }
    if object.contains_key("QMP") { Ok(Message::Greeting) } else { Err(malformed()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GREETING: &str =
        r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}, "capabilities": ["oob"]}}"#;

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused_without_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&line));
        }

        #[test]
        fn any_object_is_parsed_or_refused_without_panic(
            key in "id|return|error|event|data|QMP|[a-z]{0,3}", other in "id|return|error|event|data", value in "[0-9]{1,30}|\"[a-z]{0,5}\"|\\{\\}|null|\\[\\]|\\{\"class\":1\\}",
        ) {
            drop(parse(format!("{{\"{key}\": {value}, \"{other}\": {value}}}").as_bytes()));
        }
    }

    /// Plays QEMU: says the greeting, then for each line that it hears the next of `answers`.
    async fn play(answers: Vec<String>) -> Result<Qmp, QmpError> {
        let (near, far) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let mut far = BufReader::new(far);
            let left_over = r#"{"event": "VSERPORT_CHANGE", "data": {"open": true, "id": "port"}}"#;
            far.get_mut().write_all(format!("{left_over}\n{GREETING}\n").as_bytes()).await.unwrap();
            for answer in std::iter::once(r#"{"return": {}, "id": 0}"#.to_owned()).chain(answers) {
                let mut line = String::new();
                if far.read_line(&mut line).await.unwrap() == 0 {
                    return;
                }
                far.get_mut().write_all(answer.as_bytes()).await.unwrap();
                far.get_mut().write_all(b"\n").await.unwrap();
            }
        });
        Qmp::greet(near, 0).await
    }

    #[tokio::test]
    async fn events_before_a_reply_and_replies_to_others_are_skipped() {
        let mut qmp = play(vec![
            [
                r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "DEVICE_DELETED", "data": {"path": "/a"}}"#,
                r#"{"error": {"class": "GenericError", "desc": "of another"}, "id": 0}"#,
                r#"{"return": {}, "id": 1}"#,
            ]
            .join("\n"),
        ])
        .await
        .unwrap();
        qmp.device_del("port").await.unwrap();
    }

    #[tokio::test]
    async fn a_device_that_is_not_there_is_gone_already() {
        let error = r#"{"id": 1, "error": {"class": "DeviceNotFound", "desc": "Device 'port' not found"}}"#;
        play(vec![error.into()]).await.unwrap().device_del("port").await.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_keeps_qemus_words() {
        let error = r#"{"id": 1, "error": {"class": "GenericError", "desc": "Chardev 'x' is busy"}}"#;
        let refused = play(vec![error.into()]).await.unwrap().chardev_remove("x").await.unwrap_err();
        assert_eq!(refused.to_string(), "chardev-remove failed: Chardev 'x' is busy");
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused() {
        let mut qmp = play(vec!["x".repeat(1 << 20)]).await.unwrap();
        assert!(matches!(qmp.running().await, Err(QmpError::Malformed(_))));
    }

    #[tokio::test]
    async fn a_closed_connection_is_an_error() {
        let mut qmp = play(Vec::new()).await.unwrap();
        assert!(matches!(qmp.running().await, Err(QmpError::Io(_))));
    }
}
