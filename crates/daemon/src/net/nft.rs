//! nft(8), told what to do, one script after the other. Each is one transaction: all of it holds, or nothing.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use banger_linux::file;
use banger_linux::process::{Launch, Process, ProcessError, Program, Stream};
use rustix::process::Signal;

use super::listing::{Listing, ListingError};
use crate::ground::Slot;

/// How long it may take. A table with hundreds of leases takes some hundredths of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many changes may be waiting to be heard of.
const MOST_OWN: usize = 256;

/// Why rules do not hold.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// It is not installed.
    #[error("nft is not installed")]
    Missing,
    /// It refuses.
    #[error("nft refuses banger's rules: {said}")]
    Refused {
        /// In its own words.
        said: String,
    },
    /// It does not list rules as JSON.
    #[error("nft does not list rules as JSON: {said}")]
    Unfit {
        /// In its own words.
        said: String,
    },
    /// It does not end.
    #[error("nft did not end within {} s", PATIENCE.as_secs())]
    Silent,
    /// It could not be started or watched.
    #[error("cannot run nft")]
    Run(#[source] ProcessError),
    /// What it lists cannot be read.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// It could not be told or heard.
    #[error("cannot talk to nft")]
    Talk(#[source] io::Error),
}

/// nft, and what it was told.
#[derive(Debug, Default)]
pub struct Nft {
    /// Processes whose change of the rules is not yet heard of.
    own: Mutex<Vec<u32>>,
}

impl Nft {
    /// Has a script done.
    ///
    /// # Errors
    /// [`NftError`]; nothing of it holds then.
    pub async fn apply(&self, script: &str) -> Result<(), NftError> {
        self.run(&["-f", "-"], script, true).await.map(drop)
    }

    /// Has commands done that are in nft's JSON (libnftables-json(5)). It is how others' tables are spoken of: their names may be
    /// words that a script cannot have in such a place.
    ///
    /// # Errors
    /// [`NftError`]; nothing of it holds then.
    pub async fn apply_json(&self, commands: &serde_json::Value) -> Result<(), NftError> {
        self.run(&["-j", "-f", "-"], &commands.to_string(), true).await.map(drop)
    }

    /// Whether it lists rules as it has to, of which nothing is heard where rules are only made.
    ///
    /// # Errors
    /// [`NftError`].
    pub async fn can_list(&self) -> Result<(), NftError> {
        match self.run(&["-j", "-t", "list", "tables"], "", false).await {
            Ok(said) => Ok(Listing::parse(&said).map(drop)?),
            Err(NftError::Refused { said }) => Err(NftError::Unfit { said }),
            Err(error) => Err(error),
        }
    }

    /// Whether it takes a script; nothing of it is done.
    ///
    /// # Errors
    /// [`NftError`].
    pub async fn would_take(&self, script: &str) -> Result<(), NftError> {
        self.run(&["-c", "-f", "-"], script, false).await.map(drop)
    }

    /// All rules there are, without the elements of sets, which others may have many of.
    ///
    /// # Errors
    /// [`NftError`].
    pub async fn rules(&self) -> Result<Listing, NftError> {
        Ok(Listing::parse(&self.run(&["-j", "-t", "list", "ruleset"], "", false).await?)?)
    }

    /// The tables of a slot with all their content; `None` if one is missing.
    ///
    /// # Errors
    /// [`NftError`].
    pub async fn own_tables(&self, slot: Slot) -> Result<Option<Listing>, NftError> {
        let name = slot.table();
        let table = async |family| match self.run(&["-j", "list", "table", family, &name], "", false).await {
            Ok(said) => Ok(Some(Listing::parse(&said)?)),
            Err(NftError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let (bridge, inet) = futures::future::try_join(table("bridge"), table("inet")).await?;
        Ok(bridge.zip(inet).map(|(bridge, inet)| bridge.and(inet)))
    }

    /// Whether a change that is heard of was made here. It is heard of once.
    pub fn is_own(&self, pid: u32) -> bool {
        let mut own = self.own();
        let at = own.iter().position(|own| *own == pid);
        at.map(|at| own.swap_remove(at)).is_some()
    }

    async fn run(&self, args: &[&str], script: &str, changes: bool) -> Result<String, NftError> {
        let (told, mut heard, mut said) = streams(script).map_err(NftError::Talk)?;
        let mut launch = Launch::new(Program::Nft, args.iter().copied());
        launch.stdin = Stream::Fd(told.into());
        launch.stdout = Stream::Fd(heard.try_clone().map_err(NftError::Talk)?.into());
        launch.stderr = Stream::Fd(said.try_clone().map_err(NftError::Talk)?.into());
        let nft = Process::start(launch).map_err(|error| match error {
            ProcessError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => NftError::Missing,
            error => NftError::Run(error),
        })?;
        if changes {
            let mut own = self.own();
            own.push(nft.pid());
            // Where nobody listens, nobody asks either.
            if own.len() > MOST_OWN {
                own.remove(0);
            }
        }
        let status = match tokio::time::timeout(PATIENCE, nft.ended()).await {
            Ok(ended) => ended.map_err(NftError::Run)?,
            Err(_) => {
                nft.signal(Signal::KILL).map_err(NftError::Run)?;
                nft.ended().await.map_err(NftError::Run)?;
                return Err(NftError::Silent);
            }
        };
        if status.is_some_and(|status| status.success()) {
            return text(&mut heard).map_err(NftError::Talk);
        }
        // Nothing is changed, so nothing is heard of.
        self.is_own(nft.pid());
        let words = text(&mut said).map_err(NftError::Talk)?;
        Err(NftError::Refused { said: words.lines().next().unwrap_or("it does not say why").trim().to_owned() })
    }

    fn own(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn streams(script: &str) -> io::Result<(File, File, File)> {
    let mut told = file::in_memory("nft")?;
    told.write_all(script.as_bytes())?;
    told.rewind()?;
    Ok((told, file::in_memory("nft")?, file::in_memory("nft")?))
}

fn text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    // Names of others may be any bytes.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
