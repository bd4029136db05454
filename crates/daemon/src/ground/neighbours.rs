//! The grounds in this network namespace, known by their bridges. Pure.

use banger_linux::netlink::Link;

use super::{Choice, GroundId, Mark, Slot};
use crate::net::addresses;
use crate::net::claim::is_of;

/// The ground of another daemon, or a bridge with such a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its slot.
    pub slot: Slot,
    /// Its owner; `None` if no ground left a note.
    pub mark: Option<Mark>,
    /// Whether a port of the bridge is open: its daemon or one of its VMs runs.
    pub lives: bool,
}

/// All bridges that have the name of a slot other than `own`.
pub fn neighbours(links: &[Link], own: Option<Slot>) -> Vec<Neighbour> {
    let neighbour = |link: &Link| {
        let slot = Slot::of_bridge(&link.name).filter(|slot| Some(*slot) != own)?;
        let mark = link.alias.as_deref().and_then(Mark::read);
        Some(Neighbour { slot, mark, lives: lives(links, link) })
    };
    links.iter().filter_map(neighbour).collect()
}

/// The slot of this ground's bridge, if there is one.
pub fn own(links: &[Link], id: GroundId) -> Option<Slot> {
    links.iter().filter(|link| is_of(link, id)).find_map(|link| Slot::of_bridge(&link.name))
}

/// The slot that a ground without a network would get now. `had` is the one that it had last.
pub fn next(links: &[Link], id: GroundId, choice: Choice, had: Option<Slot>) -> Slot {
    let is_free = |slot: &Slot| !links.iter().any(|link| link.name == slot.bridge());
    let first_free = || choice.candidates(had).into_iter().find(is_free);
    own(links, id).or_else(first_free).unwrap_or_else(|| choice.expected(had))
}

/// Whether a ground other than that of `own` has a bridge: one with a note, or with a hardware address from banger. Other
/// devices with a bridge's name belong to no ground.
pub fn has_others(links: &[Link], own: Option<Slot>) -> bool {
    let is_grounds = |link: &Link| link.alias.as_deref().and_then(Mark::read).is_some() || addresses::is_ours(link.mac);
    let is_other = |link: &Link| Slot::of_bridge(&link.name).is_some_and(|slot| Some(slot) != own);
    links.iter().any(|link| is_other(link) && link.kind.as_deref() == Some("bridge") && is_grounds(link))
}

/// Whether a port of this bridge is open.
pub fn lives(links: &[Link], bridge: &Link) -> bool {
    links.iter().any(|link| link.master == Some(bridge.index) && link.carrier)
}

impl Neighbour {
    /// Its owner, in words.
    pub fn owner(&self) -> String {
        match &self.mark {
            Some(mark) => format!("the daemon of {}", mark.state.display()),
            None => "a program that does not say so".to_owned(),
        }
    }

    /// Whether nobody owns it any more: no port is open, and its state directory is gone.
    pub fn is_abandoned(&self) -> bool {
        !self.lives && self.mark.as_ref().is_some_and(|mark| !mark.may_exist())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, master: Option<u32>, carrier: bool, alias: Option<String>) -> Link {
        Link { index, name: name.into(), master, carrier, alias, ..Link::default() }
    }

    #[test]
    fn bridges_of_other_slots_are_told_with_their_owners() {
        let mark = |state: &str| Mark { id: GroundId::from_random([1; 8]), state: state.into() };
        let links = [
            link(1, "banger0", None, true, Some(mark("/own").text())),
            link(2, "banger1", None, true, Some(mark("/").text())),
            link(3, "tap-pool1-0", Some(2), true, None),
            link(4, "banger2", None, false, Some(mark("/no/such").text())),
            link(5, "banger3", None, false, Some("somebody's".into())),
            link(6, "bangerx", None, false, None),
        ];
        let found = neighbours(&links, Some(Slot::FIRST));
        let told: Vec<_> = found.iter().map(|one| (one.slot.number(), one.lives, one.is_abandoned())).collect();
        assert_eq!(told, [(1, true, false), (2, false, true), (3, false, false)]);
        assert_eq!(found[0].owner(), "the daemon of /");
        assert_eq!(found[2].mark, None);
        assert_eq!(neighbours(&links, None).len(), 4);
    }

    #[test]
    fn the_next_slot_is_never_that_of_another_bridge() {
        let (id, slot) = (GroundId::from_random([2; 8]), |number| Slot::new(number).unwrap());
        let marked = |index, name: &str, number| {
            let mark = Mark { id: GroundId::from_random([number; 8]), state: "/state".into() };
            link(index, name, None, true, Some(mark.text()))
        };
        let mut links = vec![marked(1, "banger0", 1), link(2, "banger1", None, false, None)];
        assert_eq!(next(&[], id, Choice::Auto, None), slot(0));
        assert_eq!(next(&links, id, Choice::Auto, None), slot(2));
        assert_eq!(next(&links, id, Choice::Auto, Some(slot(5))), slot(5));
        assert_eq!(next(&links, id, Choice::Fixed(slot(1)), None), slot(1));
        assert_eq!(own(&links, id), None);
        // Its own bridge, which an earlier daemon made.
        links.push(marked(3, "banger7", 2));
        assert_eq!((own(&links, id), next(&links, id, Choice::Auto, None)), (Some(slot(7)), slot(7)));
    }
}
