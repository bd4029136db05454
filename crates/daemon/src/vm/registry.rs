//! All VMs of a daemon, by name and id: handles on their owners.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use banger_api::change::Change;
use banger_api::vm::{Net, VmCreate};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};

use super::actor::Actor;
use super::alive::{self, Hold};
use super::change::Wanted;
use super::definition::{Definition, VmId, VmRecord};
use super::error::VmError;
use super::request::{Outcome, Request, Verb, View};
use super::spec::with_keys;
use super::{identity, names, spec, start};
use crate::context::{Context, blocking, host, random, unix_seconds};
use crate::image::names as files;
use crate::image::record::ImageState;
use crate::net::addresses::Subnet;
use crate::operation::{Operation, Step};
use crate::storage;
use crate::store::StoreError;

/// How often a made-up name is made up anew where it is taken.
const NAME_TRIES: usize = 8;

/// How much of an id has to be given, in characters.
const SHORTEST_BEGINNING: usize = 3;

/// All VMs of a daemon. The lock guards which VMs there are, never what one of them is doing.
pub struct Registry {
    context: Arc<Context>,
    vms: RwLock<HashMap<VmId, Handle>>,
}

/// A handle on the owner of a VM.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    view: watch::Receiver<View>,
}

impl Registry {
    /// Takes over what an earlier daemon left. Every VM has its owner when this returns; what the owners have to do goes
    /// on behind.
    ///
    /// # Errors
    /// Where the records cannot be read.
    pub async fn recover(context: Arc<Context>) -> Result<Arc<Registry>, VmError> {
        let records = context.store.vms().await?;
        let survey = alive::survey_of(&context, &records).await?;
        start::ports_before(&context, &records, &survey).await;
        // Made ahead for VMs that will want it; and what an earlier daemon has left is taken over, or goes.
        if records.iter().any(|record| record.definition.address.is_some()) || context.network.is_left().await {
            let context = Arc::clone(&context);
            // Who is told of an error is the next VM that wants it.
            drop(tokio::spawn(async move { drop(context.subnet().await) }));
        }
        let registry = Arc::new(Registry { context, vms: RwLock::default() });
        let mut recovering = Vec::new();
        for (record, mut living) in records.into_iter().zip(survey) {
            let name = record.definition.name.clone();
            let handle = registry.own(record, living.hold());
            // Recovery comes first in the queue, before any request.
            let operation = Operation::unwatched("recover", &name);
            let recovered = handle.send(Verb::Recover, operation).await?;
            recovering.push((handle, recovered));
        }
        tokio::spawn(bring_back(recovering, registry.context.turns.starts.all()));
        Ok(registry)
    }

