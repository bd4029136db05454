//! nft(8), told what to do, one script after the other. Each is one transaction: all of it holds, or nothing.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::time::Duration;

use banger_linux::file;
use banger_linux::process::{Launch, Process, ProcessError, Program, Stream};
use rustix::process::Signal;

/// How long it may take. A table with hundreds of leases takes some hundredths of a second.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// It does not end.
    #[error("nft did not end within {} s", PATIENCE.as_secs())]
    Silent,
    /// It could not be started or watched.
    #[error("cannot run nft")]
    Run(#[source] ProcessError),
    /// It could not be told or heard.
    #[error("cannot talk to nft")]
    Talk(#[source] io::Error),
}

/// Has a script done.
///
/// # Errors
/// [`NftError`]; nothing of it holds then.
pub async fn apply(script: &str) -> Result<(), NftError> {
    let (told, mut said) = streams(script).map_err(NftError::Talk)?;
    let mut launch = Launch::new(Program::Nft, ["-f", "-"]);
    launch.stdin = Stream::Fd(told.into());
    launch.stderr = Stream::Fd(said.try_clone().map_err(NftError::Talk)?.into());
    let nft = Process::start(launch).map_err(|error| match error {
        ProcessError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => NftError::Missing,
        error => NftError::Run(error),
    })?;
    let status = match tokio::time::timeout(PATIENCE, nft.ended()).await {
        Ok(ended) => ended.map_err(NftError::Run)?,
        Err(_) => {
            nft.signal(Signal::KILL).map_err(NftError::Run)?;
            nft.ended().await.map_err(NftError::Run)?;
            return Err(NftError::Silent);
        }
    };
    if status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    let mut words = String::new();
    said.rewind().and_then(|()| said.read_to_string(&mut words)).map_err(NftError::Talk)?;
    Err(NftError::Refused { said: words.lines().next().unwrap_or("it does not say why").trim().to_owned() })
}

fn streams(script: &str) -> io::Result<(File, File)> {
    let mut told = file::in_memory("nft")?;
    told.write_all(script.as_bytes())?;
    told.rewind()?;
    Ok((told, file::in_memory("nft")?))
}
