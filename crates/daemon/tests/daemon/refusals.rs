//! Requests that make no sense, byte for byte: each is refused in the one shape of a failure.

#![expect(clippy::unwrap_used, reason = "a test that fails shall panic")]

use std::fmt::Write as _;

use crate::support::{House, Verb};
use banger_api::client::Request;
use banger_api::daemon::Version;
use banger_api::error::ApiError;
use banger_api::exec::{ExecRequest, ExecStarted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// What comes back for one request: the status line, the headers in small letters, the body.
async fn answer(house: &House, head: &str, body: &[u8]) -> (u16, String, String) {
    let mut stream = UnixStream::connect(house.paths().socket()).await.unwrap();
    let mut request = format!("{head} HTTP/1.1\r\nhost: banger\r\nconnection: close\r\n");
    if !body.is_empty() {
        write!(request, "content-length: {}\r\n", body.len()).unwrap();
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // A daemon that has answered does not read what is left of a body that is too long.
    drop(stream.write_all(body).await);
    let mut text = Vec::new();
    drop(stream.read_to_end(&mut text).await);
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

async fn refused(house: &House, head: &str, body: &[u8], status: u16, code: &str) -> String {
    let (got, headers, answer) = answer(house, head, body).await;
    let shown = head.chars().take(100).collect::<String>();
    assert_eq!(got, status, "{shown}: {answer}");
    assert!(
        headers.contains("content-type: application/json") && headers.contains("banger-api: 1"),
        "{shown}: {headers}"
    );
    let error: ApiError = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{shown}: {answer}: {error}"));
    assert_eq!(serde_json::to_value(error.code).unwrap(), code, "{shown}: {answer}");
    assert!(answer.len() < 4096, "{shown}: a refusal does not give back all that was sent");
    headers
}

#[test]
fn every_refusal_has_the_one_shape() {
    let mut house = House::new();
    house.listen();
    house.run_or_die(Verb::Create).unwrap().unwrap();
    let long = "x".repeat(10_000);
    let huge = [b"{\"name\":\"".as_slice(), &vec![b'x'; 2 << 20], b"\"}"].concat();
    let deep = "[".repeat(100_000);
    let words = |word: &str| {
        serde_json::to_vec(&ExecRequest { argv: vec![word.to_owned()], detached: true, ..ExecRequest::default() })
    };
    house.run(async |_| {
        for path in
            ["/", "/v1", "/v2/vms", "/v1/nothing", "/v1/vms/", "/v1//vms", "/v1/vms/one/nothing", "/v1/vms/a/b/c/d"]
        {
            refused(&house, &format!("GET {path}"), b"", 404, "unsupported").await;
        }
        for (method, path, allow) in [
            ("POST", "/v1/version", "get,head"),
            ("PUT", "/v1/vms", "get,head,post"),
            ("PUT", "/v1/vms/one", "get,head,patch,delete"),
            ("OPTIONS", "/v1/vms/one/start", "post"),
            ("TRACE", "/v1/images", "get,head,post"),
            ("BREW", "/v1/images", "get,head,post"),
        ] {
            let headers = refused(&house, &format!("{method} {path}"), b"", 405, "method_not_allowed").await;
            assert!(headers.contains(&format!("allow: {allow}\r\n")), "{method} {path}: {headers}");
        }
        // Names that cannot be: percent signs, NULs, no UTF-8, other alphabets, too long.
        for name in ["%00", "a%2Fb", "%2e%2e", "%C3%A4", "a%20b", "%F0%9F%92%A9", long.as_str(), "nope"] {
            refused(&house, &format!("GET /v1/vms/{name}"), b"", 404, "vm_not_found").await;
            refused(&house, &format!("POST /v1/vms/{name}/start"), b"", 404, "vm_not_found").await;
            refused(&house, &format!("GET /v1/images/{name}"), b"", 404, "image_not_found").await;
        }
        for name in ["%FF", "%C3", "a%80"] {
            refused(&house, &format!("GET /v1/vms/{name}"), b"", 400, "invalid").await;
            refused(&house, &format!("DELETE /v1/images/{name}"), b"", 400, "invalid").await;
        }
        for query in ["force=", "force=maybe", "force=1", "force=true&force=true", "frce=true", "force=%FF"] {
            refused(&house, &format!("DELETE /v1/vms/one?{query}"), b"", 400, "invalid").await;
        }
        for query in ["", "?level=", "?level=moon", "?level=agent&since=now"] {
            refused(&house, &format!("GET /v1/vms/one/wait{query}"), b"", 400, "invalid").await;
        }
        let bodies: [&[u8]; 24] = [
            b"x",
            b"\xff",
            b"\0",
            b"[]",
            b"null",
            b"{\"x\":1}",
            b"{\"name\":1}",
            b"{\"name\":\"Box\"}",
            b"{\"name\":\"\"}",
            b"{\"cpus\":0}",
            b"{\"cpus\":-1}",
            b"{\"cpus\":1.5}",
            b"{\"cpus\":256}",
            b"{\"cpus\":1e300}",
            b"{\"memory\":1}",
            b"{\"memory\":18446744073709551616}",
            b"{\"disk\":18446744073709551615}",
            b"{\"workdir\":\"here\"}",
            b"{\"workdir\":\"/\\u0000\"}",
            b"{\"env\":{\"\":\"\"}}",
            b"{\"env\":{\"a=b\":\"\"}}",
            b"{\"lifetime\":\"long\"}",
            b"{\"name\":\"a\"}{}",
            deep.as_bytes(),
        ];
        for body in bodies {
            refused(&house, "POST /v1/vms", body, 400, "invalid").await;
        }
        let long_dir = format!("{{\"workdir\":\"/{long}\"}}");
        refused(&house, "POST /v1/vms", long_dir.as_bytes(), 400, "invalid").await;
        for body in [
            b"{\"size\":1}".as_slice(),
            b"{\"size\":18446744073709551615}",
            b"{\"name\":\"a/b\"}",
            b"{\"name\":\"..\"}",
        ] {
            refused(&house, "POST /v1/images", body, 400, "invalid").await;
        }
        for path in ["/v1/vms", "/v1/images", "/v1/vms/one/stop", "/v1/vms/one/exec"] {
            refused(&house, &format!("POST {path}"), &huge, 413, "too_large").await;
        }
        // What is to be a stream does not ask for one; what is detached would have none.
        for path in ["exec", "get?path=/x", "put?path=/x&name=y", "commands/main/output"] {
            let body = b"{\"argv\":[\"true\"]}";
            refused(&house, &format!("POST /v1/vms/one/{path}"), body, 400, "invalid").await;
        }
        for path in ["exec", "get?path=/x"] {
            let head = format!("POST /v1/vms/one/{path} HTTP/1.1\r\nupgrade: banger-stream\r\nx:");
            refused(&house, &head, b"{\"argv\":[\"true\"]}", 400, "invalid").await;
        }
        let upgrade = "POST /v1/vms/one/exec HTTP/1.1\r\nupgrade: banger-stream\r\nconnection: upgrade\r\nx:";
        refused(&house, upgrade, b"{\"argv\":[\"true\"],\"detached\":true}", 400, "invalid").await;
        refused(&house, "POST /v1/vms/one/exec", b"{\"argv\":[],\"detached\":true}", 400, "invalid").await;
        refused(&house, "POST /v1/vms/one/exec", &words("a\0b").unwrap(), 400, "invalid").await;
        refused(&house, "POST /v1/vms/one/exec", &words("nothing-like-this").unwrap(), 404, "guest_not_found").await;
        refused(&house, "POST /v1/vms/one/exec", &words(&"x".repeat(300_000)).unwrap(), 413, "too_large").await;
        // And after all of this it does its work.
        let client = banger_api::client::Client::new(house.paths().socket());
        client.call::<Version>(Request::get(["version"])).await.unwrap();
        let request = ExecRequest { argv: vec!["true".into()], detached: true, ..ExecRequest::default() };
        client.call::<ExecStarted>(Request::post(["vms", "one", "exec"]).json(&request)).await.unwrap();
        let (status, headers, body) = answer(&house, "HEAD /v1/vms", b"").await;
        assert!(status == 200 && headers.contains("content-type: application/json") && body.is_empty());
    });
}