    /// Creates a VM. Cancelled or failed, nothing of it is left.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn create(self: &Arc<Self>, request: &VmCreate, operation: &Operation) -> Result<Created, VmError> {
        let (name, made_up) = match &request.name {
            Some(name) => (name.clone(), false),
            None => (names::made_up(bytes()?), true),
        };
        let spec = operation.stage("spec.resolve", self.resolve(request, name)).await?;
        let subnet = match spec.net {
            Net::None => None,
            Net::Nat | Net::Isolated => Some(self.context.subnet().await?),
        };
        let began = operation.stage_begins("record.reserve");
        let record = self.reserve(spec, made_up, subnet).await?;
        operation.stage_ends("record.reserve", began);
        // A VM that has just got its name has no process yet.
        let handle = self.own(record, Hold::Gone);
        let reply = handle.send(Verb::Create { start: !request.stopped }, operation.clone()).await?;
        Ok(Created { handle, reply })
    }

    async fn resolve(&self, request: &VmCreate, name: String) -> Result<spec::Spec, VmError> {
        let context = &self.context;
        context.vmm.ready().await?;
        let wanted = request.image.clone().unwrap_or_else(|| context.config.defaults.image.clone());
        let image = context.store.image(wanted).await?.filter(|image| image.state == ImageState::Ready);
        let seed_path = image.as_ref().map(|image| context.paths.image(&image.id).join(files::WORK_SEED));
        let seed = blocking(move || seed_path.and_then(|path| storage::size(&path).ok()).unwrap_or(0)).await;
        Ok(spec::resolve(request, name, image, seed, &host(), &context.config)?)
    }

    /// Records the VM under its name, or under another made-up one where that is taken.
    async fn reserve(&self, spec: spec::Spec, made_up: bool, subnet: Option<Subnet>) -> Result<VmRecord, VmError> {
        let mut record = self.record(spec)?;
        for _ in 0..NAME_TRIES {
            let insert = async { Ok(self.context.store.insert_vm(record.clone(), self.context.uids, subnet).await) };
            match self.reserve_step(insert, &record.definition.id).await? {
                Err(StoreError::NameTaken(_)) if made_up => record.definition.name = names::made_up_longer(bytes()?),
                reserved => return Ok(reserved?),
            }
        }
        Err(StoreError::NameTaken(record.definition.name).into())
    }

    /// As [`Context::step`], and takes the record back where the step fails after it: no owner exists yet who would.
    async fn reserve_step<T>(&self, insert: impl Future<Output = Result<T, VmError>>, id: &VmId) -> Result<T, VmError> {
        match self.context.step(Step::Reserve, insert).await {
            Ok(reserved) => Ok(reserved),
            Err(error) => {
                let forgotten = self.context.store.delete_vm(id.clone()).await;
                Err(error.with(forgotten.err().map(VmError::from).into_iter().collect()))
            }
        }
    }

    fn record(&self, spec: spec::Spec) -> Result<VmRecord, VmError> {
        let bytes = random::<48>().map_err(VmError::io("get random bytes for an identity"))?;
        let lasting = identity::lasting(&spec.name, &bytes)?;
        let id = VmId::from_random(random().map_err(VmError::io("get random bytes for an id"))?);
        let definition = Definition {
            id,
            name: spec.name,
            image_id: spec.image.id,
            image: spec.image.name,
            cpus: spec.cpus,
            memory: spec.memory,
            disk: spec.disk,
            env: spec.env,
            workdir: spec.workdir,
            user: spec.user,
            ssh_keys: spec.ssh_keys,
            net: spec.net,
            address: None,
            publish: spec.publish,
            lifetime: spec.lifetime,
            restart: spec.restart,
            uid: self.context.uids.first(),
            machine_id: lasting.machine_id,
            host_key: lasting.host_key,
            host_key_public: lasting.host_key_public,
            created: unix_seconds(),
        };
        let host_boot = self.context.host_boot.clone();
        Ok(VmRecord::new(definition, host_boot))
    }

    /// Gives a recorded VM its owner.
    fn own(self: &Arc<Self>, record: VmRecord, hold: Hold) -> Handle {
        let id = record.definition.id.clone();
        let (actor, view) = Actor::new(Arc::clone(&self.context), record, hold);
        let (requests, inbox) = mpsc::channel(16);
        let handle = Handle { requests, view };
        self.vms.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), handle.clone());
        // Told once it can be found.
        self.context.tell(&handle.view());
        let registry = Arc::downgrade(self);
        tokio::spawn(async move {
            actor.run(inbox).await;
            if let Some(registry) = registry.upgrade() {
                registry.vms.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
            }
        });
        handle
    }

    /// All VMs, in the order of their creation.
    pub fn list(&self) -> Vec<View> {
        let vms = self.vms.read().unwrap_or_else(PoisonError::into_inner);
        let mut views: Vec<View> = vms.values().map(Handle::view).filter(|view| !view.gone).collect();
        views.sort_by(|one, two| {
            (one.definition.created, &one.definition.name).cmp(&(two.definition.created, &two.definition.name))
        });
        views
    }

    /// All handles.
    pub fn handles(&self) -> Vec<Handle> {
        self.vms.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The VM of a name, an id, or the beginning of an id that no other has.
    ///
    /// # Errors
    /// [`VmError::NotFound`], with a name that is near; [`VmError::Ambiguous`].
    pub fn find(&self, name: &str) -> Result<Handle, VmError> {
        let vms = self.vms.read().unwrap_or_else(PoisonError::into_inner);
        let alive = || vms.values().filter(|handle| !handle.view.borrow().gone);
        let fits = |handle: &&Handle| {
            let view = handle.view.borrow();
            view.definition.name == name || view.definition.id.as_str() == name
        };
        if let Some(handle) = alive().find(fits) {
            return Ok(handle.clone());
        }
        let begins = |handle: &&Handle| handle.view.borrow().definition.id.as_str().starts_with(name);
        let mut beginning: Vec<&Handle> = match name.len() {
            ..SHORTEST_BEGINNING => Vec::new(),
            _ => alive().filter(begins).collect(),
        };
        match (beginning.pop(), beginning.is_empty()) {
            (Some(handle), true) => return Ok(handle.clone()),
            (Some(handle), false) => {
                beginning.push(handle);
                let mut names: Vec<_> =
                    beginning.iter().map(|handle| handle.view.borrow().definition.name.clone()).collect();
                names.sort();
                return Err(VmError::Ambiguous { beginning: name.to_owned(), names });
            }
            (None, _) => {}
        }
        let names: Vec<String> = alive().map(|handle| handle.view.borrow().definition.name.clone()).collect();
        let suggestion = crate::config::nearest(name, names.iter().map(String::as_str));
        Err(VmError::NotFound { name: name.to_owned(), suggestion })
    }
}

/// A VM that is being created.
pub struct Created {
    /// Its owner.
    pub handle: Handle,
    reply: Answer,
}

/// What a request comes to, when it has.
type Answer = oneshot::Receiver<Result<Outcome, VmError>>;

