//! Starting a VM whose disks are there. Contains no undoing: a failed start is undone by `release`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::process::ExitStatus;
use std::sync::{Arc, PoisonError};

use banger_api::vm::Net;
use banger_protocol::boot::{Boot, Network, serial};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::watch;

use super::alive::{Hold, Living};
use super::definition::{Definition, VmRecord};
use super::error::VmError;
use super::identity;
use super::publish::{self, Bound};
use super::state::Run;
use crate::boot;
use crate::context::{self, Context, blocking, random, unix_nanos, unix_seconds};
use crate::ground::Slot;
use crate::guest::{self, Guest, GuestError};
use crate::image::names;
use crate::net::addresses;
use crate::net::ruleset::{Lease, Reach};
use crate::net::taps::is_numbered;
use crate::operation::{Operation, Step};
use crate::storage;
use crate::vmm::{Card, Disk, Instance, Machine};

/// How a VMM ended, for all who want to know; nothing where the daemon is not its parent.
pub(super) type VmmEnd = Shared<BoxFuture<'static, Option<ExitStatus>>>;

/// A guest whose agent has answered.
pub(super) struct Started {
    pub(super) instance: Arc<dyn Instance>,
    pub(super) ended: VmmEnd,
    pub(super) guest: Guest,
    pub(super) session_over: watch::Receiver<bool>,
    pub(super) run: Run,
    pub(super) bound: Bound,
}

/// Starts the VMM and waits for the agent. Holds the VMM from its first moment, so that the daemon cannot lose it,
/// whatever happens to its files or to this start.
pub(super) async fn start(
    context: &Context,
    definition: &Definition,
    hold: &mut Hold,
    operation: &Operation,
) -> Result<Started, VmError> {
    let _turn = context.turns.starts.take(operation).await;
    let bound = match definition.publish.as_slice() {
        [] => Bound::default(),
        ports => operation.stage("ports.publish", publish::bind(ports)).await?,
    };
    let mut machine = machine(context, definition);
    let network = match port(context, definition, operation).await? {
        Some((card, network)) => {
            machine.card = Some(card);
            Some(network)
        }
        None => None,
    };
    let prepare = prepare(context, definition, &machine, network);
    operation.stage("boot.prepare", context.step(Step::Prepare, prepare)).await?;

    let start = async {
        // Until it is held: a start that fails after the program runs has to look for it.
        *hold = Hold::Unknown;
        let instance = context.vmm.start(&machine).await?;
        *hold = Hold::Held(instance.process().try_clone().map_err(crate::vmm::VmmError::Process)?);
        Ok(instance)
    };
    let instance = operation.stage("vmm.start", context.step(Step::StartVmm, start)).await?;
    let instance: Arc<dyn Instance> = Arc::from(instance);
    let ended = end_of(&*instance)?;

    let answer = first_answer(context, definition, guest::connect(&*instance, &definition.name), &ended);
    let (guest, session_over) = operation.stage("agent.ready", context.step(Step::AwaitAgent, answer)).await?;
    let run = run_of(context, &guest);
    Ok(Started { instance, ended, guest, session_over, run, bound })
}

/// Takes a port of the network, where the VM is to have one: the card for its VMM, and what its guest has to know. Whose TAP it
/// is stands in the runtime directory, for the next daemon.
async fn port(
    context: &Context,
    definition: &Definition,
    operation: &Operation,
) -> Result<Option<(Card, Network)>, VmError> {
    let (Some(reach), Some(address)) = (reach(definition.net), definition.address) else { return Ok(None) };
    let (id, paths) = (definition.id.as_str(), context.paths.vm(definition.id.as_str()));
    let claim = async {
        // That it is recorded, and names are answered, was seen to when the address was given.
        let subnet = context.network.scope().await?.subnet;
        let port = context.network.claim(id, address, reach).await?;
        let written = DirBuilder::new().recursive(true).mode(0o700).create(&paths.runtime);
        let written = written.and_then(|()| std::fs::write(&paths.tap, &port.tap));
        written.map_err(VmError::io(format!("write {}", paths.tap.display())))?;
        let network = Network {
            mac: port.mac.to_string(),
            address,
            prefix: subnet.prefix(),
            gateway: subnet.host(),
            domain: context.names.domain().to_string(),
        };
        Ok::<_, VmError>((Card { mac: port.mac, tap: Arc::new(port.end) }, network))
    };
    let port = operation.stage("tap.claim", context.step(Step::ClaimPort, claim)).await?;
    let admit = async { Ok::<_, VmError>(context.network.admit(id).await?) };
    operation.stage("net.rules", context.step(Step::AdmitPort, admit)).await?;
    Ok(Some(port))
}

