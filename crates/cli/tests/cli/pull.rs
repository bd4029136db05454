//! `run DIR --pull`: what a command changed comes back as a patch or on a branch, and nothing else of the checkout changes.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::guest::root;
use crate::support::{Fake, Ran, guest, tool};

/// Runs a script on this host, with a git that knows no configuration but its own.
fn sh(directory: &Path, script: &str) -> String {
    let mut command = tool("/bin/sh", &["-ec", script]);
    command.current_dir(directory).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Test").env(format!("GIT_{who}_EMAIL"), "test@example.org");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A checkout with one of everything, and a place to call from.
fn checkout() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("proj");
    fs::create_dir(&project).unwrap();
    sh(
        &project,
        "git init -q -b main; mkdir sub; printf 'target/\\n*.o\\n' >.gitignore; echo one >kept; echo gone >removed
         echo '#!/bin/sh' >script; printf 'a\\0b' >binary; ln -s kept link; echo deep >sub/deep; mkdir target; echo t >target/kept
         git add .; git add -f target/kept; git commit -qm first; echo ignored >x.o",
    );
    (dir, project)
}

/// Runs `banger run ARGS -- sh -c SCRIPT`, the script in the guest's copy of the checkout.
fn run(fake: &Fake, from: &Path, args: &[&str], script: &str) -> Ran {
    let script = format!("cd {}/proj && {script}", root(fake).display());
    let args = [&["run"], args, &["--", "sh", "-ec", &script]].concat();
    Ran::new(fake.banger(&args).current_dir(from).stdin(Stdio::null()).output().unwrap())
}

const CHANGES: &str =
    "echo two >>kept; rm removed; chmod +x script; printf 'a\\0c' >binary; ln -sf script link; mkdir new
    echo new >'new/a file'; echo more >target/kept; echo junk >target/junk; echo o >y.o; mkdir -p .git/hooks new/.GIT
    echo evil >.git/hooks/pre-commit; echo evil >new/.GIT/config";

/// The state of a checkout that must not change, but for its files.
fn state(project: &Path) -> String {
    sh(
        project,
        "git status --porcelain --ignored; git rev-parse HEAD; git symbolic-ref HEAD; sha256sum .git/index; ls .git/hooks | wc -l",
    )
}

#[test]
fn a_patch_has_every_kind_of_change_and_nothing_that_is_ignored() {
    let fake = guest::start();
    let (dir, project) = checkout();
    let before = state(&project);
    let ran = run(&fake, dir.path(), &["--name", "devbox", "--pull", "proj"], &format!("{CHANGES}; exit 7"));
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert!(
        ran.stderr.ends_with("7 files have changed in devbox's copy; take them over with `git apply devbox.patch`\n"),
        "{ran:?}"
    );
    assert!(!ran.stderr.contains("warning"), "{ran:?}");
    assert_eq!(state(&project), before);
    sh(&project, "git apply ../devbox.patch");
    let status = " M binary\n M kept\n M link\n D removed\n M script\n M target/kept\n?? new/\n";
    assert_eq!(sh(&project, "git status --porcelain"), status);
    assert_eq!(
        sh(&project, "cat kept 'new/a file' target/kept; readlink link; test -x script; ls new -A"),
        "one\ntwo\nnew\nmore\nscript\na file\n"
    );
    assert_eq!(fs::read(project.join("binary")).unwrap(), b"a\0c");
    // A patch that is there is not replaced, and the objects of one stay nowhere.
    let ran = run(&fake, dir.path(), &["--name", "devbox", "--pull=patch", "proj"], "echo >>kept");
    assert!(ran.stderr.contains("`git apply devbox-2.patch`"), "{ran:?}");
    assert_eq!(
        sh(&project, "git count-objects | cut -d' ' -f1").trim(),
        sh(&project, "git fsck --unreachable >/dev/null; git rev-list --objects --all | wc -l").trim()
    );
}

