//! `banger ports`.

use banger_api::client::Request;
use banger_api::port::Port;
use clap::Args;

use super::values;
use crate::app::App;
use crate::failure::Failure;
use crate::output::{Format, Text};

/// Arguments of `ports`.
#[derive(Debug, Args)]
pub struct Ports {
    /// The VM
    #[arg(value_parser = values::known_name)]
    name: String,
}

/// Ports of common services that are no web servers: no URL of theirs begins with `http`.
const NOT_WEB: [u16; 7] = [22, 25, 53, 3306, 5432, 6379, 27017];

impl Ports {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let ports: Vec<Port> = app.call(Request::get(["vms", &self.name, "ports"])).await?;
        let quiet = app.screen.quiet || app.screen.format == Format::Name;
        app.screen.print(&ports, || match quiet {
            true => Text::lines(ports.iter().map(|port| port.port.to_string())),
            false => {
                let rows: Vec<_> = ports.iter().map(|port| row(port, &self.name)).collect();
                app.screen.table(&["PORT", "PROCESS", "LISTENS AT", "REACHED AT"], &rows)
            }
        })?;
        if ports.is_empty() && app.screen.format == Format::Table {
            app.screen.say(&format!("nothing listens in {}", self.name));
        }
        Ok(0)
    }
}

fn row(port: &Port, name: &str) -> Vec<String> {
    let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
    let ways = port.reached_at.iter().cloned().chain(port.published_at.iter().map(ToString::to_string));
    let scheme = match port.port {
        443 | 8443 => "https://",
        other if NOT_WEB.contains(&other) => "",
        _ => "http://",
    };
    let mut ways: Vec<String> = ways.map(|way| format!("{scheme}{way}")).collect();
    if ways.is_empty() {
        ways.push(format!("banger forward {name} {}", port.port));
    }
    vec![
        port.port.to_string(),
        port.process.clone().unwrap_or_else(|| "-".to_owned()),
        addresses.join(" "),
        ways.join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_a_url_or_a_way_to_one() {
        let port = |port: u16, reached_at: Option<&str>| Port {
            port,
            addresses: vec!["0.0.0.0".parse().unwrap()],
            process: Some("perl".into()),
            reached_at: reached_at.map(str::to_owned),
            published_at: Vec::new(),
        };
        assert_eq!(row(&port(8080, Some("a.vm:8080")), "a"), ["8080", "perl", "0.0.0.0", "http://a.vm:8080"]);
        assert_eq!(row(&port(443, Some("a.vm:443")), "a")[3], "https://a.vm:443");
        assert_eq!(row(&port(22, Some("a.vm:22")), "a")[3], "a.vm:22");
        assert_eq!(row(&port(8080, None), "a")[3], "banger forward a 8080");
    }
}