/// Tells the network which ports VMs have from an earlier daemon. Only a VM whose VMM lives has one: by now, the TAP of
/// any other VM may be somebody else's. The record names the TAP, or the file of a VM that was starting, or the VMM's
/// process has it open.
pub(super) async fn ports_before(context: &Context, records: &[VmRecord], survey: &[Living]) {
    for (record, living) in records.iter().zip(survey) {
        let definition = &record.definition;
        let id = definition.id.as_str();
        let (Some(reach), Some(address)) = (reach(definition.net), definition.address) else { continue };
        let Some(vmm) = living.vmm.as_ref() else { continue };
        let recorded = record.traces.clone().and_then(|traces| traces.tap);
        let file = tokio::fs::read_to_string(context.paths.vm(id).tap).await.ok();
        let open = || vmm.taps().ok()?.into_iter().find(|tap| is_tap(tap));
        let tap = recorded.or(file.filter(|tap| is_tap(tap))).or_else(open);
        if let Some(tap) = tap {
            context.network.adopt(id, Lease { tap, mac: addresses::mac(address), address, reach });
        }
    }
}

/// Whether this is the name of one of banger's TAPs: a file may hold anything.
fn is_tap(name: &str) -> bool {
    Slot::all().any(|slot| is_numbered(&slot.taps(), name))
}

fn reach(net: Net) -> Option<Reach> {
    match net {
        Net::Nat => Some(Reach::Everybody),
        Net::Isolated => Some(Reach::Names),
        Net::None => None,
    }
}

/// What the VMM is told: the same every time for the same record.
pub(super) fn machine(context: &Context, definition: &Definition) -> Machine {
    let paths = context.paths.vm(definition.id.as_str());
    let disk = |path, name: &str| Disk { path, serial: name.to_owned() };
    Machine {
        id: definition.id.as_str().to_owned(),
        kernel: context.paths.image(&definition.image_id).join(names::KERNEL),
        initramfs: paths.initramfs,
        cmdline: boot::cmdline(crate::vmm::qemu::console_argument()),
        disks: vec![disk(paths.root, serial::ROOT), disk(paths.work, serial::WORK)],
        card: None,
        cpus: definition.cpus,
        memory_mib: definition.memory / (1024 * 1024),
        uid: definition.uid,
        console_log: paths.console,
        runtime_dir: paths.runtime,
        kvm: context.kvm,
    }
}

/// How a VMM ends. Its console's log is complete by then, unless the file system takes too long.
pub(super) fn end_of(instance: &dyn Instance) -> Result<VmmEnd, VmError> {
    let process = instance.process().try_clone().map_err(crate::vmm::VmmError::Process)?;
    let console = instance.console();
    let end = async move {
        let status = process.ended().await.ok().flatten();
        if let Some(console) = console {
            // A panic's last line says why it ended.
            drop(tokio::time::timeout(LAST_OUTPUT, console.ended()).await);
        }
        status
    };
    Ok(end.boxed().shared())
}

/// How long the last output may take from an ended VMM to its log.
const LAST_OUTPUT: std::time::Duration = std::time::Duration::from_secs(1);

/// What is known of a guest whose agent answered just now.
pub(super) fn run_of(context: &Context, guest: &Guest) -> Run {
    Run { boot_id: guest.welcome.boot_id.clone(), accelerator: context.accelerator().to_owned(), since: unix_seconds() }
}

