//! A daemon's life: take the places, take over what is there, serve, go. Guests run on.

pub mod places;

mod ground;
mod locks;
mod socket;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::config::{Config, ConfigError};
use crate::context::{Context, random, unix_seconds};
use crate::dns::names::Names;
use crate::dns::wiring::{self, Wiring};
use crate::doctor;
use crate::events::Changes;
use crate::ground::{Claimed, Claims, Mark};
use crate::image::builds::{BuildError, Builds};
use crate::image::install::Installer;
use crate::net::Records;
use crate::net::claim;
use crate::net::network::Network;
use crate::operation::fault::Faults;
use crate::paths::{MAX_SOCKET_PATH, Paths};
use crate::space::{self, Space};
use crate::store::{Store, StoreError};
use crate::vm::error::VmError;
use crate::vm::registry::Registry;
use crate::vm::request::View;
use crate::vm::turns::AllTurns;
use crate::vmm::{self, Vmm};

pub use self::ground::GroundError;

use self::locks::{Locks, LocksError};
use self::places::{PlaceError, make_dir};
use self::socket::{NewSocket, SocketError};

/// How long operations that are under way may take when the daemon is to go.
const LAST_WORK: Duration = Duration::from_secs(10);

/// How long answers that are under way may take after that.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a daemon is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its places.
    pub paths: Paths,
    /// The agent's file.
    pub agent: PathBuf,
    /// Use the fake VMM: guests are the agent on this very host. For tests.
    pub fake_vmm: bool,
    /// What fills the trees of new images.
    pub installer: Arc<dyn Installer>,
    /// Faults that a test plans.
    pub faults: Faults,
}

/// A running daemon.
pub struct Daemon {
    /// What every part shares.
    pub context: Arc<Context>,
    /// The VMs.
    pub registry: Arc<Registry>,
    /// The images.
    pub builds: Builds,
    /// When it started, in seconds since 1970-01-01 UTC.
    pub started: u64,
    /// Cancelled when it is to go.
    pub shutdown: CancellationToken,
    /// Its claim on user ids. It gives the claim up at its end.
    uids: Mutex<Claimed>,
    locks: Locks,
}

