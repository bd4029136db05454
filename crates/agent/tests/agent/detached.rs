//! Detached commands: their output and their ends.

use banger_protocol::call::{Answer, Call, CallErrorCode, Exec, Exit};
use banger_protocol::frame::Kind;
use tokio::time::timeout;

use crate::guest::{Guest, LONG, shell};

#[tokio::test]
async fn detached_output_is_kept_apart_followed_and_outlives_a_reboot() {
    let mut guest = Guest::start();
    let session = guest.session().await;
    let script = "echo one; echo two >&2; read line < gate; echo three; exit 9";
    let gate = guest.root().join("gate");
    rustix::fs::mknodat(rustix::fs::CWD, &gate, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let exec = Exec { detached: Some("job-1".to_owned()), ..shell(script) };
    session.start(exec.clone()).await.unwrap();
    assert_eq!(session.start(exec).await.err().unwrap().code, CallErrorCode::Invalid);

    let mut follow = session.call(&Call::Output { id: "job-1".to_owned(), follow: true }).await;
    let (first, second) = (follow.next().await, follow.next().await);
    let mut both = [(first.kind, first.payload), (second.kind, second.payload)];
    both.sort_by_key(|(kind, _)| *kind as u8);
    assert_eq!(both, [(Kind::Stdout, "one\n".into()), (Kind::Stderr, "two\n".into())]);
    let commands = session.commands().await;
    assert_eq!((commands.len(), commands[0].id.as_str(), commands[0].exit), (1, "job-1", None));

    tokio::fs::write(&gate, "go\n").await.unwrap();
    let rest = timeout(LONG, follow.outcome()).await.unwrap();
    assert_eq!((rest.stdout.as_slice(), rest.exit), (b"three\n".as_slice(), Exit::Code(9)));

    session.start(Exec { detached: Some("job-2".to_owned()), ..shell("echo begun; exec sleep 60") }).await.unwrap();
    let mut follow = session.call(&Call::Output { id: "job-2".to_owned(), follow: true }).await;
    assert_eq!(follow.next().await.payload, "begun\n");
    guest.reboot();
    let session = guest.session().await;
    let commands = session.commands().await;
    let ends: Vec<_> = commands.iter().map(|command| (command.id.as_str(), command.exit)).collect();
    assert_eq!(ends, [("job-2", Some(Exit::Lost)), ("job-1", Some(Exit::Code(9)))]);
    let mut output = session.call(&Call::Output { id: "job-1".to_owned(), follow: true }).await;
    let all = timeout(LONG, output.outcome()).await.unwrap();
    assert_eq!((all.stdout.as_slice(), all.stderr.as_slice()), (b"one\nthree\n".as_slice(), b"two\n".as_slice()));
    let answer = session.call(&Call::Await { id: "job-3".to_owned() }).await.answer;
    assert!(matches!(answer, Answer::Error(error) if error.code == CallErrorCode::NotFound));
    let answer = session.call(&Call::Output { id: "../job-1".to_owned(), follow: false }).await.answer;
    assert!(matches!(answer, Answer::Error(error) if error.code == CallErrorCode::Invalid));
}

#[tokio::test]
async fn detached_output_is_bounded_and_says_what_it_dropped() {
    let guest = Guest::start();
    let session = guest.session().await;
    session.start(Exec { detached: Some("much".to_owned()), ..shell("yes | head -c 100M; echo end") }).await.unwrap();
    let mut waiting = session.call(&Call::Await { id: "much".to_owned() }).await;
    assert_eq!(timeout(LONG, waiting.outcome()).await.unwrap().exit, Exit::Code(0));
    let mut output = session.call(&Call::Output { id: "much".to_owned(), follow: false }).await;
    let outcome = timeout(LONG, output.outcome()).await.unwrap();
    assert!((32 << 20..70 << 20).contains(&outcome.stdout.len()), "{}", outcome.stdout.len());
    assert!(outcome.stdout.ends_with(b"y\nend\n"));
    let marker = String::from_utf8(outcome.stderr).unwrap();
    assert!(marker.starts_with("banger: ") && marker.ends_with(" of older output were dropped here\n"), "{marker}");
}
