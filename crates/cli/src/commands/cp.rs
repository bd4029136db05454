//! `banger cp`.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use banger_api::pattern;
use clap::Args;

use super::values;
use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::complete::Offer;
use crate::copy::{self, Contents, CopyError, Destination, Owners, Packer, Root, Transfer};
use crate::failure::Failure;
use crate::output::{complain, pass_on, printable};

const WHERE: &str = "one side is NAME:PATH, the other a path here, or '-' for a tar stream";

/// Arguments of `cp`.
#[derive(Debug, Args)]
#[command(after_help = "\
NAME:PATH is a path in a VM; without a leading '/' it is below /root. As with docker, 'dir/.' means what is in the \
directory, and '-' a tar stream on standard input or output. An existing directory is copied into, an existing file is \
replaced. Modes, times and holes are kept; on this side set-user-id and set-group-id bits are not.

In a VM's SRC '*', '?' and '[...]' stand for names, as in sh, unless there is a file of that very name: quote them, as in \
'devbox:/var/log/*.log'. Where several match, DST is an existing directory or '-'.")]
pub struct Copy {
    /// Copy directories with all that is in them, as is done anyway
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Keep the numbers of users and groups
    #[arg(short, long)]
    archive: bool,
    /// Copy what SRC links to, if it is a link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// What to copy
    #[arg(value_name = "SRC", add = Offer::Places)]
    source: OsString,
    /// Where to
    #[arg(value_name = "DST", add = Offer::Places)]
    destination: OsString,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Guest { vm: String, path: Vec<u8> },
    Host(PathBuf),
    Stream,
}

impl Copy {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let owners = if self.archive { Owners::Kept } else { Owners::Root };
        let transfer = match (place(&self.source)?, place(&self.destination)?) {
            (Place::Host(source), Place::Guest { vm, path }) => {
                upload(app, &source, &vm, &path, owners, self.follow_link).await?
            }
            (Place::Stream, Place::Guest { vm, path }) => {
                let mut interrupts = Interrupts::catch()?;
                copy::put(app, &vm, (&path, b"."), owners, &mut interrupts, repack).await?
            }
            (Place::Guest { .. }, Place::Host(_) | Place::Stream) if self.follow_link => {
                return Err(Failure::usage("--follow-link works for a SRC on this side only", "name what it links to"));
            }
            (Place::Guest { vm, path }, Place::Host(destination)) => {
                download(app, &vm, &path, &destination, owners).await?
            }
            (Place::Guest { vm, path }, Place::Stream) => {
                let mut interrupts = Interrupts::catch()?;
                match by_pattern(&path) {
                    true => copy::get_matching(app, &vm, &path, &mut interrupts, |_, tar| to_stdout(tar)).await?,
                    false => copy::get(app, &vm, strip_contents(&path).0, &mut interrupts, to_stdout).await?,
                }
            }
            (Place::Guest { .. }, Place::Guest { .. }) => {
                return Err(Failure::usage(
                    "both SRC and DST are in VMs",
                    "copy by way of this side: banger cp A:x - | banger cp - B:y",
                ));
            }
            _ => return Err(Failure::usage("neither SRC nor DST is in a VM", WHERE)),
        };
        report_skipped(app, &transfer);
        Ok(0)
    }
}

/// What is `NAME:PATH` and what is not. As with docker and scp, a path here that has a colon is written `./a:b`.
fn place(text: &OsStr) -> Result<Place, Failure> {
    let bytes = text.as_bytes();
    if bytes == b"-" {
        return Ok(Place::Stream);
    }
    let colon = bytes.iter().position(|&byte| byte == b':');
    let (Some(colon), false) = (colon, bytes.starts_with(b".") || bytes.starts_with(b"/")) else {
        return Ok(Place::Host(PathBuf::from(text)));
    };
    let (vm, path) = (&bytes[..colon], &bytes[colon + 1..]);
    if vm.contains(&b'/') {
        return Ok(Place::Host(PathBuf::from(text)));
    }
    let vm = String::from_utf8_lossy(vm);
    let vm = values::known_name(&vm).map_err(|flaw| {
        let help = format!("{}; for a file of this name, write ./{}", flaw.help, text.to_string_lossy());
        Failure::usage(format!("'{vm}' is not a VM's name: {flaw}"), help)
    })?;
    Ok(Place::Guest { vm, path: in_guest(path) })
}

/// A path in a guest: without a leading `/` it begins at root's home, which the agent knows.
fn in_guest(path: &[u8]) -> Vec<u8> {
    match path {
        b"" | b"~" | b"~/" => b".".to_vec(),
        [b'~', b'/', rest @ ..] | rest => rest.to_vec(),
    }
}

/// A path without a final `/.`, and whether it had one: then what is in the directory is meant, not it.
fn strip_contents(path: &[u8]) -> (&[u8], bool) {
    match path {
        b"/." | b"/" => (b"/", true),
        b"." => (b".", true),
        [rest @ .., b'/', b'.'] => (rest, true),
        _ => (path, false),
    }
}

/// Whether a path may stand for several files. What is in a directory is always that of one.
fn by_pattern(path: &[u8]) -> bool {
    pattern::is_pattern(path) && !strip_contents(path).1
}

/// The last component, where there is one that can be a name.
fn last_component(path: &[u8]) -> Option<&[u8]> {
    let end = path.iter().rposition(|&byte| byte != b'/')? + 1;
    let name = path[..end].rsplit(|&byte| byte == b'/').next()?;
    (name != b"." && name != b"..").then_some(name)
}

async fn upload(
    app: &App,
    source: &Path,
    vm: &str,
    path: &[u8],
    owners: Owners,
    follow: bool,
) -> Result<Transfer, Failure> {
    let unread = |error| Failure::Copy(CopyError::Read { path: source.to_owned(), source: error });
    let typed = source.as_os_str().as_bytes();
    let contents = strip_contents(typed).1;
    let found = source.symlink_metadata().map_err(unread)?;
    let mut from = source.to_owned();
    if contents || (follow && found.is_symlink()) {
        from = source.canonicalize().map_err(unread)?;
    }
    let name = match (contents, last_component(typed)) {
        (true, _) => OsString::from("."),
        (false, Some(name)) => OsStr::from_bytes(name).to_owned(),
        (false, None) => {
            from = source.canonicalize().map_err(unread)?;
            from.file_name().map_or(OsString::from("."), OsStr::to_owned)
        }
    };
    let mut interrupts = Interrupts::catch()?;
    let entry = PathBuf::from(&name);
    let pack = move |packer: &mut Packer<_>| packer.tree(&from, &entry);
    copy::put(app, vm, (path, name.as_bytes()), owners, &mut interrupts, pack).await
}

async fn download(app: &App, vm: &str, path: &[u8], destination: &Path, owners: Owners) -> Result<Transfer, Failure> {
    if by_pattern(path) {
        return download_matching(app, vm, path, destination, owners).await;
    }
    let (path, contents) = strip_contents(path);
    let name = match (contents, last_component(path)) {
        (true, _) => None,
        (false, Some(name)) => Some(OsString::from_vec(name.to_vec())),
        (false, None) => return Err(nameless(path)),
    };
    let to = destination_for(destination, name)?;
    let mut interrupts = Interrupts::catch()?;
    copy::get(app, vm, path, &mut interrupts, move |tar| copy::unpack(tar, &to, owners)).await
}

fn nameless(path: &[u8]) -> Failure {
    let typed = String::from_utf8_lossy(path).into_owned();
    Failure::usage(format!("{typed} does not end with a name"), "for what is in it, append '/.'")
}

async fn download_matching(
    app: &App,
    vm: &str,
    path: &[u8],
    destination: &Path,
    owners: Owners,
) -> Result<Transfer, Failure> {
    let name = last_component(path).ok_or_else(|| nameless(path))?;
    let mut to = destination_for(destination, Some(OsString::from_vec(name.to_vec())))?;
    let one_name = to.directory != destination;
    if !one_name {
        to.root = Root::Matching(name.to_vec());
    }
    let mut interrupts = Interrupts::catch()?;
    let destination = destination.to_owned();
    let unpack = move |count: u32, tar: &mut _| match one_name && count > 1 {
        true => Err(CopyError::ManyFiles { count, path: destination }),
        false => copy::unpack(tar, &to, owners),
    };
    copy::get_matching(app, vm, path, &mut interrupts, unpack).await
}

/// Where what comes from a guest goes: into an existing directory, else in place of `destination`.
fn destination_for(destination: &Path, name: Option<OsString>) -> Result<Destination, Failure> {
    let unwritten = |source| Failure::Copy(CopyError::Write { path: destination.to_owned(), source });
    if destination.is_dir() {
        let only_directory = name.is_none();
        let root = name.map_or(Root::Destination, Root::Named);
        return Ok(Destination { directory: destination.to_owned(), root, only_directory });
    }
    let typed = destination.as_os_str().as_bytes();
    let slash = typed.ends_with(b"/");
    let Some(new_name) = last_component(typed) else { return Err(unwritten(std::io::ErrorKind::NotFound.into())) };
    let parent = destination.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(Destination {
        directory: parent.to_owned(),
        root: Root::Named(OsStr::from_bytes(new_name).to_owned()),
        only_directory: slash || name.is_none(),
    })
}

/// The tar stream on standard input, with all its names below `.`.
fn repack<W: Write>(packer: &mut Packer<W>) -> Result<(), CopyError> {
    let mut archive = tar::Archive::new(std::io::stdin().lock());
    let mut directory = tar::Header::new_gnu();
    directory.set_mode(0o755);
    packer.entry(b"./", &directory, Contents::Directory)?;
    for entry in archive.entries().map_err(CopyError::Input)? {
        let mut entry = entry.map_err(CopyError::Input)?;
        let name = entry.path_bytes().into_owned();
        let name = name.strip_prefix(b"./".as_slice()).unwrap_or(&name);
        if name.iter().all(|byte| b"./".contains(byte)) {
            continue;
        }
        let name = [b"./", name].concat();
        let like = entry.header().clone();
        match like.entry_type() {
            tar::EntryType::Directory => packer.entry(&name, &like, Contents::Directory)?,
            tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                packer.entry(&name, &like, Contents::Symlink(&target))?;
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let size = entry.size();
                packer.entry(&name, &like, Contents::File(size, &mut entry))?;
            }
            _ => packer.skip(PathBuf::from(OsString::from_vec(name))),
        }
    }
    Ok(())
}

fn to_stdout(tar: &mut impl Read) -> Result<Vec<PathBuf>, CopyError> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = tar.read(&mut buffer).map_err(CopyError::Archive)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        pass_on(&buffer[..count]).map_err(CopyError::Output)?;
    }
}

/// Tells of files that were left out.
pub fn report_skipped(app: &App, transfer: &Transfer) {
    if let (Some(first), false) = (transfer.skipped.first(), app.screen.quiet) {
        let count = transfer.skipped.len();
        let kinds = "what is neither a file, a directory nor a link was left out";
        complain(&printable(&format!("{kinds}: {count}, the first is {}", first.display())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(vm: &str, path: &str) -> Place {
        Place::Guest { vm: vm.to_owned(), path: path.as_bytes().to_vec() }
    }

    #[test]
    fn places_are_told_apart() {
        for (text, expected) in [
            ("devbox:/etc/hosts", guest("devbox", "/etc/hosts")),
            ("devbox:", guest("devbox", ".")),
            ("devbox:src/a:b", guest("devbox", "src/a:b")),
            ("devbox:~/x", guest("devbox", "x")),
            ("./a:b", Place::Host("./a:b".into())),
            ("/tmp/a:b", Place::Host("/tmp/a:b".into())),
            ("dir/a:b", Place::Host("dir/a:b".into())),
            ("plain", Place::Host("plain".into())),
            ("-", Place::Stream),
        ] {
            assert_eq!(place(OsStr::new(text)).unwrap(), expected, "{text}");
        }
        assert!(place(OsStr::new("Dev_Box:/x")).is_err());
    }

    #[test]
    fn what_is_in_a_directory_is_told_from_the_directory() {
        assert_eq!(strip_contents(b"/a/."), (b"/a".as_slice(), true));
        assert_eq!(strip_contents(b"/"), (b"/".as_slice(), true));
        assert_eq!(strip_contents(b"/a/b."), (b"/a/b.".as_slice(), false));
        assert_eq!(last_component(b"/a/b/"), Some(b"b".as_slice()));
        assert_eq!(last_component(b"/a/.."), None);
        assert_eq!(last_component(b"/"), None);
    }
}