#[test]
fn nothing_changed_is_said_and_leaves_no_file() {
    let fake = guest::start();
    let (dir, _) = checkout();
    let ran = run(&fake, dir.path(), &["--name", "devbox", "--pull", "proj"], "touch kept; echo o >target/z");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.ends_with("nothing changed in devbox's copy\n"), "{ran:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_branch_has_the_changes_and_the_checkout_stays_as_it_is() {
    let fake = guest::start();
    let (dir, project) = checkout();
    // A hook, a filter and changes of the user's own, staged and not.
    sh(
        &project,
        "printf '#!/bin/sh\\ntouch ../hook-ran\\n' >.git/hooks/reference-transaction; chmod +x .git/hooks/reference-transaction
         echo mine >>kept; git add kept; echo unstaged >>kept; echo own >own; git update-ref refs/heads/x HEAD; rm ../hook-ran",
    );
    let before = state(&project);
    let ran = run(
        &fake,
        dir.path(),
        &["--name", "devbox", "--pull=branch", "proj"],
        "echo theirs >>kept; rm removed; echo new >new",
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.ends_with("they are on the branch banger/devbox: see `git show banger/devbox`\n"), "{ran:?}");
    assert_eq!(state(&project), before);
    assert!(!dir.path().join("hook-ran").exists());
    assert_eq!(
        sh(&project, "git show --format=%s --name-status banger/devbox"),
        "Changes made in the virtual machine devbox\n\nM\tkept\nA\tnew\nD\tremoved\n"
    );
    assert_eq!(sh(&project, "git show banger/devbox:kept"), "one\nmine\nunstaged\ntheirs\n");
    // What the guest got was no commit: it is one of its own, on the one that the checkout is at.
    assert_eq!(sh(&project, "git diff --name-status HEAD banger/devbox~1"), "M\tkept\nA\town\n");
    assert_eq!(sh(&project, "git rev-parse banger/devbox~2"), sh(&project, "git rev-parse HEAD"));
    sh(&project, "git fsck --strict");
    let ran = run(&fake, dir.path(), &["--name", "devbox", "--pull=branch", "proj"], "rm -r *");
    assert!(ran.stderr.contains("the branch banger/devbox-2"), "{ran:?}");
}

#[test]
fn what_is_written_into_a_repository_is_its_owners() {
    if !rustix::process::getuid().is_root() {
        banger_skip::skipped!("only root works in the checkout of somebody else");
        return;
    }
    let fake = guest::start();
    let (dir, project) = checkout();
    sh(dir.path(), "chmod 755 .; chown -R 1234:1234 proj");
    let mut command = fake.banger(&["run", "--name", "devbox", "--pull=branch", "proj", "--", "sh", "-c"]);
    command.arg(format!("cd {}/proj; echo new >new", root(&fake).display()));
    let ran = Ran::new(command.env("SUDO_UID", "1234").current_dir(dir.path()).stdin(Stdio::null()).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(sh(dir.path(), "find proj ! -uid 1234"), "");
    let who = "setpriv --reuid 1234 --regid 1234 --clear-groups git";
    assert_eq!(sh(&project, &format!("{who} diff --name-status main banger/devbox")), "A\tnew\n");
}

#[test]
fn part_of_a_repository_without_a_commit_comes_back_too() {
    let fake = guest::start();
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        "git init -q -b main; echo '*.log' >.gitignore; mkdir -p a/proj; echo x >a/proj/x; echo y >y; git add y",
    );
    let ran = run(&fake, dir.path(), &["--name", "devbox", "--pull", "a/proj"], "echo 1 >1.log; echo 2 >2; rm x");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    sh(dir.path(), "cd a/proj; git apply ../../devbox.patch");
    assert_eq!(sh(&dir.path().join("a/proj"), "ls"), "2\n");
    let ran = run(&fake, dir.path(), &["--name", "devbox", "--pull=branch", "a/proj"], "echo 3 >3");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(sh(dir.path(), "git ls-tree -r --name-only banger/devbox"), "a/proj/2\na/proj/3\n");
}

