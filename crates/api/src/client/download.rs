//! An answer that is bytes, as they come.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{ClientError, Connection};

/// An answer's bytes. Dropping it hangs up.
#[derive(Debug)]
pub struct Download {
    label: String,
    body: Incoming,
    _connection: Connection,
}

impl Download {
    pub(super) fn new(label: String, body: Incoming, connection: Connection) -> Download {
        Download { label, body, _connection: connection }
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// [`ClientError::Lost`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame =
                frame.map_err(|source| ClientError::Lost { request: self.label.clone(), source: Some(source) })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}
