//! What can be said of a request to build an image without a look at the host. Pure.

use banger_api::image::{ImageBuild, MIN_SIZE};
use banger_api::vm::MAX_DISK;

use super::builds::BuildError;
use super::debian;

/// Checks what can be said of a request before anything is begun.
///
/// # Errors
/// [`BuildError::Name`], [`BuildError::Size`].
pub fn check(request: &ImageBuild) -> Result<(), BuildError> {
    request.name.as_deref().map_or(Ok(()), check_name)?;
    request.size.map_or(Ok(()), check_size)?;
    if let Some(suite) = request.suite.as_ref().filter(|suite| !debian::is_suite(suite)) {
        return Err(BuildError::Suite(suite.clone()));
    }
    match request.packages.iter().find(|package| !debian::is_package(package)) {
        Some(package) => Err(BuildError::Package(package.clone())),
        None => Ok(()),
    }
}

/// Checks the size of a root disk, in bytes.
///
/// # Errors
/// [`BuildError::Size`].
pub fn check_size(size: u64) -> Result<(), BuildError> {
    if (MIN_SIZE..=MAX_DISK).contains(&size) { Ok(()) } else { Err(BuildError::Size(size)) }
}

/// Checks an image's name.
///
/// # Errors
/// [`BuildError::Name`].
pub fn check_name(name: &str) -> Result<(), BuildError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|first: char| first.is_ascii_lowercase());
    if good { Ok(()) } else { Err(BuildError::Name { name: name.to_owned() }) }
}
