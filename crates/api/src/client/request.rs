//! Requests: a method, an escaped path, a JSON body.

use std::fmt::Write;

use bytes::Bytes;
use hyper::Method;
use serde::Serialize;

use super::{API_HEADER, Body, UPGRADE, VERSION_HEADER};

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    path: String,
    has_query: bool,
    body: Bytes,
    upgrade: bool,
}

impl Request {
    /// `GET /v1/...`; the segments are escaped.
    pub fn get<'a>(segments: impl IntoIterator<Item = &'a str>) -> Request {
        Request::new(Method::GET, segments)
    }

    /// `POST /v1/...`, likewise.
    pub fn post<'a>(segments: impl IntoIterator<Item = &'a str>) -> Request {
        Request::new(Method::POST, segments)
    }

    /// `PATCH /v1/...`, likewise.
    pub fn patch<'a>(segments: impl IntoIterator<Item = &'a str>) -> Request {
        Request::new(Method::PATCH, segments)
    }

    /// `DELETE /v1/...`, likewise.
    pub fn delete<'a>(segments: impl IntoIterator<Item = &'a str>) -> Request {
        Request::new(Method::DELETE, segments)
    }

    /// With a parameter in the query; it may be any bytes.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        self.path.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.path.push_str(name);
        self.path.push('=');
        escape(&mut self.path, value.as_ref());
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> Request {
        self.body = serde_json::to_vec(body).expect("the API's types have string keys and no failing parts").into();
        self
    }

    /// Method and path, for messages.
    pub fn label(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether it changes nothing and waits for nothing. If the daemon ends before it answers, it has just been stopped or
    /// upgraded, and another one may answer instead.
    pub(super) fn is_answered_at_once(&self) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        // `/v1/vms/NAME/wait`.
        let waits = path.split('/').nth(4) == Some("wait");
        self.method.is_safe() && !self.upgrade && !waits
    }

    pub(super) fn upgrade(mut self) -> Request {
        self.upgrade = true;
        self
    }

    pub(super) fn into_http(self) -> hyper::Request<Body> {
        let mut request = hyper::Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(hyper::header::HOST, "banger")
            .header(API_HEADER, crate::VERSION)
            .header(VERSION_HEADER, env!("CARGO_PKG_VERSION"));
        if self.upgrade {
            request = request.header(hyper::header::CONNECTION, "upgrade").header(hyper::header::UPGRADE, UPGRADE);
        }
        if !self.body.is_empty() {
            request = request.header(hyper::header::CONTENT_TYPE, "application/json");
        }
        request.body(Body::new(self.body)).expect("an escaped path and constant headers are a valid request")
    }

    fn new<'a>(method: Method, segments: impl IntoIterator<Item = &'a str>) -> Request {
        let mut path = "/v1".to_owned();
        for segment in segments {
            path.push('/');
            escape(&mut path, segment.as_bytes());
        }
        Request { method, path, has_query: false, body: Bytes::new(), upgrade: false }
    }
}

/// Percent-encodes everything but what RFC 3986 calls unreserved.
fn escape(into: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            write!(into, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_answers_reads_at_once_but_not_waits() {
        let at_once = |request: Request| request.is_answered_at_once();
        assert!(at_once(Request::get(["vms"])) && at_once(Request::get(["vms", "wait"]).query("level", "ssh")));
        assert!(!at_once(Request::get(["vms", "devbox", "wait"]).query("level", "ssh")));
        assert!(!at_once(Request::delete(["vms", "devbox"])) && !at_once(Request::get(["vms"]).upgrade()));
    }

    #[test]
    fn names_and_paths_cannot_leave_their_place() {
        let request = Request::post(["vms", "a/../b?c", "put"]).query("path", "/x y&z=1").query("name", b"\xff\n");
        assert_eq!(request.label(), "POST /v1/vms/a%2F..%2Fb%3Fc/put?path=%2Fx%20y%26z%3D1&name=%FF%0A");
    }
}
