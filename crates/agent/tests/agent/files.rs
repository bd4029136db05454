//! Files to and from a fake guest.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use banger_protocol::call::{Answer, Call, CallError, CallErrorCode};
use banger_protocol::frame::Kind;
use tar::{Builder, EntryType, Header};

use crate::guest::{Guest, Session};

/// Sends a tar stream in pieces of an odd size.
async fn put(session: &Session, path: &Path, name: &str, tar: &[u8]) -> Result<(), CallError> {
    let path = path.display().to_string();
    let mut reply = session.call(&Call::Put { path, name: name.to_owned() }).await;
    if let Answer::Error(error) = reply.answer {
        return Err(error);
    }
    for piece in tar.chunks(70_001) {
        reply.send(Kind::Data, piece).await;
    }
    reply.send(Kind::Data, b"").await;
    let last = reply.next().await;
    match last.kind {
        Kind::Data => Ok(()),
        _ => Err(last.parse().unwrap()),
    }
}

async fn get(session: &Session, path: &Path) -> Result<Vec<u8>, CallError> {
    let mut reply = session.call(&Call::Get { path: path.display().to_string(), pattern: false }).await;
    if let Answer::Error(error) = reply.answer {
        return Err(error);
    }
    let mut tar = Vec::new();
    loop {
        let frame = reply.next().await;
        match frame.kind {
            Kind::Data if frame.payload.is_empty() => return Ok(tar),
            Kind::Data => tar.extend_from_slice(&frame.payload),
            _ => return Err(frame.parse().unwrap()),
        }
    }
}

