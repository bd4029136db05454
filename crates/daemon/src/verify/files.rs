//! Files and directories in banger's own directories.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use banger_api::verify::{Kind, Oddity, Problem};

use super::{Vms, oddity, with_fix};
use crate::paths::Paths;

/// What is there: the entries of each directory in which nobody but banger has anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Listed {
    state: Vec<String>,
    runtime: Vec<String>,
    images: Vec<String>,
    vms: Vec<(String, Vec<String>)>,
    vms_runtime: Vec<(String, Vec<String>)>,
}

/// Lists it.
pub(super) fn listed(paths: &Paths) -> Listed {
    let vms = entries(&paths.vms());
    let of_vm = |id: String| {
        let files = entries(&paths.vm(&id).state);
        (id, files)
    };
    let of_run = |id: String| {
        let files = entries(&paths.vm(&id).runtime);
        (id, files)
    };
    Listed {
        state: entries(&paths.state),
        runtime: entries(&paths.runtime),
        images: entries(&paths.images()),
        vms: vms.into_iter().map(of_vm).collect(),
        vms_runtime: entries(&paths.vms_runtime()).into_iter().map(of_run).collect(),
    }
}

/// What is nobody's, or of who is gone; and disks that are not there.
pub(super) fn compare(paths: &Paths, listed: &Listed, vms: &Vms, images: &HashSet<String>) -> Vec<Oddity> {
    let mut oddities = Vec::new();
    let mut tell = |problem, path: PathBuf, found: String| {
        let path = path.display().to_string();
        oddities.push(with_fix(oddity(Kind::File, problem, &path, found), format!("look at it, then rm -r {path}")));
    };
    for (directory, there, known) in
        [(&paths.state, &listed.state, paths.of_state()), (&paths.runtime, &listed.runtime, paths.of_runtime())]
    {
        for name in there.iter().filter(|name| !known.iter().any(|known| is(name, known))) {
            tell(Problem::Foreign, directory.join(name), "nothing that banger keeps here".to_owned());
        }
    }
    for id in listed.images.iter().filter(|id| !images.contains(*id)) {
        tell(Problem::Leak, paths.image(id), "of an image that no record knows".to_owned());
    }
    for (id, _) in &listed.vms_runtime {
        match vms.get(id) {
            None => tell(Problem::Leak, paths.vm(id).runtime, "of a VM that no record knows".to_owned()),
            // These files go when their VMM ends.
            Some(vm) if vm.rests && vm.pid.is_some() => {}
            Some(vm) if vm.rests => {
                tell(Problem::Leak, paths.vm(id).runtime, format!("of {}, which does not run", vm.name))
            }
            Some(_) => {}
        }
    }
    for (id, files) in &listed.vms {
        let of = paths.vm(id);
        if !vms.contains_key(id) {
            tell(Problem::Leak, of.state.clone(), "of a VM that no record knows".to_owned());
            continue;
        }
        let known = [&of.root, &of.work, &of.console].map(|path| name_of(path));
        for name in files.iter().filter(|name| !known.iter().any(|known| is(name, known))) {
            tell(Problem::Foreign, of.state.join(name), "nothing that a VM has".to_owned());
        }
    }
    let has =
        |id: &str, path: &Path| listed.vms.iter().any(|(there, files)| there == id && files.contains(&name_of(path)));
    for (id, vm) in vms.iter().filter(|(_, vm)| vm.rests) {
        let of = paths.vm(id);
        for path in [&of.root, &of.work].into_iter().filter(|path| !has(id, path)) {
            let found = format!("a disk of {}, which cannot start without it", vm.name);
            let missing = oddity(Kind::File, Problem::Missing, path.display().to_string(), found);
            oddities.push(with_fix(missing, format!("banger rm {}", vm.name)));
        }
    }
    oddities
}

