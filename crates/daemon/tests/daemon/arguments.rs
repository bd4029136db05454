//! What is typed wrong is told as every error is: what happened, and what to do.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::process::Command;

#[test]
fn a_misused_daemon_says_what_to_do_and_starts_nothing() {
    for (args, error) in [
        (&["--nope"][..], "error: unexpected argument '--nope' found"),
        (&["--ready-fd", "x"], "error: invalid value 'x' for '--ready-fd <N>': invalid digit found in string"),
    ] {
        #[expect(clippy::disallowed_methods, reason = "tests start the program that they test")]
        let output = Command::new(env!("CARGO_BIN_EXE_bangerd")).args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said), (Some(2), format!("{error}\nhelp: see `bangerd --help`\n")));
    }
}
