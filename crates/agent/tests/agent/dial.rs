//! Connections to ports of the guest, which here is this host.

use std::time::Duration;

use banger_protocol::call::{Answer, Call, CallErrorCode};
use banger_protocol::frame::{Kind, MAX_PAYLOAD};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::guest::{Guest, LONG, Reply, Session};

async fn listen(address: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Both ends of a connection through the agent.
async fn connected(session: &Session) -> (Reply, TcpStream) {
    let (listener, port) = listen("127.0.0.1").await;
    let (reply, accepted) = tokio::join!(
        async {
            let reply = session.call(&Call::Dial { port }).await;
            assert_eq!(reply.answer, Answer::Done);
            reply
        },
        listener.accept()
    );
    (reply, accepted.unwrap().0)
}

async fn data(reply: &mut Reply, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let frame = reply.next().await;
        assert_eq!(frame.kind, Kind::Data);
        assert!(!frame.payload.is_empty(), "it ended after {} bytes", bytes.len());
        bytes.extend_from_slice(&frame.payload);
    }
    bytes
}

#[tokio::test]
async fn each_direction_has_an_end_of_its_own() {
    let guest = Guest::start();
    let session = guest.session().await;
    // The caller first.
    let (mut reply, mut server) = connected(&session).await;
    reply.send(Kind::Data, b"question").await;
    reply.send(Kind::Data, b"").await;
    let mut heard = String::new();
    server.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question");
    server.write_all(b"answer").await.unwrap();
    assert_eq!(data(&mut reply, 6).await, b"answer");
    drop(server);
    assert!(reply.next().await.payload.is_empty());
    assert!(reply.ended().await);
    // What listens first.
    let (mut reply, mut server) = connected(&session).await;
    server.shutdown().await.unwrap();
    assert!(reply.next().await.payload.is_empty());
    reply.send(Kind::Data, b"still ").await;
    reply.send(Kind::Data, b"heard").await;
    reply.send(Kind::Data, b"").await;
    heard.clear();
    server.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "still heard");
    assert!(reply.ended().await);
}

#[tokio::test]
async fn many_bytes_come_whole_both_ways_at_once() {
    let guest = Guest::start();
    let session = guest.session().await;
    let (mut reply, server) = connected(&session).await;
    let (mut reads, mut writes) = server.into_split();
    let echo = tokio::spawn(async move { tokio::io::copy(&mut reads, &mut writes).await.unwrap() });
    let piece: Vec<u8> = (0..MAX_PAYLOAD).map(|at| u8::try_from(at % 251).unwrap()).collect();
    for _ in 0..8 {
        reply.send(Kind::Data, &piece).await;
        assert_eq!(data(&mut reply, piece.len()).await, piece);
    }
    reply.send(Kind::Data, b"").await;
    assert!(reply.next().await.payload.is_empty());
    assert_eq!(echo.await.unwrap(), 8 * MAX_PAYLOAD as u64);
}

#[tokio::test]
async fn a_caller_that_goes_takes_the_connection_with_it() {
    let guest = Guest::start();
    let session = guest.session().await;
    for said_all in [false, true] {
        let (mut reply, mut server) = connected(&session).await;
        if said_all {
            reply.send(Kind::Data, b"").await;
            assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        }
        drop(reply);
        let gone = async {
            let more = vec![0; MAX_PAYLOAD];
            while server.write_all(&more).await.is_ok() {}
        };
        tokio::time::timeout(LONG, gone).await.expect("the connection is open");
    }
    // Also where what listens takes nothing.
    let (mut reply, mut server) = connected(&session).await;
    let stuck = async {
        loop {
            reply.send(Kind::Data, &[0; MAX_PAYLOAD]).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(200), stuck).await.is_err());
    drop(reply);
    let drained = async {
        let mut buffer = vec![0; MAX_PAYLOAD];
        while server.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    };
    tokio::time::timeout(LONG, drained).await.expect("the connection is open");
}

#[tokio::test]
async fn what_listens_on_the_newer_protocol_alone_is_found() {
    let guest = Guest::start();
    let session = guest.session().await;
    let Ok(listener) = TcpListener::bind(("::1", 0)).await else {
        banger_skip::skipped!("this host has no IPv6");
        return;
    };
    let reply = session.call(&Call::Dial { port: listener.local_addr().unwrap().port() }).await;
    assert_eq!(reply.answer, Answer::Done);
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_refused_with_words() {
    let guest = Guest::start();
    let session = guest.session().await;
    let (listener, port) = listen("127.0.0.1").await;
    drop(listener);
    let refused = async |port| match session.call(&Call::Dial { port }).await.answer {
        Answer::Error(error) => error,
        other => panic!("{other:?}"),
    };
    let error = refused(port).await;
    assert_eq!(error.code, CallErrorCode::Failed);
    assert_eq!(error.message, format!("cannot connect to port {port} of the guest: nothing listens there"));
    assert_eq!(refused(0).await.code, CallErrorCode::Invalid);
}

#[tokio::test]
async fn an_agent_of_the_protocol_before_says_that_it_cannot() {
    let guest = Guest::start_with(&["--protocol", "3"]);
    let session = guest.session().await;
    let answer = session.call(&Call::Dial { port: 22 }).await.answer;
    assert!(matches!(answer, Answer::Error(error) if error.code == CallErrorCode::Unknown));
}
