//! Long answers: lines of JSON.

use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::{ClientError, Connection};
use crate::operation::Event;

/// A mutating request under way: its events.
pub type Operation<T> = Lines<Event<T>>;

/// Lines of JSON, each a `T`. Dropping it hangs up.
#[derive(Debug)]
pub struct Lines<T> {
    label: String,
    body: Incoming,
    buffer: BytesMut,
    _connection: Connection,
    line: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(super) fn new(label: String, body: Incoming, connection: Connection) -> Lines<T> {
        Lines { label, body, buffer: BytesMut::new(), _connection: connection, line: PhantomData }
    }

    /// The next one; none when the daemon has closed the connection. May be dropped and called again without losing any.
    ///
    /// # Errors
    /// [`ClientError::Lost`], [`ClientError::Answer`].
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(line) = self.take_line() {
                let line = serde_json::from_slice(&line);
                return line.map(Some).map_err(|source| ClientError::Answer { request: self.label.clone(), source });
            }
            let lost = |source| ClientError::Lost { request: self.label.clone(), source };
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(source)) => return Err(lost(Some(source))),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(lost(None)),
            }
        }
    }

    /// Method and path, for messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The first whole line that is not blank.
    fn take_line(&mut self) -> Option<Bytes> {
        while let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
            let line = self.buffer.split_to(end + 1).freeze();
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
        None
    }
}
