//! `banger dns`.

use banger_api::client::{ClientError, Request};
use banger_api::daemon::Verdict;
use banger_api::dns::{ByHand, Dns, DnsInstall, Wired};
use banger_api::error::ErrorCode;
use clap::{Args, Subcommand};

use super::doctor;
use crate::app::App;
use crate::failure::Failure;
use crate::output::{Format, Text, complain_text, table};

/// A verb on the names of VMs.
#[derive(Debug, Subcommand)]
pub enum DnsVerb {
    /// Have this host's programs find VMs by their names: `curl devbox.vm`
    Install(Install),
    /// Undo what `dns install` did
    Uninstall(Uninstall),
    /// Show whether programs of this host find VMs by their names; the exit code is 1 if they do not
    Status(ShowDns),
}

/// Arguments of `dns install`.
#[derive(Debug, Args)]
pub struct Install {
    /// Keep names in /etc/hosts, in place of asking systemd-resolved; it has no names below a VM's, as www.devbox.vm
    #[arg(long)]
    pub hosts_file: bool,
}

/// Arguments of `dns uninstall`.
#[derive(Debug, Args)]
pub struct Uninstall {}

/// Arguments of `dns status`.
#[derive(Debug, Args)]
pub struct ShowDns {}

pub(super) async fn run(app: &App, verb: DnsVerb) -> Result<u8, Failure> {
    match verb {
        DnsVerb::Install(install) => install.run(app).await,
        DnsVerb::Uninstall(_) => {
            let dns: Dns = app.call(Request::post(["dns", "uninstall"])).await?;
            if app.screen.format == Format::Table {
                app.screen.say("nothing of banger's is set up for names on this host");
            } else {
                print(app, &dns)?;
            }
            Ok(0)
        }
        DnsVerb::Status(_) => {
            let dns: Dns = app.call(Request::get(["dns"])).await?;
            print(app, &dns)?;
            Ok(u8::from(!dns.resolves))
        }
    }
}

impl Install {
    async fn run(self, app: &App) -> Result<u8, Failure> {
        let request = Request::post(["dns", "install"]).json(&DnsInstall { hosts_file: self.hosts_file });
        match app.call::<Dns>(request).await {
            Ok(dns) => {
                print(app, &dns)?;
                Ok(0)
            }
            Err(failure) => {
                // The cause is the last thing to be read, below what can be done instead.
                if is_unfit(&failure) && !self.hosts_file && app.screen.format == Format::Table {
                    let dns: Dns = app.call(Request::get(["dns"])).await?;
                    complain_text(&by_hand(&dns.by_hand));
                }
                Err(failure)
            }
        }
    }
}

fn is_unfit(failure: &Failure) -> bool {
    let source = match failure {
        Failure::Client(source) | Failure::Helped { source, .. } => source,
        _ => return false,
    };
    matches!(source, ClientError::Api(error) if error.code == ErrorCode::HostUnfit)
}

fn print(app: &App, dns: &Dns) -> Result<(), Failure> {
    app.screen.print(dns, || match app.screen.format {
        Format::Name => Text::line(by(dns.wired)),
        Format::Table | Format::Json => text(dns, app.screen.quiet),
    })
}

fn text(dns: &Dns, quiet: bool) -> Text {
    let address = dns.address.map_or_else(|| "not found".to_owned(), |address| address.to_string());
    let server = dns.server.map_or_else(|| "nowhere".to_owned(), |server| server.to_string());
    let mut text = table::fields(&[
        ("wired", by(dns.wired).to_owned()),
        ("domain", dns.domain.clone()),
        ("server", server),
        (dns.name.as_str(), address),
    ]);
    if dns.wired == Wired::HostsFile {
        text.push("names below a VM's, as www.devbox.vm, are not found by /etc/hosts");
    }
    let not_right = dns.findings.iter().filter(|finding| finding.verdict != Verdict::Pass);
    text.append(&doctor::report(&not_right.cloned().collect::<Vec<_>>(), quiet));
    text
}

fn by(wired: Wired) -> &'static str {
    match wired {
        Wired::None => "none",
        Wired::Resolved => "resolved",
        Wired::HostsFile => "hosts-file",
    }
}

/// What can be written where instead.
fn by_hand(all: &[ByHand]) -> Text {
    let mut text = Text::default();
    for one in all {
        let head = format!("for {}, {}:", one.resolver, one.place);
        text.append(&Text::lines([head, String::new()]));
        text.append(&Text::lines(one.lines.iter().map(|line| format!("    {line}"))));
        text.push("");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::daemon::Finding;

    fn dns(wired: Wired) -> Dns {
        let pass = Finding { check: "dns-host".into(), verdict: Verdict::Pass, found: "answered".into(), fix: None };
        let warn = Finding {
            check: "names".into(),
            verdict: Verdict::Warn,
            found: "not found".into(),
            fix: Some("banger dns install".into()),
        };
        Dns {
            wired,
            resolves: false,
            name: "host.vm".into(),
            address: None,
            domain: "vm".into(),
            server: Some("127.0.0.1:42069".parse().unwrap()),
            findings: vec![warn, pass],
            by_hand: vec![ByHand {
                resolver: "dnsmasq".into(),
                place: "f".into(),
                lines: vec!["a".into(), "b".into()],
            }],
        }
    }

    #[test]
    fn only_what_is_not_right_is_told_with_what_to_do() {
        let text = |dns: &Dns| super::text(dns, false).as_str().to_owned();
        let told = text(&dns(Wired::None));
        assert!(told.starts_with("wired:") && told.contains("127.0.0.1:42069"), "{told}");
        assert!(told.contains("help: banger dns install") && !told.contains("answered"), "{told}");
        assert!(!told.contains("www.devbox.vm") && text(&dns(Wired::HostsFile)).contains("www.devbox.vm"));
    }

    #[test]
    fn lines_to_write_stand_apart() {
        assert_eq!(by_hand(&dns(Wired::None).by_hand).as_str(), "for dnsmasq, f:\n\n    a\n    b\n\n");
    }
}
