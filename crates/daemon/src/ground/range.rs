//! The user ids of a ground. Pure.

use super::Slot;
use crate::config::VMM_UIDS;
use banger_linux::process::CONTAINER_IDS;

/// The number of user ids in a slot: those of VMMs, then those of the user namespaces that build images.
pub const IDS: u32 = VMM_UIDS + CONTAINER_IDS;

/// The user ids of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uids {
    first: u32,
}

impl Uids {
    /// The ids of a slot; slot 0 begins at `first_uid`. `None` if they would reach past the last id, which stands for
    /// "no change" (chown(2)).
    pub fn of(slot: Slot, first_uid: u32) -> Option<Uids> {
        let first = first_uid.checked_add(u32::from(slot.number()) * IDS)?;
        first.checked_add(IDS).map(|_| Uids { first })
    }

    /// The range that begins here, as another daemon recorded it.
    pub(super) fn from(first: u32) -> Uids {
        Uids { first }
    }

    /// The first one, a VMM's.
    pub fn first(self) -> u32 {
        self.first
    }

    /// The last one, for builds.
    pub fn last(self) -> u32 {
        self.first.saturating_add(IDS - 1)
    }

    /// The first one of the user namespaces of builds.
    pub fn build(self) -> u32 {
        self.first.saturating_add(VMM_UIDS)
    }

    /// Whether this user id belongs to VMMs here.
    pub fn is_vmm(self, uid: u32) -> bool {
        (self.first..self.build()).contains(&uid)
    }

    /// Whether the range has this user id.
    pub fn contains(self, uid: u32) -> bool {
        (self.first..=self.last()).contains(&uid)
    }

    /// Whether two ranges share an id, as they can with another `first_uid`.
    pub fn overlaps(self, other: Uids) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_each_other_and_end_before_the_last_id() {
        let of = |number, first| Uids::of(Slot::new(number).unwrap(), first);
        let (first, second) = (of(0, 1_879_048_192).unwrap(), of(1, 1_879_048_192).unwrap());
        assert_eq!((first.first(), first.build(), first.last()), (1_879_048_192, 1_879_113_728, 1_879_179_263));
        assert_eq!(second.first(), first.last() + 1);
        assert!(!first.overlaps(second) && first.overlaps(of(0, 1_879_048_292).unwrap()));
        assert!(first.is_vmm(first.first()) && !first.is_vmm(first.build()) && first.contains(first.last()));
        let highest = u32::MAX - IDS;
        assert!(of(0, highest).is_some());
        assert_eq!((of(0, highest + 1), of(1, highest), of(99, highest)), (None, None, None));
    }
}