/// Waits for an agent's greeting, for the end of its VMM, or for the deadline.
pub(super) async fn first_answer(
    context: &Context,
    definition: &Definition,
    connecting: impl Future<Output = Result<(Guest, watch::Receiver<bool>), GuestError>>,
    ended: &VmmEnd,
) -> Result<(Guest, watch::Receiver<bool>), VmError> {
    let deadline = deadline(context);
    let console = context.paths.vm(definition.id.as_str()).console;
    let went_down = async |status: Option<ExitStatus>| VmError::WentDown {
        name: definition.name.clone(),
        status: status.map_or_else(|| "status unknown".to_owned(), |status| status.to_string()),
        said: last_words(console.clone()).await,
    };
    tokio::select! {
        connected = connecting => match connected {
            Ok(connected) => Ok(connected),
            // A channel that breaks here mostly means that the VMM is on its way out; that says more.
            Err(error) => match tokio::time::timeout(deadline.min(ENDING), ended.clone()).await {
                Ok(status) => Err(went_down(status).await),
                Err(_) => Err(error.into()),
            },
        },
        status = ended.clone() => Err(went_down(status).await),
        () = tokio::time::sleep(deadline) => Err(VmError::AgentSilent {
            name: definition.name.clone(),
            seconds: deadline.as_secs(),
            said: last_words(console.clone()).await,
        }),
    }
}

/// By when an agent has to answer: the configured time is that of a guest with a processor to itself.
fn deadline(context: &Context) -> std::time::Duration {
    let starting = context.turns.starts.taken();
    let for_each = u32::try_from(starting.div_ceil(context::processors())).unwrap_or(u32::MAX).max(1);
    context.config.timeouts.agent() * for_each
}

/// How long a VMM whose channel broke may take to end.
const ENDING: std::time::Duration = std::time::Duration::from_secs(2);

/// The line of a console's log that says most about a failed boot.
pub(super) async fn last_words(console: std::path::PathBuf) -> Option<String> {
    let log = crate::vmm::qemu::console::read(&console).await.ok()?;
    let tail = &log[log.len().saturating_sub(16 * 1024)..];
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let telling = |line: &&&str| line.contains("banger-agent: cannot") || line.contains("Kernel panic");
    let line = lines.iter().rev().find(telling).or(lines.last())?;
    // A guest writes what it likes there: nothing that would steer a terminal.
    Some(line.chars().filter(|letter| !letter.is_control()).take(200).collect())
}

async fn prepare(
    context: &Context,
    definition: &Definition,
    machine: &Machine,
    network: Option<Network>,
) -> Result<(), VmError> {
    let entropy = random::<64>().map_err(VmError::io("get random bytes for the guest"))?;
    let identity = identity::at_boot(definition, &entropy, unix_nanos());
    let image = context.paths.image(&definition.image_id);
    let (agent, runtime, to) = (context.agent.clone(), machine.runtime_dir.clone(), machine.initramfs.clone());
    let bases = Arc::clone(&context.bases);
    let fill_work_disk = !image.join(names::WORK_SEED).exists();
    let (work, size) = (context.paths.vm(definition.id.as_str()).work, definition.disk);
    let (user, ssh_keys) = (definition.user.clone(), definition.ssh_keys.clone());
    blocking(move || {
        // A disk that was to grow while its VM did not run, or while a daemon was killed over it.
        storage::grow(&work, size)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&runtime);
        made.map_err(VmError::io(format!("make the directory {}", runtime.display())))?;
        let base = {
            let _one_at_a_time = bases.lock().unwrap_or_else(PoisonError::into_inner);
            boot::base_initramfs(&image, &agent)?
        };
        let boot = Boot { modules: boot::modules(&image)?, identity, fill_work_disk, user, ssh_keys, network };
        Ok(boot::initramfs(&base, &boot, &to)?)
    })
    .await
}
