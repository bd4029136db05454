//! Sessions, and the calls that are neither about commands nor files.

use std::time::Duration;

use banger_protocol::call::{Answer, Call, CallErrorCode, Exec, Exit, Level};

use crate::guest::{Guest, Session, run, shell};

#[tokio::test]
async fn a_new_session_ends_the_commands_of_the_old_one_but_not_detached_ones() {
    let guest = Guest::start();
    let session = guest.session().await;
    let mut stream = session.start(shell("echo $$; exec sleep 60")).await.unwrap();
    let pid = stream.first_line().await;
    session.start(Exec { detached: Some("kept".to_owned()), ..shell("sleep 1; echo still here") }).await.unwrap();
    let second = guest.session().await;
    guest.wait_until_gone(&pid, Duration::from_secs(1)).await;
    assert_eq!(second.welcome.boot_id, session.welcome.boot_id);
    let mut waiting = second.call(&Call::Await { id: "kept".to_owned() }).await;
    assert_eq!(waiting.answer, Answer::Done);
    assert_eq!(waiting.outcome().await.exit, Exit::Code(0));
    let mut output = second.call(&Call::Output { id: "kept".to_owned(), follow: false }).await;
    assert_eq!(output.outcome().await.stdout, b"still here\n");
}

#[tokio::test]
async fn rubbish_leads_back_to_a_hello() {
    let guest = Guest::start();
    let mut connection = guest.connect().await;
    crate::guest::write(&mut connection, b"\x08\x00\x00\x40\x00half a frame of a dead session").await;
    let session = Session::begin(connection).await;
    assert_eq!(run(&session, shell("echo one")).await.0, "one\n");

    // A session that goes wrong behind its hello: the next hello comes over the same connection.
    let mut connection = guest.connect().await;
    banger_protocol::hello::greet(&mut connection, "n").await.unwrap();
    crate::guest::write(&mut connection, &[0xff; 3000]).await;
    let session = Session::begin(connection).await;
    assert_eq!(run(&session, shell("echo two")).await.0, "two\n");
}

#[tokio::test]
async fn levels_facts_and_clock() {
    let guest = Guest::start();
    let session = guest.session().await;
    let levels = session.call(&Call::Levels).await;
    assert_eq!(levels.answer, Answer::Levels { reached: vec![Level::Agent, Level::System, Level::Ssh] });
    let Answer::Facts(facts) = session.call(&Call::Facts).await.answer else { panic!("no facts") };
    assert_eq!(facts.boot_id, session.welcome.boot_id);
    assert!(facts.agent_resident > 100_000 && !facts.kernel.is_empty());
    let clock = |entropy: &str| Call::SetClock { unix_nanos: 0, entropy: entropy.to_owned() };
    assert_eq!(session.call(&clock("00ff")).await.answer, Answer::Done);
    let answer = session.call(&clock("zz")).await.answer;
    assert!(matches!(answer, Answer::Error(error) if error.code == CallErrorCode::Invalid));
}

#[tokio::test]
async fn an_unknown_call_is_said_to_be_unknown() {
    let guest = Guest::start();
    let session = guest.session().await;
    let answer = session.call_raw(br#"{"call":"levitate"}"#).await;
    assert!(matches!(answer, Answer::Error(error) if error.code == CallErrorCode::Unknown));
}

#[tokio::test]
async fn an_agent_of_the_protocol_before_knows_no_facts() {
    let guest = Guest::start_with(&["--protocol", "1"]);
    let session = guest.session().await;
    assert_eq!(session.welcome.protocol, 1);
    let answer = session.call(&Call::Facts).await.answer;
    assert!(matches!(answer, Answer::Error(error) if error.code == CallErrorCode::Unknown));
    assert_eq!(run(&session, shell("echo served")).await.0, "served\n");
}

#[tokio::test]
async fn power_off_is_answered_and_ends_the_guest() {
    let mut guest = Guest::start();
    let session = guest.session().await;
    let mut stream = session.start(shell("echo $$; exec sleep 60")).await.unwrap();
    let pid = stream.first_line().await;
    assert_eq!(session.call(&Call::PowerOff).await.answer, Answer::Done);
    guest.wait_for_end().await;
    guest.wait_until_gone(&pid, Duration::from_secs(1)).await;
}
