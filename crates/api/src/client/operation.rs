//! A mutating request under way, as lines of JSON.

use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::{ClientError, Connection};
use crate::operation::Event;

/// An operation's events. Dropping it hangs up.
#[derive(Debug)]
pub struct Operation<T> {
    label: String,
    body: Incoming,
    buffer: BytesMut,
    _connection: Connection,
    result: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Operation<T> {
    pub(super) fn new(label: String, body: Incoming, connection: Connection) -> Operation<T> {
        Operation { label, body, buffer: BytesMut::new(), _connection: connection, result: PhantomData }
    }

    /// The next event; none when the daemon has closed the connection. May be dropped and called again without losing any.
    ///
    /// # Errors
    /// [`ClientError::Lost`], [`ClientError::Answer`].
    pub async fn next(&mut self) -> Result<Option<Event<T>>, ClientError> {
        loop {
            if let Some(line) = self.take_line() {
                let event = serde_json::from_slice(&line);
                return event.map(Some).map_err(|source| ClientError::Answer { request: self.label.clone(), source });
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