/// Why a daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket's path would be too long for the kernel.
    #[error(
        "the runtime directory {} is {excess} bytes too long: a socket's path may have {MAX_SOCKET_PATH}",
        path.display()
    )]
    LongPath {
        /// The directory.
        path: PathBuf,
        /// By how much.
        excess: usize,
    },
    /// The directories.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Another daemon owns these places.
    #[error(transparent)]
    Locks(#[from] LocksError),
    /// Another daemon has the ground, or the ground cannot be claimed.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// The API's socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The records.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The VMs of an earlier daemon.
    #[error("cannot take over the VMs")]
    Recover(#[source] VmError),
    /// The images of an earlier daemon.
    #[error("cannot take over the images")]
    Images(#[source] Box<BuildError>),
    /// Something else on the host.
    #[error("cannot {attempted}")]
    Io {
        /// What was attempted, on what.
        attempted: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ServeError {
    /// The process of the daemon that owns these directories, if that is why this one does not.
    pub fn winner(&self) -> Option<u32> {
        match self {
            ServeError::Locks(error) => error.winner(),
            _ => None,
        }
    }

    /// One line: what to do.
    pub fn help(&self) -> String {
        let help = match self {
            ServeError::Place(error) => return error.help(),
            ServeError::Locks(error) => return error.help(),
            ServeError::LongPath { .. } => "set BANGER_RUNTIME_DIR to a shorter path",
            ServeError::Ground(error) => return error.help(),
            ServeError::Socket(error) => return error.help(),
            ServeError::Store(error) => return ground::help_with_records(error),
            ServeError::Config(_) => "correct the file, or name another one in BANGER_CONFIG",
            ServeError::Recover(_) | ServeError::Images(_) => "look at the file system and at the daemon's log",
            ServeError::Io { .. } => {
                "run it as root, or set BANGER_STATE_DIR and BANGER_RUNTIME_DIR to directories of your own"
            }
        };
        help.to_owned()
    }
}

impl Daemon {
    /// Takes the places and takes over what is there. Every VM is known when this returns.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn start(options: Options) -> Result<Arc<Daemon>, ServeError> {
        let Options { paths, agent, fake_vmm, installer, faults } = options;
        let excess = paths.socket_excess();
        if excess > 0 {
            return Err(ServeError::LongPath { path: paths.runtime, excess });
        }
        let config = Config::load(&paths.config)?;
        places::make(&paths)?;
        let locks = Locks::take(&paths).await?;
        for dir in [paths.images(), paths.vms(), paths.vms_runtime(), paths.logs()] {
            make_dir(&dir, 0o711)?;
        }
        let store = Store::open(&paths.database())?;
        let host_boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let host_boot = host_boot.map_err(io("read the host's boot id"))?.trim().to_owned();
        let (vmm, kvm): (Arc<dyn Vmm>, bool) = if fake_vmm {
            (Arc::new(vmm::fake::Fake::new(agent.clone())), false)
        } else {
            let choice = vmm::select::select();
            tracing::info!(kvm = choice.kvm, reason = choice.reason, "how VMs run here");
            (choice.vmm, choice.kvm)
        };
        let ground::Ground { id, uids } = ground::settle(&paths, &config, &store, &vmm).await?;
        let claims = Claims::new(paths.claims.clone());
        let run = u64::from_ne_bytes(random().map_err(io("get random bytes for a name of this run"))?);
        let had = store.scope().await?;
        let claimant = claim::Claimant {
            id,
            state: paths.state.clone(),
            choice: config.ground.slot,
            had: had.map(|scope| scope.slot),
        };
        let expected = claimant.choice.expected(claimant.had);
        // Only root has a directory that all daemons share.
        let is_root = rustix::process::geteuid().is_root();
        let shared = if is_root { claims.forwarding() } else { paths.forwarding() };
        let records = Records { shared, old: paths.forwarding() };
        let had = had.map(|scope| scope.subnet);
        let network = Network::new(claimant, config.network.subnet, had, config.network.taps, records);
        let network = Arc::new(network);
        let names = Names::new(config.dns.domain.clone(), config.dns.port, expected);
        let mark = Mark { id, state: paths.state.clone() };
        let wiring = Wiring::new(mark, store.wired().await?, paths.claims.clone());
        let context = Arc::new(Context {
            paths,
            config,
            store,
            vmm,
            kvm,
            agent,
            changes: Arc::new(Changes::new(run)),
            bases: Arc::default(),
            turns: AllTurns::default(),
            ground: id,
            uids: uids.uids,
            claims,
            space: Space::default(),
            network,
            names,
            wiring,
            host_boot,
            installer,
            faults,
        });
        let builds =
            Builds::recover(Arc::clone(&context)).await.map_err(|error| ServeError::Images(Box::new(error)))?;
        let registry = Registry::recover(Arc::clone(&context)).await.map_err(ServeError::Recover)?;
        let shutdown = CancellationToken::new();
        Ok(Arc::new(Daemon {
            context,
            registry,
            builds,
            started: unix_seconds(),
            shutdown,
            uids: Mutex::new(uids),
            locks,
        }))
    }

    /// Listens, says so to `ready`, and serves until it is told to go.
    ///
    /// # Errors
    /// [`ServeError::Socket`], [`ServeError::Locks`], [`ServeError::Io`].
    pub async fn serve(self: Arc<Self>, ready: Option<std::fs::File>) -> Result<(), ServeError> {
        let socket = NewSocket::listen(&self.context.paths)?;
        self.context.faults.before_announcement().await;
        self.locks.check()?;
        let (listener, file) = socket.announce()?;
        if let Some(mut ready) = ready {
            // Who wanted to know may have gone.
            drop(ready.write_all(b"ready\n"));
        }
        let clock = tokio::spawn(follow_the_clock(Arc::clone(&self)));
        let wired = tokio::spawn(wiring::keep(Arc::clone(&self.context)));
        let space = tokio::spawn(space::watch(Arc::clone(&self.context)));
        let vmm = Arc::clone(&self.context.vmm);
        // Asked for ahead, so that the first VM does not wait for a program to say its version. If it cannot be used, that VM's
        // creator is told.
        tokio::spawn(async move { drop(vmm.ready().await) });
        drop(tokio::task::spawn_blocking(api::bounds::read));
        let router = api::router(Arc::clone(&self));
        let told = {
            let daemon = Arc::clone(&self);
            async move { daemon.told_to_go().await }
        };
        tokio::pin!(told);
        let stopping = CancellationToken::new();
        let server = axum::serve(api::listener::Local::new(listener), router)
            .with_graceful_shutdown(stopping.clone().cancelled_owned())
            .into_future();
        tokio::pin!(server);
        tokio::select! {
            ended = &mut server => ended.map_err(io("serve the API"))?,
            () = &mut told => {
                stopping.cancel();
                self.finish_work().await;
                self.context.changes.close();
                // Answers under way are brought to their end, the one to who told it to go among them. The streams of VMs
                // that live as long as their connection have none.
                match tokio::time::timeout(LAST_WORDS, &mut server).await {
                    Ok(ended) => ended.map_err(io("serve the API"))?,
                    Err(_) => tracing::info!("clients are still connected; going all the same"),
                }
            }
        }
        clock.abort();
        wired.abort();
        space.abort();
        // Nobody asks for a VM any more. Where one runs, it keeps its network.
        if let Err(error) = self.context.network.clear().await {
            tracing::warn!(error = api::error::chain(&error), "the network of VMs stays, though none runs");
        }
        let vms_run = self.registry.list().iter().any(may_run);
        if let Err(error) = self.uids.lock().unwrap_or_else(PoisonError::into_inner).give_up(vms_run) {
            tracing::warn!(error = api::error::chain(&error), "the claim on user ids stays");
        }
        Ok(file.remove()?)
    }

    /// What the doctor finds.
    pub async fn examine(&self) -> Vec<banger_api::daemon::Finding> {
        doctor::examine(&self.context).await
    }

    /// Mends what is safe to mend, and examines again.
    pub async fn mend(&self) -> Vec<banger_api::daemon::Finding> {
        doctor::mend(&self.context).await;
        doctor::examine(&self.context).await
    }

    /// Where what happens is told.
    pub fn changes(&self) -> Arc<Changes> {
        Arc::clone(&self.context.changes)
    }

    /// A VM as the API tells it.
    pub fn wire(&self, view: &View) -> banger_api::vm::Vm {
        api::wire(view, self.context.vmm.capabilities().name)
    }

    async fn told_to_go(&self) {
        let terminate = async {
            match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
                (Ok(mut terminate), Ok(mut interrupt)) => {
                    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = terminate => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Lets operations come to their end; image builds give up.
    async fn finish_work(&self) {
        let builds = self.builds.cancel_all();
        tracing::info!(builds, "going; guests run on");
        let work = async {
            for handle in self.registry.handles() {
                let mut views = handle.follow();
                // The owner of a VM that was removed is gone: idle enough.
                drop(views.wait_for(|view| view.busy.is_none()).await);
            }
            self.builds.idle().await;
        };
        if tokio::time::timeout(LAST_WORK, work).await.is_err() {
            tracing::warn!("an operation did not end in time; the next daemon goes on with it");
        }
    }
}

/// After the host slept, or when somebody set its clock, guests are told the time.
async fn follow_the_clock(daemon: Arc<Daemon>) {
    let jumps = match banger_linux::wall_clock::Jumps::new() {
        Ok(jumps) => jumps,
        Err(error) => {
            tracing::warn!(%error, "the host's clock cannot be followed; guests keep their own time");
            return;
        }
    };
    while jumps.next().await.is_ok() {
        tracing::info!("the host's clock jumped; telling guests the time");
        for handle in daemon.registry.handles() {
            let view = handle.view();
            if let Some(guest) = view.guest {
                tokio::spawn(async move {
                    if let Err(error) = guest.set_clock().await {
                        let vm = &view.definition.name;
                        tracing::warn!(vm, error = api::error::chain(&error), "a guest does not take the time");
                    }
                });
            }
        }
    }
}

/// Whether a VM may have a VMM, which needs its user id.
fn may_run(view: &View) -> bool {
    view.state.may_run() || view.pid.is_some()
}

fn io(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> ServeError {
    let attempted = attempted.into();
    move |source| ServeError::Io { attempted, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::definition::VmRecord;
    use crate::vm::state::State;

    #[test]
    fn a_vm_may_run_unless_it_is_stopped_and_no_vmm_of_it_is_known() {
        let view = |state, pid| View {
            definition: Arc::new(VmRecord::sample("a", 1).definition),
            state,
            generation: 1,
            guest: None,
            pid,
            paused: false,
            console: None,
            busy: None,
            gone: false,
            missed: false,
            starts_again: None,
        };
        // The next daemon goes on with it: its VMM may be there, and the view does not have it yet.
        for state in [State::Starting, State::Stopping, State::Removing] {
            assert!(may_run(&view(state, None)));
        }
        let stopped = State::Stopped { reason: None };
        assert!(may_run(&view(stopped.clone(), Some(7))) && !may_run(&view(stopped, None)));
    }
}
