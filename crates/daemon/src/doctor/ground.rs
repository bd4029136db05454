//! What this daemon owns on this host, and what other daemons own.

use std::os::unix::fs::MetadataExt;

use banger_api::daemon::Finding;
use banger_linux::netlink::Netlink;

use super::{pass, warn};
use crate::context::{Context, blocking};
use crate::ground::{Choice, Claim, GroundId, Neighbour, Slot, Uids, neighbours};

/// The inode of the first pid namespace (`PROC_PID_INIT_INO`, linux/proc_ns.h).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The known grounds on this host.
#[derive(Debug, Clone)]
struct Known {
    id: GroundId,
    choice: Choice,
    network: Slot,
    uids: Uids,
    bridges: Vec<Neighbour>,
    claims: Vec<Claim>,
    is_first_namespace: bool,
}

/// Looks.
pub(super) async fn of(context: &Context) -> Finding {
    let (is_up, network) = (context.network.is_up().await, context.network.slot().await);
    let (id, uids, choice, claims) = (context.ground, context.uids, context.config.ground.slot, context.claims.clone());
    let look = move || {
        let links = Netlink::open().and_then(|mut netlink| netlink.links()).unwrap_or_default();
        let bridges = neighbours(&links, Some(network).filter(|_| is_up));
        let claims = claims.recorded().into_iter().map(|(_, claim)| claim).filter(|claim| claim.id != id).collect();
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
    let mut found = format!("network slot {network}, user ids {} to {}, ground {id}", uids.first(), uids.last());
    for bridge in bridges.iter().filter(|bridge| bridge.mark.as_ref().is_some_and(|mark| mark.id != *id)) {
        found += &format!("; {} is that of {}", bridge.slot.bridge(), bridge.owner());
    }
    for claim in claims {
        let (first, last) = (claim.uids.first(), claim.uids.last());
        found += &format!("; user ids {first} to {last} are those of the daemon of {}", claim.state.display());
    }
    if let Choice::Fixed(slot) = choice
        && bridges.iter().any(|bridge| bridge.slot == *slot)
    {
        let fix = "stop all VMs and start the daemon anew, or set another `slot` below `[ground]` in the configuration";
        return warn(CHECK, format!("the configuration wants slot {slot}, which is taken; {found}"), fix);
    }
    if let Choice::Fixed(slot) = choice
        && slot != network
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
    use crate::ground::Mark;
    use banger_api::daemon::Verdict;

    fn known() -> Known {
        Known {
            id: GroundId::from_random([1; 8]),
            choice: Choice::Auto,
            network: Slot::FIRST,
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
        let found = told(&Known { bridges: vec![bridge], claims: vec![claim], ..known() });
        assert_eq!((found.verdict, found.fix), (Verdict::Pass, None));
        assert!(found.found.ends_with(
            "; banger1 is that of the daemon of /other; user ids 132072 to 263143 are those of the daemon of /other"
        ));
    }

    #[test]
    fn a_container_needs_a_slot_and_one_that_is_taken_is_a_warning() {
        let inside = Known { is_first_namespace: false, ..known() };
        assert_eq!(told(&inside).verdict, Verdict::Warn);
        let slot = Slot::new(1).unwrap();
        assert_eq!(told(&Known { choice: Choice::Fixed(slot), network: slot, ..inside }).verdict, Verdict::Pass);
        // While VMs run on another network, the configuration does not take effect.
        assert_eq!(told(&Known { choice: Choice::Fixed(slot), ..known() }).verdict, Verdict::Warn);
        let bridge = Neighbour { slot, mark: None, lives: false };
        let found = told(&Known { choice: Choice::Fixed(slot), bridges: vec![bridge], ..known() });
        assert!(
            found.verdict == Verdict::Warn && found.found.starts_with("the configuration wants slot 1, which is taken")
        );
    }
}