/// A tar stream of these entries: kind, path, and content or link.
fn tar_of(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, path, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        header.set_uid(me.0.into());
        header.set_gid(me.1.into());
        // Written into the field as it is: the library itself would refuse some of these paths.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        let data = if is_link { "" } else { content };
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn file(path: &str, content: &str) -> Vec<u8> {
    tar_of(&[(EntryType::Regular, path, content)])
}

/// A directory with one of everything, and what it looks like.
fn everything(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("sub/empty")).unwrap();
    fs::write(tree.join("plain"), "plain text").unwrap();
    fs::write(tree.join("sub").join("x".repeat(150)), "a long name").unwrap();
    fs::write(tree.join("large"), (0..700_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    fs::hard_link(tree.join("plain"), tree.join("sub/linked")).unwrap();
    symlink("../plain", tree.join("sub/link")).unwrap();
    symlink("/no/where", tree.join("dangling")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"an island", 40 << 20).unwrap();
    fs::set_permissions(tree.join("plain"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(tree.join("sub/empty"), fs::Permissions::from_mode(0o1555)).unwrap();
    File::open(tree.join("large")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    tree
}

fn listing(tree: &Path) -> Vec<(String, u32, u64, i64, String)> {
    let mut found = Vec::new();
    let mut left = vec![tree.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if metadata.is_file() && metadata.len() < 4 << 20 {
            format!("{:?}", fs::read(&path).unwrap())
        } else {
            String::new()
        };
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let name = path.strip_prefix(tree).unwrap().display().to_string();
        let size = if metadata.is_file() { metadata.len() } else { 0 };
        found.push((name, metadata.mode(), size, metadata.mtime(), content));
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_tree_comes_out_and_goes_in_as_it_was() {
    let guest = Guest::start();
    let session = guest.session().await;
    let dir = tempfile::tempdir().unwrap();
    let tree = everything(dir.path());
    let tar = get(&session, &tree).await.unwrap();
    assert!(tar.len() < 6 << 20, "holes are not sent: {}", tar.len());
    put(&session, &guest.root(), "tree", &tar).await.unwrap();
    let copy = guest.root().join("tree");
    assert_eq!(listing(&copy), listing(&tree));
    assert!(fs::metadata(copy.join("sparse")).unwrap().blocks() < 100);
    let inode = |name: &str| fs::metadata(copy.join(name)).unwrap().ino();
    assert_eq!(inode("plain"), inode("sub/linked"));
    // Over what is there already, and under another name.
    put(&session, &guest.root(), "tree", &tar).await.unwrap();
    put(&session, &guest.root().join("other"), "tree", &tar).await.unwrap();
    assert_eq!(listing(&guest.root().join("other")), listing(&tree));
}

#[tokio::test]
async fn zeros_become_holes() {
    let guest = Guest::start();
    let session = guest.session().await;
    let mut content = vec![0u8; 3 << 20];
    content[1 << 20] = 1;
    let text = String::from_utf8(content).unwrap();
    put(&session, &guest.root().join("zeros"), "z", &file("z", &text)).await.unwrap();
    let copy = guest.root().join("zeros");
    assert_eq!(fs::read_to_string(&copy).unwrap(), text);
    assert!(fs::metadata(&copy).unwrap().blocks() <= 16);
}

#[tokio::test]
async fn the_result_is_named_as_cp_names_it() {
    let guest = Guest::start();
    let session = guest.session().await;
    let root = guest.root();
    put(&session, &root.join("new"), "f", &file("f", "1")).await.unwrap();
    put(&session, &root, "f", &file("f", "2")).await.unwrap();
    put(&session, Path::new("relative"), "f", &file("f", "3")).await.unwrap();
    put(&session, &root.join("new"), "f", &file("f", "4, which is longer")).await.unwrap();
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    assert_eq!((read("new"), read("f"), read("relative")), ("4, which is longer".into(), "2".into(), "3".into()));
    let contents = tar_of(&[(EntryType::Directory, "./", ""), (EntryType::Regular, "./a", "a")]);
    fs::create_dir(root.join("there")).unwrap();
    put(&session, &root.join("there"), ".", &contents).await.unwrap();
    put(&session, &root.join("made"), ".", &contents).await.unwrap();
    assert_eq!((read("there/a"), read("made/a")), ("a".into(), "a".into()));
    let code = async |path: &Path| put(&session, path, "f", &file("f", "x")).await.unwrap_err().code;
    assert_eq!(code(&root.join("no/where/f")).await, CallErrorCode::NotFound);
    assert_eq!(code(&root.join("no-slash/")).await, CallErrorCode::NotFound);
}

#[tokio::test]
async fn a_link_that_is_named_is_followed_and_one_that_is_found_is_not() {
    let guest = Guest::start();
    let session = guest.session().await;
    fs::write(guest.root().join("real"), "content").unwrap();
    symlink("real", guest.root().join("link")).unwrap();
    let tar = get(&session, &guest.root().join("link")).await.unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!((entry.path().unwrap().to_str().unwrap(), entry.size()), ("link", 7));
    assert_eq!(get(&session, Path::new("/no/such/file")).await.unwrap_err().code, CallErrorCode::NotFound);
}

#[tokio::test]
async fn nothing_leaves_the_place_it_is_put_in() {
    let guest = Guest::start();
    let session = guest.session().await;
    let root = guest.root();
    let outside = root.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    let outside_text = outside.display().to_string();
    let refused = [
        file("../outside/victim", "gone"),
        file("/d/../../outside/victim", "gone"),
        file("e", "another name"),
        tar_of(&[(EntryType::Directory, "d/", ""), (EntryType::Regular, "d/../../outside/victim", "gone")]),
        tar_of(&[(EntryType::Symlink, "d", "../outside"), (EntryType::Regular, "d/victim", "gone")]),
        tar_of(&[
            (EntryType::Directory, "d/", ""),
            (EntryType::Symlink, "d/link", &outside_text),
            (EntryType::Regular, "d/link/victim", "gone"),
        ]),
        tar_of(&[(EntryType::Directory, "d/", ""), (EntryType::Link, "d/hard", "../outside/victim")]),
        tar_of(&[
            (EntryType::Directory, "d/", ""),
            (EntryType::Symlink, "d/link", &outside_text),
            (EntryType::Link, "d/hard", "d/link/victim"),
        ]),
    ];
    let place = root.join("place");
    for (number, tar) in refused.iter().enumerate() {
        fs::create_dir_all(&place).unwrap();
        let error = put(&session, &place, "d", tar).await.expect_err(&format!("number {number} was taken"));
        assert!(!error.message.contains('\n'), "{error}");
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "after number {number}");
        fs::remove_dir_all(&place).unwrap();
    }
    // A link over which a file is written is replaced, not followed.
    symlink(outside.join("victim"), root.join("f")).unwrap();
    put(&session, &root, "f", &file("f", "new")).await.unwrap();
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "untouched");
    for name in ["..", "a/b", "", "/"] {
        let error = put(&session, &root, name, &file("f", "x")).await.unwrap_err();
        assert_eq!(error.code, CallErrorCode::Invalid, "{name:?}");
    }
}

#[tokio::test]
async fn what_is_cut_off_is_no_success() {
    let guest = Guest::start();
    let session = guest.session().await;
    let tar = file("f", &"x".repeat(100_000));
    let error = put(&session, &guest.root(), "f", &tar[..50_000]).await.unwrap_err();
    assert_eq!(error.code, CallErrorCode::Failed);
    assert!(
        put(&session, &guest.root(), "f", b"no tar at all, but long enough to hold a header".repeat(20).as_slice())
            .await
            .is_err()
    );
    // A caller that goes in the middle leaves the agent as it was.
    let mut reply = session.call(&Call::Put { path: guest.root().display().to_string(), name: "f".into() }).await;
    reply.send(Kind::Data, &tar[..50_000]).await;
    drop(reply);
    put(&session, &guest.root(), "f", &tar).await.unwrap();
    assert_eq!(fs::metadata(guest.root().join("f")).unwrap().len(), 100_000);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_keeps_the_stream_whole() {
    let guest = Guest::start();
    let session = guest.session().await;
    let path = guest.root().join("growing");
    let mut growing = File::create(&path).unwrap();
    growing.write_all(&vec![1; 4 << 20]).unwrap();
    let mut reply = session.call(&Call::Get { path: path.display().to_string(), pattern: false }).await;
    let first = reply.next().await;
    growing.write_all(&vec![2; 1 << 20]).unwrap();
    let mut tar = first.payload.to_vec();
    loop {
        let frame = reply.next().await;
        assert_eq!(frame.kind, Kind::Data);
        if frame.payload.is_empty() {
            break;
        }
        tar.extend_from_slice(&frame.payload);
    }
    let mut archive = tar::Archive::new(tar.as_slice());
    let sizes: Vec<u64> = archive.entries().unwrap().map(|entry| entry.unwrap().size()).collect();
    assert_eq!(sizes, [4 << 20]);

    let mut reply = session.call(&Call::Get { path: path.display().to_string(), pattern: false }).await;
    drop(reply.next().await);
    growing.set_len(1).unwrap();
    loop {
        let frame = reply.next().await;
        if frame.kind == Kind::Failed {
            break;
        }
        assert!(!frame.payload.is_empty(), "a file that shrank was sent as whole");
    }
}

#[tokio::test]
async fn a_pattern_gives_every_file_that_it_names() {
    let guest = Guest::start();
    let session = guest.session().await;
    for name in ["b.log", "a.log", ".hidden.log", "c.txt"] {
        fs::write(guest.root().join(name), name).unwrap();
    }
    symlink("/no/where", guest.root().join("gone.log")).unwrap();
    // Below root's home, as every path that does not begin with a slash.
    let call = |path: &str| Call::Get { path: path.to_owned(), pattern: true };
    let mut reply = session.call(&call("*.log")).await;
    assert_eq!(reply.answer, Answer::Files { count: 3 });
    let mut tar = Vec::new();
    loop {
        let frame = reply.next().await;
        if frame.payload.is_empty() {
            break;
        }
        tar.extend_from_slice(&frame.payload);
    }
    let mut archive = tar::Archive::new(tar.as_slice());
    let names: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(names, ["a.log", "b.log", "gone.log"].map(PathBuf::from));
    let Answer::Error(error) = session.call(&call("*.none")).await.answer else { panic!("something matches") };
    assert_eq!(error.code, CallErrorCode::NotFound);
    assert!(error.message.starts_with("no file matches ") && error.message.ends_with("/*.none"), "{error}");
}
