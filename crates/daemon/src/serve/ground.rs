//! Gives a daemon its ground: identifies the state directory, checks whether this daemon may take its VMs over, and
//! claims user ids for them. Changes nothing if it refuses.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_linux::process::Process;

use crate::config::Config;
use crate::context::{blocking, random};
use crate::ground::{ClaimError, Claimant, Claimed, Claims, GroundId, Identity, Mark, Moved, StateDir};
use crate::paths::Paths;
use crate::store::{Store, StoreError};
use crate::vm::alive::{self, Whose};
use crate::vm::definition::VmRecord;
use crate::vmm::{PID_FILE, Vmm, VmmError};

/// The ground of a daemon.
#[derive(Debug)]
pub(super) struct Ground {
    /// The ground's id.
    pub(super) id: GroundId,
    /// The user ids of VMMs and builds.
    pub(super) uids: Claimed,
}

/// Why a daemon does not take a ground.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// The original's VMs run.
    #[error("{} is a copy, and the VM {vm} of the original runs as process {pid}", state.display())]
    Copy {
        /// The state directory.
        state: PathBuf,
        /// The VM.
        vm: String,
        /// Its VMM.
        pid: u32,
    },
    /// Its VMs run with their files in another directory.
    #[error(
        "the VM {vm} of {} runs as process {pid} with its files in another runtime directory{}",
        state.display(),
        runtime.as_ref().map(|runtime| format!(", {}", runtime.display())).unwrap_or_default()
    )]
    Elsewhere {
        /// The state directory.
        state: PathBuf,
        /// The VM.
        vm: String,
        /// Its VMM.
        pid: u32,
        /// The last daemon's runtime directory, if it is recorded.
        runtime: Option<PathBuf>,
    },
    /// The runtime directory has VMs of another state directory.
    #[error(
        "the runtime directory {} has a running VM of {}, process {pid}",
        runtime.display(),
        state.as_ref().map_or_else(|| "another state directory".to_owned(), |state| state.display().to_string())
    )]
    Occupied {
        /// The runtime directory.
        runtime: PathBuf,
        /// The other state directory, if its daemon recorded it.
        state: Option<PathBuf>,
        /// One of its VMMs.
        pid: u32,
    },
    /// The daemon could not claim user ids.
    #[error("cannot claim user ids for VMs")]
    Claim(#[from] ClaimError),
    /// The daemon could not tell which VMs run.
    #[error("cannot tell which VMs run")]
    Living(#[source] VmmError),
    /// The records could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or directory failed.
    #[error("cannot {attempted} {}", path.display())]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl GroundError {
    /// What to do.
    pub fn help(&self) -> String {
        let help = match self {
            GroundError::Copy { .. } => "stop the VMs of the original first; a copy becomes a ground of its own then",
            GroundError::Elsewhere { .. } => {
                "set BANGER_RUNTIME_DIR to the directory of the last daemon, or stop the VMs through a daemon there first"
            }
            GroundError::Occupied { .. } => "set BANGER_RUNTIME_DIR to another directory, or stop those VMs first",
            GroundError::Claim(error) => return error.help(),
            GroundError::Living(_) => {
                "see that /proc is mounted without the option hidepid, and that the daemon may open files: `ulimit -n`"
            }
            GroundError::Store(error) => return help_with_records(error),
            GroundError::Io { path, .. } => {
                let path = path.display();
                return format!("see that {path} is the daemon's own and can be read and written: `ls -ld {path}`");
            }
        };
        help.to_owned()
    }
}

/// What to do if the records fail.
pub(super) fn help_with_records(error: &StoreError) -> String {
    match error {
        StoreError::Open { path, .. } => {
            let path = path.display();
            format!("see that {path} is the daemon's own file on a disk that can be written: `ls -l {path}`")
        }
        StoreError::Migrate { .. } => {
            "start the newer banger that wrote the records, or set BANGER_STATE_DIR to another directory".to_owned()
        }
        _ => {
            "see that the disk of the state directory can be written and has space: `df`; if the records are damaged, \
              put a backup of banger.db in their place"
                .to_owned()
        }
    }
}

/// Takes the ground of a daemon that runs VMs with this driver.
pub(super) async fn settle(
    paths: &Paths,
    config: &Config,
    store: &Store,
    vmm: &Arc<dyn Vmm>,
) -> Result<Ground, GroundError> {
    let here = StateDir::of(&paths.state).map_err(failed("look at", &paths.state))?;
    let recorded = store.ground().await?;
    let is_copy = recorded.as_ref().is_some_and(|recorded| recorded.moved(here) == Moved::Copied);
    let living = living(paths, store, vmm, if is_copy { Whose::Originals } else { Whose::Own }).await?;
    if let Some((record, process)) = living.first() {
        let (state, vm, pid) = (paths.state.clone(), record.definition.name.clone(), process.pid());
        if is_copy {
            return Err(GroundError::Copy { state, vm, pid });
        }
        let runtime = recorded.as_ref().map(|recorded| recorded.runtime.clone());
        let is_here = match &runtime {
            Some(runtime) => is_same(runtime, &paths.runtime),
            // An older daemon did not record it: the VM's files tell.
            None => paths.vm(record.definition.id.as_str()).runtime.exists(),
        };
        if !is_here {
            return Err(GroundError::Elsewhere { state, vm, pid, runtime });
        }
    }
    let records = store.vms().await?;
    let id = match &recorded {
        Some(recorded) if !is_copy => recorded.id,
        _ => GroundId::from_random(random().map_err(failed("get random bytes for", &paths.state))?),
    };
    let mark = Mark { id, state: paths.state.clone() };
    let known = records.iter().map(|record| record.definition.id.as_str().to_owned()).collect();
    refuse_occupied(paths, &mark, known).await?;

    let own: HashSet<u32> = living.iter().map(|(_, process)| process.pid()).collect();
    let (claims, choice, first_uid) = (Claims::new(paths.claims.clone()), config.ground.slot, config.vmm.first_uid);
    let (state, socket, had) = (paths.state.clone(), paths.socket(), recorded.as_ref().map(|recorded| recorded.uids));
    // The user ids in a copy belong to the original.
    let kept: HashSet<u32> =
        if is_copy { HashSet::new() } else { records.iter().map(|record| record.definition.uid).collect() };
    let claim = move || {
        let claimant = Claimant { id, state: &state, socket: &socket, choice, had, first_uid, own: &own, kept: &kept };
        claims.claim(&claimant)
    };
    let uids = blocking(claim).await?;
    occupy(paths, &mark).await?;
    let identity = Identity { id, dir: here, runtime: paths.runtime.clone(), uids: uids.slot };
    if recorded.as_ref() != Some(&identity) {
        store.set_ground(identity).await?;
    }
    settle_uids(store, &uids, &living).await?;
    Ok(Ground { id, uids })
}

/// The recorded VMs that run.
async fn living(
    paths: &Paths,
    store: &Store,
    vmm: &Arc<dyn Vmm>,
    whose: Whose,
) -> Result<Vec<(VmRecord, Process)>, GroundError> {
    let (records, vmm, paths) = (store.vms().await?, Arc::clone(vmm), paths.clone());
    let look = move || alive::of_records(&records, &*vmm, &paths, whose);
    blocking(look).await.map_err(GroundError::Living)
}

/// Keeps the VMs' user ids that this daemon has claimed and replaces the rest: another daemon may use them, now or later.
async fn settle_uids(store: &Store, uids: &Claimed, living: &[(VmRecord, Process)]) -> Result<(), GroundError> {
    let is_living = |record: &VmRecord| living.iter().any(|(one, _)| one.definition.id == record.definition.id);
    let clashes = |record: &VmRecord| !uids.has(record.definition.uid);
    let vms: Vec<_> = store.vms().await?.into_iter().filter(|record| clashes(record) && !is_living(record)).collect();
    if !vms.is_empty() {
        tracing::info!(vms = vms.len(), "VMs get other user ids: another daemon may use theirs");
        store.move_uids(vms.into_iter().map(|record| record.definition.id).collect(), uids.uids).await?;
    }
    Ok(())
}

/// Refuses a runtime directory in which VMs of another ground have their files.
async fn refuse_occupied(paths: &Paths, mark: &Mark, known: HashSet<String>) -> Result<(), GroundError> {
    let (path, vms, mark, runtime) = (paths.owner(), paths.vms_runtime(), mark.clone(), paths.runtime.clone());
    blocking(move || {
        let owner = Mark::read(note(&path)?.trim_end());
        let is_ours = owner.as_ref().is_some_and(|owner| owner.id == mark.id || owner.is_of(&mark.state));
        // A daemon without grounds left no note.
        if !is_ours && let Some(pid) = first_living(&vms, &known) {
            return Err(GroundError::Occupied { runtime, state: owner.map(|owner| owner.state), pid });
        }
        Ok(())
    })
    .await
}

/// Writes the ground's note into the runtime directory.
async fn occupy(paths: &Paths, mark: &Mark) -> Result<(), GroundError> {
    let (path, wanted) = (paths.owner(), format!("{}\n", mark.text()));
    blocking(move || {
        if note(&path)? == wanted {
            return Ok(());
        }
        banger_linux::file::write_atomic(&path, wanted.as_bytes(), 0o600).map_err(failed("write", &path))
    })
    .await
}

/// The note in a runtime directory; empty if there is none.
fn note(path: &Path) -> Result<String, GroundError> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(failed("read", path)),
    }
}