/// Starts those again that went down while no daemon ran, in the order of their creation. The order costs waiting for who is
/// recovered slowly: a guest that still boots, or that goes down.
async fn bring_back(recovering: Vec<(Handle, Answer)>, at_once: usize) {
    let missed = async |(handle, recovered): (Handle, Answer)| match recovered.await {
        Ok(Ok(outcome)) if outcome.view.missed => Some(handle),
        _ => None,
    };
    let bring_back = async |handle: Handle| {
        let operation = Operation::unwatched("start", &handle.view().definition.name);
        // Its owner logs what goes wrong, and tries again.
        drop(handle.ask(Verb::StartAgain, operation).await);
    };
    let missed = futures::stream::iter(recovering).filter_map(missed);
    missed.for_each_concurrent(at_once, bring_back).await;
}

impl Created {
    /// Waits until it is created.
    ///
    /// # Errors
    /// [`VmError`]; nothing of it is left then, but for what the error says.
    pub async fn done(self) -> Result<View, VmError> {
        Ok(self.reply.await.map_err(|_| VmError::Closing)??.view)
    }
}

impl Handle {
    /// What the VM has become.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Follows what it becomes.
    pub fn follow(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Waits until all that was asked of it before is done, a new daemon's recovery included.
    ///
    /// # Errors
    /// [`VmError::NotFound`], where it went with that.
    pub async fn settle(&self) -> Result<View, VmError> {
        let mut views = self.view.clone();
        loop {
            match self.ask(Verb::Settle, Operation::unwatched("settle", &self.view().definition.name)).await {
                Err(VmError::Busy { .. }) => drop(views.wait_for(|view| view.busy.is_none()).await),
                settled => return settled,
            }
        }
    }

    /// Starts it; nothing happens where it runs.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn start(&self, operation: Operation) -> Result<View, VmError> {
        self.ask(Verb::Start, operation).await
    }

    /// Stops it; nothing happens where it does not run.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn stop(&self, force: bool, patience: Duration, operation: Operation) -> Result<View, VmError> {
        self.ask(Verb::Stop { force, patience }, operation).await
    }

    /// Stops it, where it runs, and starts it.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn restart(&self, force: bool, patience: Duration, operation: Operation) -> Result<View, VmError> {
        self.ask(Verb::Restart { force, patience }, operation).await
    }

    /// Makes it something else; what is another now.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn change(&self, wanted: Wanted, operation: Operation) -> Result<(View, Vec<Change>), VmError> {
        let outcome = self.send(Verb::Change(wanted), operation).await?.await.map_err(|_| self.went())??;
        Ok((outcome.view, outcome.changes))
    }

    /// Lets the owners of these SSH keys in, too; nothing happens where it knows them all.
    ///
    /// # Errors
    /// [`VmError`]; the keys are not recorded then.
    pub async fn authorize(&self, keys: Vec<String>) -> Result<View, VmError> {
        let view = self.view();
        if with_keys(&view.definition.ssh_keys, &keys)? == view.definition.ssh_keys {
            return Ok(view);
        }
        self.ask(Verb::Authorize(keys), Operation::unwatched("ssh keys", &view.definition.name)).await
    }

    /// Removes it.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn remove(&self, force: bool, operation: Operation) -> Result<View, VmError> {
        self.ask(Verb::Remove { force }, operation).await
    }

    /// Says that the connection that an ephemeral VM lives with has closed.
    pub async fn lease_ended(&self) {
        let operation = Operation::unwatched("lease ended", &self.view().definition.name);
        // Its owner logs what goes wrong; a VM that is gone already is what is wanted.
        drop(self.ask(Verb::LeaseEnded, operation).await);
    }

    /// Records that a main command is about to be started.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn begin_main(&self) -> Result<View, VmError> {
        self.ask(Verb::BeginMain, Operation::unwatched("main command", &self.view().definition.name)).await
    }

    /// Says that a main command was started.
    ///
    /// # Errors
    /// [`VmError`].
    pub async fn main_started(&self) -> Result<View, VmError> {
        self.ask(Verb::MainStarted, Operation::unwatched("main command", &self.view().definition.name)).await
    }

    async fn ask(&self, verb: Verb, operation: Operation) -> Result<View, VmError> {
        Ok(self.send(verb, operation).await?.await.map_err(|_| self.went())??.view)
    }

    /// An owner that does not answer is gone with its VM, or with the daemon.
    fn went(&self) -> VmError {
        let view = self.view();
        if view.gone {
            VmError::NotFound { name: view.definition.name.clone(), suggestion: None }
        } else {
            VmError::Closing
        }
    }

    async fn send(&self, verb: Verb, operation: Operation) -> Result<Answer, VmError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { verb, operation, reply };
        self.requests
            .send(request)
            .await
            .map_err(|_| VmError::NotFound { name: self.view().definition.name.clone(), suggestion: None })?;
        Ok(answer)
    }
}

fn bytes<const N: usize>() -> Result<[u8; N], VmError> {
    random().map_err(VmError::io("get random bytes for a name"))
}
