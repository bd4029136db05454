//! `banger create`.

use banger_api::client::Request;
use banger_api::port::Publish;
use banger_api::vm::{Lifetime, Net, RestartPolicy, Vm, VmCreate};
use clap::Args;

use super::change::Policy;
use super::operation::{follow, wait};
use super::values::{self, Variable, WaitLevel};
use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::caller;
use crate::complete::Offer;
use crate::failure::Failure;
use crate::output::{Format, Text, human};
use crate::size::Size;
use crate::ssh::keys;

/// What a new VM is to be like.
#[derive(Debug, Clone, Args)]
pub struct Shape {
    /// The image to make it from [default: the default image]
    #[arg(long, value_name = "IMAGE", value_parser = values::known_name, add = Offer::Images)]
    pub image: Option<String>,
    /// Number of processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cpus: Option<u32>,
    /// Memory, as 512M or 4G
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub memory: Option<Size>,
    /// Size of the work disk, which is /root, as 8G
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub disk: Option<Size>,
    /// A variable for all its commands; without a value, the one that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = values::variable)]
    pub env: Vec<Variable>,
    /// The directory in the guest where its commands run by default
    #[arg(short, long, value_name = "DIR", value_parser = values::guest_directory)]
    pub workdir: Option<String>,
    /// Whom it can reach: nat (all), isolated (nobody, but for names) or none [default: as configured]
    #[arg(long, value_name = "NET", value_enum, hide_possible_values = true)]
    pub net: Option<NetChoice>,
    /// A port of this host that leads to one of its own while it runs; on loopback, unless an address is given
    #[arg(short, long, value_name = "[ADDRESS:]PORT[:GUEST]")]
    pub publish: Vec<Publish>,
    /// When it starts again by itself: no, on-failure or always [default: no]
    #[arg(long, value_name = "POLICY", value_enum, hide_possible_values = true)]
    pub restart: Option<Policy>,
}

/// Whom a guest can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum NetChoice {
    /// The world, the host and other VMs
    Nat,
    /// Nobody, but for names
    Isolated,
    /// Nobody
    None,
}

impl From<NetChoice> for Net {
    fn from(choice: NetChoice) -> Net {
        match choice {
            NetChoice::Nat => Net::Nat,
            NetChoice::Isolated => Net::Isolated,
            NetChoice::None => Net::None,
        }
    }
}

/// Arguments of `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Its name; one is made up if it is left out
    #[arg(value_parser = values::new_name, add = Offer::New)]
    name: Option<String>,
    #[command(flatten)]
    shape: Shape,
    /// Return when the guest has come up this far: agent, system or ssh [default: agent]
    #[arg(long, value_name = "LEVEL", value_enum, hide_possible_values = true)]
    wait: Option<WaitLevel>,
    /// Do not start it
    #[arg(long, conflicts_with = "wait")]
    stopped: bool,
}

impl Shape {
    /// The request for such a VM.
    ///
    /// # Errors
    /// Those of [`values::variables`].
    pub fn request(&self, app: &App, name: Option<String>, lifetime: Lifetime) -> Result<VmCreate, Failure> {
        Ok(VmCreate {
            name,
            image: self.image.clone(),
            cpus: self.cpus,
            memory: self.memory.map(|size| size.0),
            disk: self.disk.map(|size| size.0),
            env: values::variables(&self.env, &app.environment)?,
            workdir: self.workdir.clone(),
            net: self.net.map(Net::from),
            publish: self.publish.clone(),
            user: caller::user(&app.environment),
            ssh_keys: keys::for_new_vm(&app.environment),
            lifetime,
            restart: self.restart.map(RestartPolicy::from).unwrap_or_default(),
            stopped: false,
        })
    }
}

impl Create {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let mut request = self.shape.request(app, self.name, Lifetime::Kept)?;
        request.stopped = self.stopped;
        let mut interrupts = Interrupts::catch()?;
        let request = Request::post(["vms"]).json(&request);
        let done = follow::<Vm>(app, request, &mut interrupts, "the VM is not created").await?;
        let mut vm = done.result;
        if let Some(level) = self.wait {
            vm = wait(app, &vm.name, level, &mut interrupts).await?;
        }
        let what = if self.stopped { "created" } else { "running" };
        let sentence = format!("{} is {what} in {}", vm.name, human::duration(done.took));
        announce(app, &vm, &sentence)?;
        Ok(0)
    }
}

/// Says what became of a VM, and prints it. Its name alone goes to standard output unless the sentence has just been
/// shown on the same terminal.
pub fn announce(app: &App, vm: &Vm, sentence: &str) -> Result<(), Failure> {
    app.screen.say(sentence);
    let read_already = !app.screen.quiet && app.screen.stdout_is_terminal;
    if app.screen.format == Format::Table && read_already {
        return Ok(());
    }
    app.screen.print(vm, || Text::line(&vm.name))
}
