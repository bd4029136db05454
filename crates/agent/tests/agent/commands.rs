//! Commands: their streams, surroundings, ends.

use std::time::Duration;

use banger_protocol::call::{CallErrorCode, Exec, Exit, Terminal, TimeZone};
use banger_protocol::frame::{Frame, Kind};
use tokio::time::timeout;

use crate::guest::{Guest, LONG, run, shell};

#[tokio::test]
async fn output_errors_and_exit_code_come_apart() {
    let guest = Guest::start();
    let session = guest.session().await;
    let (out, err, exit) = run(&session, shell("echo out; echo err >&2; exit 7")).await;
    assert_eq!((out.as_str(), err.as_str(), exit), ("out\n", "err\n", Exit::Code(7)));
    let (_, _, exit) = run(&session, shell("kill -TERM $$")).await;
    assert_eq!(exit, Exit::Signal(15));
}

#[tokio::test]
async fn a_command_has_the_users_environment_and_what_it_is_given() {
    let guest = Guest::start();
    let session = guest.session().await;
    let mut exec = shell("echo $HOME; pwd; echo $GREETING; echo $PATH | grep -c /usr/bin; echo $0; echo ${TERM:-none}");
    exec.env.insert("GREETING".to_owned(), "hello you".to_owned());
    let (out, _, _) = run(&session, exec).await;
    let home = guest.root().display().to_string();
    assert_eq!(out, format!("{home}\n{home}\nhello you\n1\nsh\nnone\n"));

    let mut exec = shell("pwd; echo $PATH");
    exec.workdir = Some("/usr".to_owned());
    exec.env.insert("PATH".to_owned(), "/bin".to_owned());
    assert_eq!(run(&session, exec).await.0, "/usr\n/bin\n");
}

