//! The names of VMs: whether this host's programs are told them, and whether anybody is answered.

use banger_api::daemon::Finding;
use banger_api::dns::Wired;

use super::{pass, warn};
use crate::dns::names::Refusals;
use crate::dns::wiring::{Holder, Seen};

/// Whether programs of this host find VMs by their names.
pub(super) fn names(seen: &Seen) -> Finding {
    const CHECK: &str = "names";
    let (name, by) = (&seen.name, by(seen.wired));
    if seen.resolves() {
        return pass(CHECK, format!("programs of this host find {name} by {by}"));
    }
    if let (Wired::None, Some(owner)) = (seen.wired, &seen.others) {
        let found = format!("programs of this host find the names of {owner} in this daemon's domain, by /etc/hosts");
        return warn(CHECK, found, "set another `domain` below `[dns]` in the configuration, then: banger dns install");
    }
    match (seen.wired, seen.subnet) {
        // Programs may get an address for this name from another daemon: do not report it.
        (Wired::None, None) => {
            let found = "programs of this host are not told the names of VMs, and there is no network of VMs yet";
            warn(CHECK, found, "banger dns install")
        }
        (Wired::None, Some(_)) => {
            let found = format!(
                "programs of this host do not find VMs by their names: for {name} they are told {}",
                seen.programs
            );
            warn(CHECK, found, "banger dns install")
        }
        (Wired::Resolved | Wired::HostsFile, None) => {
            let found = format!("{by} is set up, and there is no network of VMs yet");
            warn(CHECK, found, "banger dns install, which makes it or says why it cannot be made")
        }
        (Wired::Resolved, Some(_)) if seen.resolved && !seen.leads => {
            let found = format!(
                "systemd-resolved knows {name}, and programs do not ask it: /etc/resolv.conf does not lead there"
            );
            warn(CHECK, found, "ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf")
        }
        (Wired::Resolved, Some(_)) if seen.resolved => {
            let found = format!("systemd-resolved knows {name}, and programs are told {}", seen.programs);
            warn(
                CHECK,
                found,
                "see the line `hosts:` of /etc/nsswitch.conf, and whether nscd has something old: nscd -i hosts",
            )
        }
        (Wired::Resolved, Some(_)) => {
            warn(CHECK, format!("systemd-resolved is set up, and does not know {name}"), "banger dns install")
        }
        (Wired::HostsFile, Some(_)) => {
            let found = format!("{by} is set up, and for {name} programs are told {}", seen.programs);
            warn(CHECK, found, "banger dns install --hosts-file")
        }
    }
}

/// Whether the host is answered.
pub(super) fn host_server(seen: &Seen, refusal: Option<&str>, holder: Option<Holder>) -> Finding {
    const CHECK: &str = "dns-host";
    let Some(server) = seen.server else {
        return pass(CHECK, "this host is not to be answered: the configuration has dns.port = 0");
    };
    match (refusal, holder) {
        (None, _) if seen.subnet.is_none() => pass(CHECK, "this host is answered as soon as there is a network of VMs"),
        (None, _) => pass(CHECK, format!("this host is answered at {server}")),
        (Some(refusal), Some(holder)) if holder.is_daemon() => warn(
            CHECK,
            format!("{refusal}; another daemon, {holder}, has it"),
            "set another `port` below `[dns]` in the configuration of one of them, and start that one anew",
        ),
        (Some(refusal), Some(holder)) => warn(
            CHECK,
            format!("{refusal}; {holder} has it"),
            format!("kill {}; or set another `port` below `[dns]`", holder.pid),
        ),
        (Some(refusal), None) => warn(CHECK, refusal, "set another `port` below `[dns]` in the configuration"),
    }
}

/// Whether guests are answered.
pub(super) fn guests_server(seen: &Seen, refusal: Option<&str>) -> Finding {
    const CHECK: &str = "dns-guests";
    match (refusal, seen.subnet) {
        (Some(refusal), _) => {
            let fix = "let nobody else listen at port 53 of all addresses, as `ss -lnp sport = :53` shows: dnsmasq by bind-dynamic";
            warn(CHECK, refusal, fix)
        }
        (None, Some(subnet)) => pass(CHECK, format!("guests are answered at {}:53", subnet.host())),
        (None, None) => pass(CHECK, "guests are answered as soon as there is a network of VMs"),
    }
}

