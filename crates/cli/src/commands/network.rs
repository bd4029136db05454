//! `banger network`.

use banger_api::client::Request;
use banger_api::network::{Lease, Network};
use clap::{Args, Subcommand};

use super::each::each;
use super::values;
use crate::app::App;
use crate::failure::Failure;
use crate::output::{Format, Text};

/// A verb on the network.
#[derive(Debug, Subcommand)]
pub enum NetworkVerb {
    /// List whose address is which
    #[command(visible_alias = "list")]
    Ls(List),
    /// Give up the addresses of names that no VM has any more
    Forget(Forget),
}

/// Arguments of `network ls`.
#[derive(Debug, Args)]
pub struct List {}

/// Arguments of `network forget`.
#[derive(Debug, Args)]
pub struct Forget {
    /// The names
    #[arg(required = true, value_name = "NAME", value_parser = values::known_name)]
    names: Vec<String>,
}

pub(super) async fn run(app: &App, verb: NetworkVerb) -> Result<u8, Failure> {
    match verb {
        NetworkVerb::Ls(_) => list(app).await,
        NetworkVerb::Forget(forget) => forget.run(app).await,
    }
}

async fn list(app: &App) -> Result<u8, Failure> {
    let network: Network = app.call(Request::get(["network"])).await?;
    let names_only = app.screen.quiet || app.screen.format == Format::Name;
    app.screen.print(&network, || match names_only {
        true => Text::lines(network.leases.iter().map(|lease| &lease.name)),
        false => overview(app, &network),
    })?;
    match &network.subnet {
        Some(subnet) => app.screen.say(&format!("names are in {}, addresses in {subnet}", network.domain)),
        None => app.screen.say("no network yet: the first VM that is in it makes it"),
    }
    Ok(0)
}

fn overview(app: &App, network: &Network) -> Text {
    let row = |lease: &Lease| {
        let vm = if lease.vm { "yes" } else { "no" };
        vec![lease.name.clone(), lease.address.to_string(), vm.to_owned()]
    };
    app.screen.table(&["NAME", "ADDRESS", "VM"], &network.leases.iter().map(row).collect::<Vec<_>>())
}

impl Forget {
    async fn run(self, app: &App) -> Result<u8, Failure> {
        let request = |name: &str| Request::delete(["network", "leases", name]);
        let told = |lease: &Lease| format!("{} is not {}'s any more", lease.address, lease.name);
        each(app, &self.names, request, told, |lease| &lease.name).await
    }
}
