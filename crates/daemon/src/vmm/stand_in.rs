//! Programs that tests write to play others.

use std::path::{Path, PathBuf};

use banger_linux::process::{Launch, Leash, Program};

/// Makes a shell script `dir/name` that can be executed.
///
/// It is put in place by another process: a child that some other test forks at the wrong moment would have the file open
/// for writing, and what is open for writing cannot be executed.
pub async fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let source = format!("{name}.sh");
    std::fs::write(dir.join(&source), format!("#!/bin/sh\n{text}\n")).unwrap();
    let mut launch = Launch::new(Program::Command("/usr/bin/install".into()), ["-m", "755", &source, name]);
    launch.workdir = Some(dir.to_owned());
    assert!(Leash::start(launch).unwrap().ended().await.unwrap().success());
    dir.join(name)
}
