//! Bringing the host to what is wanted, whatever became of it: links, forwarding, banger's own rules, and its rules in others'
//! chains. What is so already is left alone, so it can be done at any time; who does it is `watch`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use banger_linux::netlink::{Event, Netlink};

use super::addresses;
use super::error::NetworkError;
use super::foreign;
use super::host::lock;
use super::listing::{Chain, Listing};
use super::network::{Network, Up};
use super::nft::NftError;
use super::ruleset::{self, Lease, Scope};
use crate::context::blocking;
use crate::ground::Slot;

/// The tables of iptables that are not nftables', one a line; the file is there once one of them has been used.
const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";

/// What is not as it should be in rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unfit {
    /// Tables of banger's whose slot has no bridge.
    pub left: Vec<String>,
    /// Whether there is a network and there are none.
    pub gone: bool,
    /// Chains of banger's that are not as it made them, or that it did not make.
    pub chains: Vec<String>,
    /// Elements of no VM's.
    pub beyond: Vec<String>,
    /// Elements that VMs should have.
    pub lacking: Vec<String>,
    /// Others' tables with rules of banger's that nobody needs now, and the comment on those rules.
    pub superfluous: Vec<(String, String)>,
    /// Tables of others that drop what guests send.
    pub dropping: Vec<String>,
    /// Tables of others that would, but for rules of banger's in them.
    pub passing: Vec<String>,
}

/// What may not be as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Doubt {
    /// Links, addresses and forwarding.
    pub(super) links: bool,
    /// Rules, others' among them.
    pub(super) rules: bool,
}

/// What holds on the host because there are VMs. Who has it changes rules, and nobody else does.
#[derive(Debug)]
pub(super) struct Duty {
    /// Whether forwarding is on and others' chains are looked after.
    pub(super) on: bool,
    /// Whether there may be rules in others' chains. It is not known at first what an earlier daemon has left.
    placed: bool,
    /// banger's own tables, as they were made.
    made: Option<Listing>,
    /// Tables of others that take no rule, and what nft says about it.
    closed: BTreeMap<String, String>,
}

impl Default for Duty {
    fn default() -> Duty {
        Duty { on: false, placed: true, made: None, closed: BTreeMap::new() }
    }
}

impl Doubt {
    pub(super) const ALL: Doubt = Doubt { links: true, rules: true };
    const NONE: Doubt = Doubt { links: false, rules: false };

    pub(super) fn is_none(self) -> bool {
        self == Doubt::NONE
    }
}

impl Network {
    /// Others' tables that drop what guests send, and in which banger cannot put a rule, with the reason.
    pub async fn closed_tables(&self) -> BTreeMap<String, String> {
        self.duty.lock().await.closed.clone()
    }