/// VMs that run without some of the files that a daemon needs to speak to their VMMs. Their processes identify them all
/// the same.
pub(super) fn unreachable(paths: &Paths, listed: &Listed, vms: &Vms, needed: &[&str]) -> Vec<Oddity> {
    let there = |id: &str, name: &str| {
        listed.vms_runtime.iter().any(|(vm, files)| vm == id && files.iter().any(|file| file == name))
    };
    let running = vms.iter().filter_map(|(id, vm)| Some((id, vm, vm.pid.filter(|_| !vm.rests && !vm.busy)?)));
    let gone = running.filter_map(|(id, vm, pid)| {
        let gone: Vec<&str> = needed.iter().copied().filter(|name| !there(id, name)).collect();
        (!gone.is_empty()).then(|| {
            let found = format!("lacks {}, which {} needs, that runs as process {pid}", gone.join(", "), vm.name);
            let path = paths.vm(id).runtime.display().to_string();
            with_fix(oddity(Kind::File, Problem::Missing, path, found), format!("banger restart {}", vm.name))
        })
    });
    gone.collect()
}

/// Whether a name is a known one, or that of an older log or of a part of the database beside it.
fn is(name: &str, known: &str) -> bool {
    name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Known;

    #[test]
    fn a_vm_that_runs_without_its_runtime_files_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let paths = Paths { state: at("s"), runtime: at("r"), config: at("c"), claims: at("g") };
        let run = paths.vm("a").runtime;
        std::fs::create_dir_all(&run).unwrap();
        std::fs::write(run.join("vmm.pid"), "").unwrap();
        let look = |rests, busy, pid| {
            let vm = Known { name: "devbox".to_owned(), uid: 1, pid, rests, busy };
            unreachable(&paths, &listed(&paths), &Vms::from([("a".to_owned(), vm)]), &["vmm.pid", "qmp.sock"])
        };
        let found = look(false, false, Some(12));
        assert_eq!((found.len(), found[0].problem), (1, Problem::Missing));
        assert!(found[0].found.contains("qmp.sock") && !found[0].found.contains("vmm.pid"), "{found:?}");
        assert_eq!(found[0].fix.as_deref(), Some("banger restart devbox"));
        // It starts or stops, or it has no process.
        assert_eq!(look(false, true, Some(12)), []);
        assert_eq!((look(false, false, None), look(true, false, None)), (Vec::new(), Vec::new()));
        std::fs::write(run.join("qmp.sock"), "").unwrap();
        assert_eq!(look(false, false, Some(12)), []);
        std::fs::remove_dir_all(run).unwrap();
        assert!(look(false, false, Some(12))[0].found.contains("vmm.pid, qmp.sock"));
    }

    #[test]
    fn what_is_nobodys_is_named_and_what_is_missing_too() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let paths = Paths { state: at("s"), runtime: at("r"), config: at("c"), claims: at("g") };
        for path in [
            paths.state_lock(),
            paths.database(),
            paths.log(),
            paths.socket(),
            paths.lock(),
            paths.vm("a").root,
            paths.vm("a").work,
        ] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        for path in [paths.scratch(), paths.logs(), paths.image("i"), paths.vm("a").runtime, paths.vm("b").state] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::write(at("s/banger.db-wal"), "").unwrap();
        let known = |name: &str, rests| {
            (name.to_owned(), Known { name: name.to_owned(), uid: 1, pid: None, rests, busy: false })
        };
        let vms = Vms::from([known("a", false), known("b", false)]);
        let images = HashSet::from(["i".to_owned()]);
        let look = |vms: &Vms, images: &HashSet<String>| {
            let found = compare(&paths, &listed(&paths), vms, images);
            found.into_iter().map(|oddity| (oddity.problem, oddity.which)).collect::<Vec<_>>()
        };
        assert_eq!(look(&vms, &images), []);
        let path = |path: PathBuf| path.display().to_string();
        // Both rest: a still has what only runs, b lacks its disks.
        let resting = Vms::from([known("a", true), known("b", true)]);
        let found = look(&resting, &images);
        assert_eq!(found[0], (Problem::Leak, path(paths.vm("a").runtime)));
        assert!(found.contains(&(Problem::Missing, path(paths.vm("b").work))) && found.len() == 3);
        // Neither is known, nor is the image.
        let found = look(&Vms::new(), &HashSet::new());
        assert_eq!(found.iter().filter(|(problem, _)| *problem == Problem::Leak).count(), 4, "{found:?}");
        for stray in [at("s/stray"), at("r/stray"), paths.vm("a").state.join("stray")] {
            std::fs::write(&stray, "").unwrap();
            assert_eq!(look(&vms, &images), [(Problem::Foreign, path(stray.clone()))]);
            std::fs::remove_file(stray).unwrap();
        }
    }
}