#[test]
fn a_checkout_that_moved_on_is_warned_of() {
    let fake = guest::start();
    let (dir, project) = checkout();
    let there = project.display();
    let moved = |script: &str| run(&fake, dir.path(), &["--name", "devbox", "--pull", "proj"], script).stderr;
    let files = moved(&format!("echo 1 >new; echo later >{there}/kept"));
    assert!(files.contains("warning: the checkout's files have changed since devbox got its copy; "), "{files}");
    assert!(!fs::read_to_string(dir.path().join("devbox.patch")).unwrap().contains("later"));
    let commit = "git -c user.name=a -c user.email=b commit -qam more";
    let head = moved(&format!("echo 1 >new; cd {there}; {commit}"));
    assert!(head.contains("warning: the checkout has got another HEAD since devbox got its copy; "), "{head}");
    let same = moved("echo 1 >new");
    assert!(!same.contains("warning"), "{same}");
}

#[test]
fn a_guest_that_leads_elsewhere_writes_nothing_there() {
    let fake = guest::start();
    let (dir, project) = checkout();
    let outside = dir.path().join("outside");
    fs::write(&outside, "unchanged").unwrap();
    // Links of the guest's come back as links, whatever they point to.
    let script =
        format!("rm -r sub; ln -s {0} sub; ln -s {0} away; ln -sf {0} .gitignore; ln -s /etc etc", outside.display());
    let ran = run(&fake, dir.path(), &["--name", "devbox", "--pull=branch", "proj"], &script);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "unchanged");
    let modes = sh(&project, "git ls-tree banger/devbox away etc sub .gitignore | cut -d' ' -f1 | uniq -c");
    assert_eq!(modes.trim(), "4 120000");
    // A copy that is no directory any more.
    let ran = run(&fake, dir.path(), &["--name", "devbox", "--pull", "proj"], "cd ..; rm -r proj; echo file >proj");
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(ran.stderr.contains("what comes from the guest is no directory"), "{ran:?}");
}

#[test]
fn what_came_back_for_nothing_is_kept_where_the_vm_goes() {
    let fake = guest::start();
    let (dir, _project) = checkout();
    // Every name for a patch is taken.
    sh(dir.path(), "touch devbox.patch; for number in $(seq 2 99); do touch devbox-$number.patch; done; mkdir aside");
    let aside = dir.path().join("aside");
    let pulled = |rm: &[&str]| {
        let script = format!("cd {}/proj && echo new >kept", root(&fake).display());
        let args = [&["run", "--name", "devbox", "--pull"], rm, &["proj", "--", "sh", "-c", &script]].concat();
        let mut command = fake.banger(&args);
        command.env("TMPDIR", &aside).current_dir(dir.path()).stdin(Stdio::null());
        Ran::new(command.output().unwrap())
    };
    let ran = pulled(&["--rm"]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
    let (_, kept) = ran.stderr.split_once("also: the files of devbox's copy are in ").unwrap();
    let (kept, error) = kept.split_once('\n').unwrap();
    assert!(Path::new(kept).starts_with(&aside) && error.starts_with("error: cannot write the patch "), "{ran:?}");
    assert_eq!(fs::read_to_string(Path::new(kept).join("kept")).unwrap(), "new\n");
    fs::remove_dir_all(&aside).unwrap();
    fs::create_dir(&aside).unwrap();
    // From one that stays it can be fetched again.
    assert!(!pulled(&[]).stderr.contains("copy are in"));
    assert_eq!(fs::read_dir(&aside).unwrap().count(), 0);
}

#[test]
fn a_pull_wants_a_directory_and_a_command_that_is_waited_for() {
    let fake = guest::start();
    assert_eq!(fake.run(&["run", "--pull", "--", "true"]).code, Some(2));
    assert_eq!(fake.run(&["run", "-d", "--pull", ".", "--", "true"]).code, Some(2));
    assert_eq!(fake.run(&["run", "--pull=archive", ".", "--", "true"]).code, Some(2));
    let (_dir, project) = checkout();
    let ran = fake.run(&["run", "-u", "somebody", project.to_str().unwrap(), "--", "true"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.starts_with("error: DIR cannot be given to the user somebody\nhelp: "), "{ran:?}");
}
