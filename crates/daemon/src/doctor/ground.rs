//! What this daemon owns on this host, and what other daemons own.

use std::os::unix::fs::MetadataExt;

use banger_api::daemon::Finding;
use banger_linux::netlink::Netlink;

use super::{pass, warn};
use crate::context::{Context, blocking};
use crate::ground::{Choice, GroundId, Neighbour, Recorded, Slot, Uids, neighbours};

/// The inode of the first pid namespace (`PROC_PID_INIT_INO`, linux/proc_ns.h).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The known grounds on this host.
#[derive(Debug, Clone)]
struct Known {
    id: GroundId,
    choice: Choice,
    /// That of its network, if there is one.
    network: Option<Slot>,
    uids: Uids,
    /// The bridges of others.
    bridges: Vec<Neighbour>,
    /// The claims of others.
    claims: Vec<Recorded>,
    is_first_namespace: bool,
}

/// Looks.
pub(super) async fn of(context: &Context) -> Finding {
    let network = super::network_slot(context).await;
    let (id, uids, choice, claims) = (context.ground, context.uids, context.config.ground.slot, context.claims.clone());
    let look = move || {
        let links = Netlink::open().and_then(|mut netlink| netlink.links()).unwrap_or_default();
        let bridges = neighbours(&links, network);
        let claims = claims.recorded().into_iter().filter(|recorded| recorded.claim.id != id).collect();
        let namespace = std::fs::metadata("/proc/self/ns/pid").map(|found| found.ino());
        // A process with its own /run sees only its own claims.
        let place = |path: &str| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
        // Only root may look there.
        let has_hosts_run =
            place("/proc/1/root/run").ok().is_none_or(|hosts| place("/run").is_ok_and(|own| own == hosts));
        let is_first_namespace = namespace.is_ok_and(|inode| inode == FIRST_PID_NAMESPACE) && has_hosts_run;
        Known { id, choice, network, uids, bridges, claims, is_first_namespace }
    };
    told(&blocking(look).await)
}

fn told(known: &Known) -> Finding {
    const CHECK: &str = "ground";
    let Known { id, choice, network, uids, bridges, claims, is_first_namespace } = known;
    let slot = network.map_or_else(
        || "no network yet, the first VM makes it".to_owned(),
        |network| format!("network slot {network}"),
    );
    let mut found = format!("{slot}, user ids {} to {}, ground {id}", uids.first(), uids.last());
    for bridge in bridges.iter().filter(|bridge| bridge.mark.as_ref().is_some_and(|mark| mark.id != *id)) {
        found += &format!("; {} is that of {}", bridge.slot.bridge(), bridge.owner());
    }
    for Recorded { claim, is_held, .. } in claims {
        let (first, last, state) = (claim.uids.first(), claim.uids.last(), claim.state.display());
        let whose = if *is_held { "the daemon of" } else { "a daemon that does not run, that of" };
        found += &format!("; user ids {first} to {last} are those of {whose} {state}");
    }
    if let Choice::Fixed(slot) = choice
        && bridges.iter().any(|bridge| bridge.slot == *slot)
    {
        let fix = "stop all VMs and start the daemon anew, or set another `slot` below `[ground]` in the configuration";
        return warn(CHECK, format!("the configuration wants slot {slot}, which is taken; {found}"), fix);
    }
    if let Choice::Fixed(slot) = choice
        && network.is_some_and(|network| network != *slot)
    {
        let fix = "stop all VMs and start the daemon anew";
        return warn(
            CHECK,
            format!("the configuration wants slot {slot}, and VMs were on another network before: {found}"),
            fix,
        );
    }
    if !is_first_namespace && *choice == Choice::Auto {
        let fix = "set `slot` below `[ground]` in the configuration, another number for each container";
        return warn(
            CHECK,
            format!("this is a container, and daemons outside of it and in others may use the same user ids: {found}"),
            fix,
        );
    }
    pass(CHECK, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::{Claim, Mark};
    use banger_api::daemon::Verdict;

    fn known() -> Known {
        Known {
            id: GroundId::from_random([1; 8]),
            choice: Choice::Auto,
            network: Some(Slot::FIRST),
            uids: Uids::of(Slot::FIRST, 1000).unwrap(),
            bridges: Vec::new(),
            claims: Vec::new(),
            is_first_namespace: true,
        }
    }

    #[test]
    fn others_are_named_and_nobody_is_to_be_ended() {
        let alone = told(&known());
        assert_eq!(
            (alone.verdict, alone.found.as_str()),
            (Verdict::Pass, "network slot 0, user ids 1000 to 132071, ground 0101010101010101")
        );
        let mark = Mark { id: GroundId::from_random([2; 8]), state: "/other".into() };
        let bridge = Neighbour { slot: Slot::new(1).unwrap(), mark: Some(mark.clone()), lives: true };
        let uids = Uids::of(Slot::new(1).unwrap(), 1000).unwrap();
        let claim = Claim { id: mark.id, uids, state: "/other".into(), socket: "/run/other/bangerd.sock".into() };
        let with = |network, is_held| {
            let claims = vec![Recorded { slot: Slot::new(1).unwrap(), claim: claim.clone(), is_held }];
            told(&Known { network, bridges: vec![bridge.clone()], claims, ..known() })
        };
        let found = with(Some(Slot::FIRST), true);
        assert_eq!((found.verdict, found.fix), (Verdict::Pass, None));
        assert!(found.found.ends_with(
            "; banger1 is that of the daemon of /other; user ids 132072 to 263143 are those of the daemon of /other"
        ));
        let found = with(None, false);
        assert!(found.found.starts_with("no network yet, the first VM makes it, user ids 1000 to "), "{}", found.found);
        assert!(
            found
                .found
                .ends_with("; user ids 132072 to 263143 are those of a daemon that does not run, that of /other")
        );
    }

    #[test]
    fn a_container_needs_a_slot_and_one_that_is_taken_is_a_warning() {
        let inside = Known { is_first_namespace: false, ..known() };
        assert_eq!(told(&inside).verdict, Verdict::Warn);
        let slot = Slot::new(1).unwrap();
        assert_eq!(told(&Known { choice: Choice::Fixed(slot), network: Some(slot), ..inside }).verdict, Verdict::Pass);
        // While VMs run on another network, the configuration does not take effect.
        assert_eq!(told(&Known { choice: Choice::Fixed(slot), ..known() }).verdict, Verdict::Warn);
        // Before there is a network, there is nothing to say about its slot.
        assert_eq!(told(&Known { choice: Choice::Fixed(slot), network: None, ..known() }).verdict, Verdict::Pass);
        let bridge = Neighbour { slot, mark: None, lives: false };
        let found = told(&Known { choice: Choice::Fixed(slot), bridges: vec![bridge], ..known() });
        assert!(
            found.verdict == Verdict::Warn && found.found.starts_with("the configuration wants slot 1, which is taken")
        );
    }
}
