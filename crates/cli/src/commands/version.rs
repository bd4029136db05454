//! `banger version`.

use banger_api::client::{ClientError, Request};
use banger_api::daemon::Version;
use clap::Args;
use serde::Serialize;

use crate::app::App;
use crate::failure::{Failure, chain};
use crate::output::{Format, Text, table};

/// Arguments of `version`.
#[derive(Debug, Args)]
pub struct ShowVersion {}

/// Both sides, as `-o json` prints them.
#[derive(Debug, Serialize)]
struct Versions {
    client: Version,
    socket: String,
    /// Absent where no daemon answers.
    daemon: Option<Version>,
}

impl ShowVersion {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let answer = app.client.of_any_version().call::<Version>(Request::get(["version"])).await;
        let (daemon, note) = match answer {
            Ok(version) => (Some(version), None),
            Err(ClientError::NotRunning { .. }) => (None, Some("not running".to_owned())),
            Err(error) => (None, Some(chain(&error))),
        };
        let client = Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: banger_api::VERSION,
            protocol: banger_api::PROTOCOL_VERSION,
        };
        let versions = Versions { client, socket: app.client.socket().display().to_string(), daemon };
        app.screen.print(&versions, || match app.screen.format {
            Format::Name => Text::line(&versions.client.version),
            Format::Table | Format::Json => table::fields(&[
                ("client", line(&versions.client)),
                ("daemon", versions.daemon.as_ref().map_or(note.unwrap_or_default(), line)),
                ("socket", versions.socket.clone()),
            ]),
        })?;
        Ok(0)
    }
}

fn line(version: &Version) -> String {
    format!("{} (API {}, agent protocol {})", version.version, version.api, version.protocol)
}
