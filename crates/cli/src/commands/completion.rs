//! `banger completion`: the scripts by which shells complete the command line.

use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::output::write_bytes;

/// Arguments of `completion`.
#[derive(Debug, Args)]
#[command(after_help = "\
`make install` puts the scripts where the shells look for them. Otherwise: source <(banger completion bash) in ~/.bashrc, \
the same with zsh behind compinit in ~/.zshrc, banger completion fish > ~/.config/fish/completions/banger.fish.")]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// A shell.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub(super) fn run(&self) -> Result<u8, Failure> {
        let script = match self.shell {
            Shell::Bash => include_str!("../../completions/banger.bash"),
            Shell::Zsh => include_str!("../../completions/_banger"),
            Shell::Fish => include_str!("../../completions/banger.fish"),
        };
        write_bytes(script.as_bytes()).map(|()| 0)
    }
}
