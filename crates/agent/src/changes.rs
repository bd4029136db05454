//! What a running guest is told to be from now on.

use std::time::{Duration, Instant};

use banger_protocol::call::{CallError, CallErrorCode};

use crate::boot;
use crate::guest::Guest;

/// How long a disk may take to have the size that its VMM gave it; it takes some milliseconds.
const RESIZED_WITHIN: Duration = Duration::from_secs(10);

/// Gives the guest another host name.
///
/// # Errors
/// The error that the caller is to be told.
pub fn set_name(guest: &Guest, name: &str) -> Result<(), CallError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(allowed) {
        let message = format!("{name:?} is no host name");
        return Err(CallError { code: CallErrorCode::Invalid, message });
    }
    if guest.is_fake() {
        // The host's own name is none of our business.
        return Ok(());
    }
    boot::set_name(name).map_err(|error| failed(boot::in_one_line(&error)))
}

/// Lets the owners of these keys log in by SSH, as root and as `user`.
///
/// # Errors
/// The error that the caller is to be told.
pub fn authorize(guest: &Guest, keys: &[String], user: Option<&str>) -> Result<(), CallError> {
    boot::authorize(keys, user, &guest.system_root()).map_err(|error| failed(boot::in_one_line(&error)))
}

/// Waits until the work disk has this size, in bytes, and grows its file system to it.
///
/// # Errors
/// The error that the caller is to be told.
pub async fn grow(guest: &Guest, bytes: u64) -> Result<(), CallError> {
    if guest.is_fake() {
        return Ok(());
    }
    let grow = move || boot::grow_work_disk(bytes, Instant::now() + RESIZED_WITHIN);
    match tokio::task::spawn_blocking(grow).await {
        Ok(grown) => grown.map_err(|error| failed(format!("cannot grow the file system on /root: {error}"))),
        Err(broken) => Err(failed(format!("cannot grow the file system on /root: {broken}"))),
    }
}

fn failed(message: String) -> CallError {
    CallError { code: CallErrorCode::Failed, message }
}