    /// Whether nft takes the rules that VMs need and lists them, here and now; nothing is changed.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub async fn has_fit_nft(&self) -> Result<(), NetworkError> {
        self.nft.can_list().await?;
        // With any subnet: it is not its addresses that nft could be too old for.
        let Some(subnet) = addresses::candidates().next() else { return Ok(()) };
        Ok(self.nft.would_take(&ruleset::tables(Scope { slot: Slot::FIRST, subnet }, &[])).await?)
    }

    /// Looks at all rules, and changes none.
    ///
    /// # Errors
    /// [`NetworkError`], where nft does not tell.
    pub async fn unfit(&self) -> Result<Unfit, NetworkError> {
        let (is_up, slot) = (self.is_up().await, self.slot().await);
        let before = bridges().await?;
        let duty = self.duty.lock().await;
        let mut unfit = Unfit::default();
        if is_up {
            match self.nft.own_tables(slot).await? {
                None => unfit.gone = true,
                Some(found) => {
                    (unfit.beyond, unfit.lacking) = found.compared(slot, &self.admitted());
                    unfit.chains = duty.made.as_ref().map(|made| made.chains_unlike(&found)).unwrap_or_default();
                }
            }
        }
        let rules = self.nft.rules().await?;
        let tables: BTreeSet<Slot> = rules.chains.iter().filter_map(Chain::slot).collect();
        // Look before and after, because another daemon may make its bridge and its tables in between.
        let after = bridges().await?;
        let has_bridge = |of: Slot| before.contains(&of) || after.contains(&of);
        let left = tables.into_iter().filter(|table| !(has_bridge(*table) || is_up && *table == slot));
        unfit.left = left.map(Slot::table).collect();
        let tables = |slot, wanted| foreign::changes(&rules, slot, wanted).into_iter().map(|change| change.table);
        if self.is_in_use() {
            (unfit.dropping, unfit.passing) = (tables(slot, true).collect(), tables(slot, false).collect());
        }
        // The rules of a slot belong to the daemon that has the slot's bridge.
        let nobodys = |of: &Slot| if is_up && *of == slot { !self.is_in_use() } else { !has_bridge(*of) };
        for of in Slot::all().filter(nobodys) {
            unfit.superfluous.extend(tables(of, false).map(|table| (table, of.table())));
        }
        Ok(unfit)
    }

    /// Looks at all of it, and mends what is not as it should be, as after a change by somebody else. Whether there was anything.
    ///
    /// # Errors
    /// [`NetworkError`]; a second try is the same.
    pub async fn repair(&self) -> Result<bool, NetworkError> {
        self.mend(Doubt::ALL).await
    }

    /// What this makes doubtful: changes of rules that were made here make nothing so.
    pub(super) fn doubt(&self, events: &[Event]) -> Doubt {
        let mut doubt = Doubt::NONE;
        for event in events {
            match *event {
                Event::Links => doubt.links = true,
                Event::Rules { by } => doubt.rules |= !by.is_some_and(|pid| self.nft.is_own(pid)),
                Event::Lost => doubt = Doubt::ALL,
            }
        }
        doubt
    }

    /// Mends what is not as it should be. Whether there was anything.
    ///
    /// # Errors
    /// [`NetworkError`]; a second try is the same.
    pub(super) async fn mend(&self, doubt: Doubt) -> Result<bool, NetworkError> {
        let up = self.up.read().await;
        let Some(up) = up.as_ref() else { return Ok(false) };
        let mut duty = self.duty.lock().await;
        let mut mended = false;
        if doubt.links {
            let (host, leased) = (Arc::clone(&up.host), self.taps_in_use());
            mended |= blocking(move || lock(&host).mend(&leased)).await?;
        }
        // Without VMs nothing passes, with rules or without; they are looked at when there is one.
        let wanted = self.is_in_use();
        if doubt.rules && (wanted || duty.on || duty.placed) {
            mended |= self.mend_own(up, &mut duty).await?;
            mended |= self.mend_foreign(up, &mut duty, wanted).await?;
        }
        Ok(mended)
    }

    /// Has packets of VMs forwarded from now on. The rest follows behind: a guest takes longer to need it.
    pub(super) async fn begin(&self, up: &Up, duty: &mut Duty) -> Result<(), NetworkError> {
        if duty.on {
            return Ok(());
        }
        let host = Arc::clone(&up.host);
        blocking(move || lock(&host).forward(true)).await?;
        duty.on = true;
        self.nudge.notify_one();
        Ok(())
    }

    /// Takes back what only VMs need: there are none any more.
    pub(super) async fn end(&self, up: &Up, duty: &mut Duty) -> Result<(), NetworkError> {
        let host = Arc::clone(&up.host);
        blocking(move || lock(&host).forward(false)).await?;
        self.mend_foreign(up, duty, false).await?;
        duty.on = false;
        Ok(())
    }

    /// Makes banger's own tables, with all that VMs have.
    pub(super) async fn make_own(&self, up: &Up, duty: &mut Duty) -> Result<(), NetworkError> {
        duty.made = None;
        Ok(self.nft.apply(&ruleset::tables(up.scope, &self.admitted())).await?)
    }

    async fn mend_own(&self, up: &Up, duty: &mut Duty) -> Result<bool, NetworkError> {
        if let Some(found) =
            self.nft.own_tables(up.scope.slot).await?.filter(|found| found.has_exactly(&self.admitted()))
        {
            // Those that were just made are the measure for all later ones.
            if duty.made.get_or_insert_with(|| found.clone()).has_the_rules_of(&found) {
                return Ok(false);
            }
        }
        self.make_own(up, duty).await?;
        duty.made = self.nft.own_tables(up.scope.slot).await?;
        Ok(true)
    }

    async fn mend_foreign(&self, up: &Up, duty: &mut Duty, wanted: bool) -> Result<bool, NetworkError> {
        if !wanted && !duty.placed {
            return Ok(false);
        }
        let rules = self.nft.rules().await?;
        let changes = foreign::changes(&rules, up.scope.slot, wanted);
        let mut closed = BTreeMap::new();
        for change in &changes {
            duty.placed = true;
            match self.nft.apply_json(&change.commands).await {
                Ok(()) => tracing::info!(table = change.table, wanted, "banger's rules in another program's table"),
                // It belongs to another program alone, or was changed just now, of which will be heard.
                Err(NftError::Refused { said }) => {
                    if duty.closed.get(&change.table) != Some(&said) {
                        tracing::warn!(table = change.table, said, "another program's table takes no rule for VMs");
                    }
                    closed.insert(change.table.clone(), said);
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Where nobody drops anything there is nothing to take back, and so nothing to look for.
        let has_some = !changes.is_empty() || !foreign::changes(&rules, up.scope.slot, false).is_empty();
        duty.placed = !closed.is_empty() || (wanted && has_some);
        let mended = changes.len() > closed.len();
        duty.closed = closed;
        Ok(mended)
    }

    fn admitted(&self) -> Vec<Lease> {
        self.leases().values().filter(|held| held.admitted).map(|held| held.lease.clone()).collect()
    }
}

/// The slots that have a bridge here.
async fn bridges() -> Result<BTreeSet<Slot>, NetworkError> {
    let links = blocking(|| Netlink::open().and_then(|mut netlink| netlink.links())).await?;
    Ok(links.iter().filter_map(|link| Slot::of_bridge(&link.name)).collect())
}

/// Whether the host has rules of the iptables that came before nftables. They drop as others do, and nft does not show them.
pub fn has_legacy_filter() -> bool {
    std::fs::read_to_string(LEGACY_TABLES).is_ok_and(|tables| tables.lines().any(|table| table == "filter"))
}
