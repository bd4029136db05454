//! `banger ssh-config`: plain ssh, and all that is built on it, told how to get to VMs.

use clap::Args;

use super::ssh::socket;
use crate::app::App;
use crate::caller;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::write_bytes;
use crate::ssh::blocks;
use crate::ssh::config_file::{Files, Outcome};
use crate::ssh::options::{Caller, block};
use crate::ssh::{keys, reach};

/// Arguments of `ssh-config`.
#[derive(Debug, Args)]
#[command(after_help = "\
With it `ssh devbox.vm`, scp, sftp, rsync and git over ssh reach VMs through the daemon: without DNS and without a network, \
and without a question about host keys, also where a VM is removed and made anew. After a change of the domain, or a move of the \
program, --install again.")]
pub struct SshConfig {
    /// Print what ssh has to be told; so does no option
    #[arg(long)]
    print: bool,
    /// Write it to a file of banger's own, which ~/.ssh/config includes from then on
    #[arg(long, conflicts_with = "print")]
    install: bool,
    /// Take both back; the rest of ~/.ssh/config stays as it is
    #[arg(long, conflicts_with_all = ["print", "install"])]
    uninstall: bool,
}

impl SshConfig {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        if !self.install && !self.uninstall {
            return write_bytes(&text(app).await?.0).map(|()| 0);
        }
        if let Some(user) = caller::sudo_user(&app.environment) {
            return Err(Failure::usage(
                format!("under sudo this would change how root uses ssh, not {user}"),
                "run it without sudo; it needs the daemon's socket and no more",
            ));
        }
        let files = Files::of(&app.environment)?;
        let (own, users) = (files.own.display(), files.users.display());
        if self.uninstall {
            app.screen.say(&match files.uninstall()? {
                Outcome::Changed => format!("{own} is removed, and {users} does not include it any more"),
                Outcome::Unchanged => format!("{users} did not include {own}"),
            });
            return Ok(0);
        }
        let (block, domain) = text(app).await?;
        let all = blocks::with(&files.own_text()?, &block, &Environment::usual_socket())?;
        app.screen.say(&match files.install(&all)? {
            Outcome::Changed => format!("{users} includes {own}: ssh NAME.{domain} reaches the VM NAME"),
            Outcome::Unchanged => format!("{users} included {own} already, as it is now"),
        });
        Ok(0)
    }
}

/// What ssh has to be told, and the domain that it is for.
async fn text(app: &App) -> Result<(Vec<u8>, String), Failure> {
    let domain = reach::domain(app).await?;
    let key = keys::managed(&app.environment)?;
    let socket = socket(app);
    let caller = Caller { program: app.environment.program(), socket: socket.as_deref(), key: Some(&key.path) };
    Ok((block(caller, &domain), domain))
}