/// All of them. `holder` is asked where somebody else has the port.
pub(super) fn all(seen: &Seen, refusals: &Refusals, holder: impl Fn(u16) -> Option<Holder>) -> Vec<Finding> {
    let refusal = refusals.host.as_deref();
    let holder = refusal.and(seen.server).and_then(|server| holder(server.port()));
    vec![names(seen), host_server(seen, refusal, holder), guests_server(seen, refusals.guests.as_deref())]
}

fn by(wired: Wired) -> &'static str {
    match wired {
        Wired::None => "what was set up by hand",
        Wired::Resolved => "systemd-resolved",
        Wired::HostsFile => "/etc/hosts",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::wiring::Told;
    use banger_api::daemon::Verdict;

    fn seen(wired: Wired, told: Told) -> Seen {
        Seen {
            wired,
            name: "host.vm".into(),
            server: Some("127.0.0.1:42069".parse().unwrap()),
            subnet: Some("10.9.0.0/24".parse().unwrap()),
            programs: told,
            resolved: false,
            leads: true,
            others: None,
        }
    }

    fn right() -> Told {
        Told::Addresses(vec![[10, 9, 0, 1].into()])
    }

    fn nothing() -> Told {
        Told::Nothing("not known".into())
    }

    #[test]
    fn a_name_that_is_not_found_is_a_warning_with_the_verb_that_helps() {
        for wired in [Wired::None, Wired::Resolved, Wired::HostsFile] {
            assert_eq!(names(&seen(wired, right())).verdict, Verdict::Pass);
            for told in [nothing(), Told::Late, Told::Addresses(vec![[10, 9, 0, 2].into()])] {
                let found = names(&seen(wired, told));
                assert!(found.verdict == Verdict::Warn && found.fix.unwrap().starts_with("banger dns install"));
            }
            let without = names(&Seen { subnet: None, ..seen(wired, right()) });
            assert!(without.verdict == Verdict::Warn && without.fix.unwrap().starts_with("banger dns install"));
            // They are another daemon's name and address.
            assert!(!without.found.contains("host.vm") && !without.found.contains("10.9.0.1"), "{}", without.found);
        }
    }

    #[test]
    fn the_names_of_another_daemon_are_its_own() {
        let found = names(&Seen { others: Some("the daemon of /other".into()), ..seen(Wired::None, nothing()) });
        assert!(found.verdict == Verdict::Warn && found.found.contains("the names of the daemon of /other"));
    }

    #[test]
    fn a_resolver_that_nobody_asks_is_told_apart() {
        let found = names(&Seen { resolved: true, leads: false, ..seen(Wired::Resolved, nothing()) });
        assert!(
            found.found.contains("/etc/resolv.conf does not lead there") && found.fix.unwrap().starts_with("ln -sf ")
        );
        let found = names(&Seen { resolved: true, ..seen(Wired::Resolved, nothing()) });
        assert!(found.verdict == Verdict::Warn && found.fix.unwrap().contains("nsswitch"));
    }

    #[test]
    fn servers_that_do_not_listen_are_warnings() {
        let seen = seen(Wired::None, nothing());
        let holder = || Some(Holder { pid: 7, name: "dnsmasq".into() });
        let good = all(&seen, &Refusals::default(), |_| panic!("nobody has it"));
        assert!(good[1..].iter().all(|finding| finding.verdict == Verdict::Pass));
        let refusals = Refusals { host: Some("taken".into()), guests: Some("taken, too".into()) };
        let bad = all(&seen, &refusals, |port| holder().filter(|_| port == 42069));
        assert_eq!(bad[1].found, "taken; process 7 (dnsmasq) has it");
        assert!(bad[1..].iter().all(|finding| finding.verdict == Verdict::Warn));
        assert!(all(&seen, &refusals, |_| None)[1].fix.as_ref().unwrap().contains("another `port`"));
        let early = host_server(&Seen { subnet: None, ..seen.clone() }, None, None);
        assert!(early.verdict == Verdict::Pass && !early.found.contains("127.0.0.1"), "{}", early.found);
        let off = Seen { server: None, ..seen };
        assert_eq!(host_server(&off, None, None).verdict, Verdict::Pass);
    }
}