/// A VMM that runs according to the files in these runtime directories, and belongs to no known VM.
fn first_living(vms: &Path, known: &HashSet<String>) -> Option<u32> {
    let directories = std::fs::read_dir(vms).into_iter().flatten().flatten();
    let directories = directories.filter(|vm| !vm.file_name().to_str().is_some_and(|name| known.contains(name)));
    let living = directories.filter_map(|vm| Process::recorded(&vm.path().join(PID_FILE)).ok());
    living.filter(|process| !process.has_ended()).map(|process| process.pid()).next()
}

/// Whether two paths lead to the same directory. Compares a missing one by its name.
fn is_same(one: &Path, other: &Path) -> bool {
    match (std::fs::canonicalize(one), std::fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

fn failed(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GroundError {
    let path = path.to_owned();
    move |source| GroundError::Io { attempted, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::{Choice, Slot};
    use crate::vmm::fake::Fake;

    struct Place {
        paths: Paths,
        store: Store,
    }

    impl Place {
        fn new(base: &Path, name: &str) -> Place {
            let at = |path: &str| base.join(name).join(path);
            std::fs::create_dir_all(at("state")).unwrap();
            std::fs::create_dir_all(at("runtime")).unwrap();
            let claims = base.join("claims");
            let paths = Paths { state: at("state"), runtime: at("runtime"), config: at("config"), claims };
            Place { store: Store::open(&paths.database()).unwrap(), paths }
        }

        async fn settle(&self, config: &Config) -> Result<Ground, GroundError> {
            let vmm: Arc<dyn Vmm> = Arc::new(Fake::new("/agent".into()));
            settle(&self.paths, config, &self.store, &vmm).await
        }
    }

    #[tokio::test]
    async fn a_daemon_that_gets_no_ground_leaves_no_note_and_no_record() {
        if !rustix::process::geteuid().is_root() {
            return banger_skip::skipped!("only root claims user ids");
        }
        let base = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| Place::new(base.path(), name));
        let mut config = Config::default();
        // No process on this host has such an id.
        config.vmm.first_uid = 4_290_000_000;
        config.ground.slot = Choice::Fixed(Slot::FIRST);
        let ground = first.settle(&config).await.unwrap();
        let mark = Mark { id: ground.id, state: first.paths.state.clone() };
        assert_eq!(note(&first.paths.owner()).unwrap(), format!("{}\n", mark.text()));
        let error = second.settle(&config).await.unwrap_err();
        assert!(matches!(error, GroundError::Claim(ClaimError::Taken { .. })), "{error}");
        assert!(!second.paths.owner().exists() && second.store.ground().await.unwrap().is_none());
        drop(ground);
    }

    #[test]
    fn each_failure_says_what_to_do() {
        let error = failed("read", Path::new("/run/banger/ground"))(io::ErrorKind::PermissionDenied.into());
        assert!(error.help().contains("`ls -ld /run/banger/ground`"));
        assert!(GroundError::Living(VmmError::Gone).help().contains("/proc"));
        let unusable = StoreError::Unusable { field: "id", of: "the ground".to_owned() };
        assert!(GroundError::Store(unusable).help().contains("banger.db"));
    }
}