#[tokio::test]
async fn a_command_has_its_callers_language_and_time() {
    let ask = |given: &[(&str, &str)]| {
        let mut exec = shell("echo ${LANG:-none} ${LC_TIME:-none} ${TZ:-none}");
        exec.locale = [("LANG", "C"), ("LC_TIME", "xx_YY.UTF-8")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        exec.time_zone = Some(TimeZone { name: Some("No/Where".to_owned()), rule: Some("XYZ-3".to_owned()) });
        exec.env = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        exec
    };
    let guest = Guest::start();
    let session = guest.session().await;
    assert_eq!(run(&session, ask(&[])).await.0, "C C.UTF-8 XYZ-3\n");
    assert_eq!(run(&session, ask(&[("LANG", "POSIX"), ("TZ", "UTC")])).await.0, "POSIX none UTC\n");
    let old = Guest::start_with(&["--protocol", "2"]);
    assert_eq!(run(&old.session().await, ask(&[])).await.0, "none none none\n");
}

#[tokio::test]
async fn a_terminal_that_the_guest_does_not_know_is_a_usual_one() {
    let guest = Guest::start();
    let session = guest.session().await;
    let mut exec = shell("echo $TERM");
    exec.tty = Some(Terminal { rows: 30, columns: 100, term: "no-such-terminal".to_owned() });
    assert_eq!(run(&session, exec.clone()).await.0, "xterm-256color\r\n");
    exec.env.insert("TERM".to_owned(), "no-such-terminal".to_owned());
    assert_eq!(run(&session, exec).await.0, "no-such-terminal\r\n");
}

#[tokio::test]
async fn input_is_fed_and_ended() {
    let guest = Guest::start();
    let session = guest.session().await;
    let exec = Exec { argv: vec!["cat".to_owned()], stdin: true, ..Exec::default() };
    let mut stream = session.start(exec).await.unwrap();
    stream.send(Kind::Stdin, b"one ").await;
    stream.send(Kind::Stdin, b"two").await;
    stream.send(Kind::Stdin, b"").await;
    let outcome = stream.outcome().await;
    assert_eq!((outcome.stdout.as_slice(), outcome.exit), (b"one two".as_slice(), Exit::Code(0)));
    // Without input it is /dev/null, which ends at once.
    assert_eq!(run(&session, shell("cat; echo done")).await.0, "done\n");
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let guest = Guest::start();
    let session = guest.session().await;
    std::fs::write(guest.root().join("plain"), "text").unwrap();
    guest.write_program("script", "#!/no/such/interpreter\n");
    let code = async |argv: &[&str], change: &dyn Fn(&mut Exec)| {
        let mut exec = Exec { argv: argv.iter().map(|&word| word.to_owned()).collect(), ..Exec::default() };
        change(&mut exec);
        let error = session.exec(exec).await.unwrap_err();
        assert!(!error.message.contains('\n') && error.message.len() > 10, "{error}");
        error.code
    };
    let as_is: &dyn Fn(&mut Exec) = &|_| {};
    assert_eq!(code(&["no-such-program"], as_is).await, CallErrorCode::NotFound);
    assert_eq!(code(&["./none"], as_is).await, CallErrorCode::NotFound);
    assert_eq!(code(&["./script"], as_is).await, CallErrorCode::NotFound);
    assert_eq!(code(&["./plain"], as_is).await, CallErrorCode::NotExecutable);
    assert_eq!(code(&["/"], as_is).await, CallErrorCode::NotExecutable);
    assert_eq!(code(&[], as_is).await, CallErrorCode::Invalid);
    assert_eq!(code(&["true"], &|exec| exec.user = Some("no such user".into())).await, CallErrorCode::NotFound);
    assert_eq!(code(&["true"], &|exec| exec.workdir = Some("/no/where".into())).await, CallErrorCode::NotFound);
}

#[tokio::test]
async fn a_script_that_names_no_interpreter_is_run_by_the_shell() {
    let guest = Guest::start();
    let session = guest.session().await;
    guest.write_program("script", "echo $1 $0\n");
    let exec = Exec { argv: vec!["./script".to_owned(), "given".to_owned()], ..Exec::default() };
    assert!(run(&session, exec).await.0.starts_with("given "));
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group() {
    let guest = Guest::start();
    let session = guest.session().await;
    let mut stream =
        session.start(shell("trap 'echo got it; exit 3' INT; echo ready; sleep 60 & wait; wait")).await.unwrap();
    assert_eq!(stream.next().await.payload, "ready\n");
    stream.send(Kind::Signal, &[2]).await;
    let outcome = timeout(LONG, stream.outcome()).await.unwrap();
    assert_eq!((outcome.stdout.as_slice(), outcome.exit), (b"got it\n".as_slice(), Exit::Code(3)));
}

#[tokio::test]
async fn a_background_process_does_not_hold_the_exit_up() {
    let guest = Guest::start();
    let session = guest.session().await;
    let running = run(&session, shell("sleep 60 & echo $!"));
    let (out, _, exit) = timeout(Duration::from_secs(5), running).await.unwrap();
    assert_eq!(exit, Exit::Code(0));
    guest.kill(out.trim());
}

#[tokio::test]
async fn a_terminal_has_a_size_and_an_echo() {
    let guest = Guest::start();
    let session = guest.session().await;
    let mut exec = shell(
        "stty size; tty -s && echo tty; echo $TERM; trap 'stty size; exit 4' WINCH; read line; echo got $line; while :; do sleep 0.1; done",
    );
    exec.tty = Some(Terminal { rows: 30, columns: 100, term: "xterm".to_owned() });
    let mut stream = session.start(exec).await.unwrap();
    stream.until("xterm\r\n").await;
    stream.send(Kind::Stdin, b"typed\n").await;
    let seen = stream.until("got typed\r\n").await;
    assert!(seen.contains("typed\r\n"), "the terminal echoes: {seen:?}");
    stream.frame(&Frame::resize(40, 120)).await;
    let outcome = timeout(LONG, stream.outcome()).await.unwrap();
    assert_eq!((String::from_utf8(outcome.stdout).unwrap().as_str(), outcome.exit), ("40 120\r\n", Exit::Code(4)));
}

#[tokio::test]
async fn a_login_shell_is_named_as_one() {
    let guest = Guest::start();
    let session = guest.session().await;
    let exec = Exec { login_shell: true, stdin: true, ..Exec::default() };
    let mut stream = session.start(exec).await.unwrap();
    stream.send(Kind::Stdin, b"echo $0; exit 5\n").await;
    let outcome = timeout(LONG, stream.outcome()).await.unwrap();
    assert!(outcome.stdout.starts_with(b"-"), "{:?}", String::from_utf8_lossy(&outcome.stdout));
    assert_eq!(outcome.exit, Exit::Code(5));
}

#[tokio::test]
async fn a_dropped_stream_ends_its_command() {
    let guest = Guest::start();
    let session = guest.session().await;
    for script in ["echo $$; exec yes", "echo $$; exec sleep 60", "echo $$; sleep 60 & sleep 61; echo over"] {
        let mut stream = session.start(shell(script)).await.unwrap();
        let pid = stream.first_line().await;
        drop(stream);
        guest.wait_until_gone(&pid, Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_stream_is_seen_to_be_dropped_behind_input_that_nobody_reads() {
    let guest = Guest::start();
    let session = guest.session().await;
    let mut exec = shell("echo $$; exec sleep 60");
    exec.stdin = true;
    let mut stream = session.start(exec).await.unwrap();
    let pid = stream.first_line().await;
    let piece = vec![0; 60_000];
    while timeout(Duration::from_millis(300), stream.send(Kind::Stdin, &piece)).await.is_ok() {}
    drop(stream);
    guest.wait_until_gone(&pid, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_command_that_ignores_the_hang_up_is_killed_with_its_children() {
    let guest = Guest::start();
    let session = guest.session().await;
    let mut stream =
        session.start(shell("trap '' HUP; sleep 60 & echo $!; echo $$; sleep 61; sleep 62")).await.unwrap();
    let child = stream.first_line().await;
    drop(stream);
    guest.wait_until_gone(&child, Duration::from_secs(8)).await;
}
