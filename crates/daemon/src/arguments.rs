//! The daemon's arguments, for `main.rs`, and for the manual, which is made from them.

use std::path::PathBuf;

use clap::Parser;

/// The manager of banger's virtual machines. It stays in the foreground; `banger` starts one where none runs.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
pub struct Arguments {
    /// Write `ready` to this file descriptor once requests are taken, or what went wrong.
    ///
    /// What went wrong is a line `error: MESSAGE`, a line `help: ADVICE` and, where another daemon has these directories, a line
    /// `taken: PID` with its process id: that one listens already, or is about to.
    #[arg(long, value_name = "N")]
    pub ready_fd: Option<i32>,
    /// The agent that guests are given.
    #[arg(long, value_name = "FILE")]
    pub agent: Option<PathBuf>,
    /// Run guests' agents on this host instead of VMs. For tests.
    #[arg(long, hide = true)]
    pub fake_vmm: bool,
    /// Wait, before the socket has its name, until this named pipe was opened for writing and closed. For tests.
    #[arg(long, hide = true, value_name = "PIPE")]
    pub gate: Option<PathBuf>,
}
