//! What this machine says of itself that an image is made after: its Debian, its mirrors, how its apt reaches them.

use std::io;
use std::path::{Path, PathBuf};

use super::apt::{self, Mirrors, Source};

/// The suite that is built where the host is no Debian.
const DEFAULT_SUITE: &str = "bookworm";

/// Settings of the host's apt that decide whether it reaches its mirrors at all.
const ACQUIRE: [&str; 7] = [
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::Retries",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::Max-FutureTime",
    "Acquire::ForceIPv4",
];

/// Why the host's configuration could not be used.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No Debian archive is configured.
    #[error("no entry in {} leads to a Debian archive", dir.display())]
    NoMirror {
        /// apt's directory.
        dir: PathBuf,
    },
}

/// The suite to build on this host.
pub fn own_suite() -> String {
    // A host without the file is no Debian.
    suite(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// The suite to build: that of the host, if it is a Debian with a name, else a default.
pub fn suite(os_release: &str) -> String {
    match (os_release_field(os_release, "ID"), os_release_field(os_release, "VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => codename.to_owned(),
        _ => DEFAULT_SUITE.to_owned(),
    }
}

/// A field of an os-release(5) file, without its quotes.
pub fn os_release_field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?.trim();
    let quoted = |mark| value.strip_prefix(mark).and_then(|value| value.strip_suffix(mark));
    Some(quoted('"').or_else(|| quoted('\'')).unwrap_or(value))
}

/// The Debian mirrors that the host's apt uses.
///
/// # Errors
/// [`HostError`].
pub fn mirrors(etc_apt: &Path) -> Result<Mirrors, HostError> {
    let mut sources = Vec::new();
    for path in configuration_files(etc_apt, "sources.list", "sources.list.d")? {
        let text = read(&path)?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(apt::parse_list(&text)),
            Some("sources") => sources.extend(apt::parse_deb822(&text)),
            // apt passes over files of other names, too.
            _ => {}
        }
    }
    for source in &mut sources {
        resolve_mirror_file(source)?;
    }
    apt::mirrors(&sources).ok_or_else(|| HostError::NoMirror { dir: etc_apt.to_owned() })
}

/// The host's settings of how to reach a mirror (its proxy above all), as apt options.
///
/// # Errors
/// [`HostError::Read`].
pub fn acquire_options(etc_apt: &Path) -> Result<Vec<String>, HostError> {
    let mut options = Vec::new();
    for path in configuration_files(etc_apt, "apt.conf", "apt.conf.d")? {
        options.extend(acquire_lines(&read(&path)?));
    }
    Ok(options)
}

/// The settings of [`ACQUIRE`] that stand on a line of their own, which is how they are written.
fn acquire_lines(text: &str) -> Vec<String> {
    let wanted =
        |line: &&str| ACQUIRE.iter().any(|prefix| starts_with_ignoring_case(line, prefix)) && line.ends_with(';');
    text.lines().map(str::trim).filter(wanted).map(|line| line.trim_end_matches(';').to_owned()).collect()
}

fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// `mirror+file:/path` names a file with one address a line, the best first (apt-transport-mirror(1)). Debian's own cloud
/// images are set up like that.
fn resolve_mirror_file(source: &mut Source) -> Result<(), HostError> {
    let Some(path) = source.uri.strip_prefix("mirror+file:") else { return Ok(()) };
    let text = read(Path::new(&format!("/{}", path.trim_start_matches('/'))))?;
    if let Some(first) =
        text.lines().find_map(|line| line.split_ascii_whitespace().next().filter(|word| !word.starts_with('#')))
    {
        source.uri = first.to_owned();
    }
    Ok(())
}

/// apt reads the one file, then those of the directory by their names.
fn configuration_files(etc_apt: &Path, file: &str, directory: &str) -> Result<Vec<PathBuf>, HostError> {
    let mut paths = Vec::new();
    let single = etc_apt.join(file);
    if single.exists() {
        paths.push(single);
    }
    let directory = etc_apt.join(directory);
    match std::fs::read_dir(&directory) {
        Ok(entries) => {
            let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            found.retain(|path| path.is_file());
            found.sort_unstable();
            paths.extend(found);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(HostError::Read { path: directory, source }),
    }
    Ok(paths)
}

fn read(path: &Path) -> Result<String, HostError> {
    std::fs::read_to_string(path).map_err(|source| HostError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_that_of_a_debian_host() {
        let debian =
            "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\nID=debian\n";
        assert_eq!(suite(debian), "trixie");
        assert_eq!(os_release_field(debian, "PRETTY_NAME"), Some("Debian GNU/Linux 13 (trixie)"));
        assert_eq!(suite("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n"), DEFAULT_SUITE);
        assert_eq!(suite("ID=debian\nPRETTY_NAME='Debian unstable'\n"), DEFAULT_SUITE);
    }

    #[test]
    fn a_whole_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path();
        std::fs::create_dir(etc.join("sources.list.d")).unwrap();
        std::fs::write(etc.join("best"), "http://near.example.org/debian\tpriority:1\nhttp://far.example.org/debian\n")
            .unwrap();
        let list = format!("deb mirror+file:{}/best bookworm main\n", etc.display());
        std::fs::write(etc.join("sources.list"), list).unwrap();
        std::fs::write(etc.join("sources.list.d/z.list.off"), "deb http://off.example.org/debian bookworm main")
            .unwrap();
        let security =
            "Types: deb\nURIs: http://near.example.org/debian-security\nSuites: bookworm-security\nComponents: main\n";
        std::fs::write(etc.join("sources.list.d/a.sources"), security).unwrap();
        let found = mirrors(etc).unwrap();
        assert_eq!(found.archive.uri, "http://near.example.org/debian");
        assert_eq!(found.security.unwrap().uri, "http://near.example.org/debian-security");
        std::fs::remove_dir_all(etc.join("sources.list.d")).unwrap();
        std::fs::remove_file(etc.join("sources.list")).unwrap();
        assert!(matches!(mirrors(etc), Err(HostError::NoMirror { .. })));
    }

    #[test]
    fn a_proxy_is_taken_over_and_other_settings_are_not() {
        let text = "// a comment\nAcquire::http::Proxy \"http://proxy.example.org:3142\";\n\
                    acquire::check-valid-until \"false\";\nAcquire::Languages \"none\";\nAPT::Install-Recommends \"0\";\n";
        assert_eq!(
            acquire_lines(text),
            ["Acquire::http::Proxy \"http://proxy.example.org:3142\"", "acquire::check-valid-until \"false\""]
        );
    }
}
