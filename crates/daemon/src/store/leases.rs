//! Whose address is which. An address belongs to a name: it stays when the VM goes, and is there when one of that name comes
//! again.

use std::net::Ipv4Addr;

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Store, StoreError, attempt};
use crate::ground::Slot;
use crate::net::addresses::Subnet;
use crate::net::ruleset::Scope;

impl Store {
    /// The address of a name in this subnet; one that is free where it has none. Where all are taken, that of a name without a
    /// VM is taken, the one that was given the longest time ago.
    ///
    /// # Errors
    /// [`StoreError::NoAddress`] where each is a VM's, or a failed statement.
    pub async fn lease(&self, name: String, subnet: Subnet) -> Result<Ipv4Addr, StoreError> {
        self.write(WHAT, move |records| lease(records, &name, subnet)).await
    }

    /// All names with their addresses.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn leases(&self) -> Result<Vec<(String, Ipv4Addr)>, StoreError> {
        const WHAT: &str = "read the addresses";
        self.run(|records| {
            let mut query = attempt(WHAT, records.prepare("SELECT name, address FROM leases ORDER BY name"))?;
            let rows = attempt(WHAT, query.query_map([], |row| Ok((row.get(0)?, address(row.get(1)?)))))?;
            attempt(WHAT, rows.collect())
        })
        .await
    }

    /// Gives the address of a name without a VM up, and tells it.
    ///
    /// # Errors
    /// [`StoreError::AddressInUse`] where it is a VM's, [`StoreError::NoLease`], or a failed statement.
    pub async fn forget_lease(&self, name: String) -> Result<Ipv4Addr, StoreError> {
        const WHAT: &str = "give an address up";
        self.write(WHAT, move |records| {
            let vm = records.query_row("SELECT id FROM vms WHERE name = ?", [&name], |_| Ok(())).optional();
            if attempt(WHAT, vm)?.is_some() {
                return Err(StoreError::AddressInUse(name));
            }
            let had = records.query_row("DELETE FROM leases WHERE name = ? RETURNING address", [&name], |row| {
                row.get(0).map(address)
            });
            attempt(WHAT, had.optional())?.ok_or(StoreError::NoLease(name))
        })
        .await
    }

    /// The subnet of guests that there was last.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn subnet(&self) -> Result<Option<Subnet>, StoreError> {
        Ok(self.scope().await?.map(|scope| scope.subnet))
    }

    /// The last network slot and subnet of guests.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn scope(&self) -> Result<Option<Scope>, StoreError> {
        const WHAT: &str = "read the guests' network";
        self.run(|records| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?));
            let found = records.query_row("SELECT slot, subnet FROM network", [], row).optional();
            // A value that this version would refuse counts as none.
            let usable =
                |(slot, subnet): (i64, String)| Some(Scope { slot: Slot::new(slot)?, subnet: subnet.parse().ok()? });
            Ok(attempt(WHAT, found)?.and_then(usable))
        })
        .await
    }

    /// Records the network slot and the subnet of guests.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn set_scope(&self, Scope { slot, subnet }: Scope) -> Result<(), StoreError> {
        const WHAT: &str = "record the guests' network";
        self.write(WHAT, move |records| {
            attempt(WHAT, records.execute("DELETE FROM network", []))?;
            let insert = "INSERT INTO network (slot, subnet) VALUES (?, ?)";
            attempt(WHAT, records.execute(insert, params![slot.number(), subnet.to_string()])).map(drop)
        })
        .await
    }
}

const WHAT: &str = "give a name its address";

/// As [`Store::lease`], within what else is written.
pub(super) fn lease(records: &Transaction<'_>, name: &str, subnet: Subnet) -> Result<Ipv4Addr, StoreError> {
    let had = records.query_row("SELECT address FROM leases WHERE name = ?", [name], |row| row.get(0)).optional();
    if let Some(had) = attempt(WHAT, had)?.map(address).filter(|had| subnet.is_guests(*had)) {
        return Ok(had);
    }
    attempt(WHAT, records.execute("DELETE FROM leases WHERE name = ?", [name]))?;
    let free = match free(records, subnet)? {
        Some(free) => free,
        None => idle(records, subnet)?.ok_or(StoreError::NoAddress(subnet))?,
    };
    let insert = "INSERT INTO leases (name, address, given) SELECT ?, ?, coalesce(max(given), 0) + 1 FROM leases";
    attempt(WHAT, records.execute(insert, params![name, free.to_bits()]))?;
    Ok(free)
}

/// Gives a name's address to another name. What that had before is free.
pub(super) fn rename(records: &Transaction<'_>, from: &str, to: &str) -> Result<(), StoreError> {
    const WHAT: &str = "take an address along to another name";
    if from == to {
        return Ok(());
    }
    let has = records.query_row("SELECT 1 FROM leases WHERE name = ?", [from], |_| Ok(())).optional();
    if attempt(WHAT, has)?.is_some() {
        attempt(WHAT, records.execute("DELETE FROM leases WHERE name = ?", [to]))?;
        attempt(WHAT, records.execute("UPDATE leases SET name = ? WHERE name = ?", [to, from]))?;
    }
    Ok(())
}

/// An address that nobody has, the next one after the last that was given.
fn free(records: &Transaction<'_>, subnet: Subnet) -> Result<Option<Ipv4Addr>, StoreError> {
    let mut query = attempt(WHAT, records.prepare("SELECT address FROM leases ORDER BY given"))?;
    let rows = attempt(WHAT, query.query_map([], |row| row.get(0).map(address)))?;
    let taken: Vec<Ipv4Addr> = attempt(WHAT, rows.collect())?;
    let last = taken.last().copied();
    let taken: std::collections::HashSet<Ipv4Addr> = taken.into_iter().collect();
    Ok(subnet.free(|address| taken.contains(&address), last))
}

/// The address in the subnet that was given the longest time ago to a name that has no VM now; it is nobody's then.
fn idle(records: &Transaction<'_>, subnet: Subnet) -> Result<Option<Ipv4Addr>, StoreError> {
    let sql = "SELECT address FROM leases WHERE name NOT IN (SELECT name FROM vms) ORDER BY given";
    let mut query = attempt(WHAT, records.prepare(sql))?;
    let rows = attempt(WHAT, query.query_map([], |row| row.get(0).map(address)))?;
    let idle: Vec<Ipv4Addr> = attempt(WHAT, rows.collect())?;
    let Some(found) = idle.into_iter().find(|address| subnet.is_guests(*address)) else { return Ok(None) };
    attempt(WHAT, records.execute("DELETE FROM leases WHERE address = ?", [found.to_bits()]))?;
    Ok(Some(found))
}

fn address(bits: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("r.db")).unwrap();
        (dir, store)
    }

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    /// The last byte of a name's address.
    async fn lease(store: &Store, name: &str) -> u8 {
        store.lease(name.to_owned(), subnet("10.77.0.0/29")).await.unwrap().octets()[3]
    }

    /// A VM of this name, as far as addresses are concerned.
    async fn add_vm(store: &Store, name: &'static str) {
        let add = move |records: &Transaction<'_>| {
            let image =
                "INSERT OR IGNORE INTO images (id, name, state, size, created) VALUES ('i', 'i', 'ready', 1, 1)";
            attempt("add an image", records.execute(image, []))?;
            let vm = "INSERT INTO vms (id, name, image, cpus, memory, disk, env, lifetime, uid, machine_id, host_key, host_key_public,
                      created, state, generation, host_boot, main)
                      SELECT ?1, ?1, 'i', 1, 1, 1, '{}', '', count(*), '', '', '', 1, '', 1, '', 0 FROM vms";
            attempt("add a VM", records.execute(vm, [name]))
        };
        store.write("add a VM", add).await.unwrap();
    }

    #[tokio::test]
    async fn an_address_stays_with_its_name() {
        let (_dir, store) = store();
        assert_eq!((lease(&store, "a").await, lease(&store, "b").await, lease(&store, "a").await), (2, 3, 2));
        let all = store.leases().await.unwrap();
        assert_eq!(all, [("a".to_owned(), [10, 77, 0, 2].into()), ("b".to_owned(), [10, 77, 0, 3].into())]);
        // In another subnet it gets another one.
        assert_eq!(store.lease("a".into(), subnet("10.78.0.0/24")).await.unwrap(), Ipv4Addr::new(10, 78, 0, 2));
    }

    #[tokio::test]
    async fn when_all_are_given_the_oldest_without_a_vm_goes() {
        let (_dir, store) = store();
        for name in ["a", "b", "c", "d", "e"] {
            add_vm(&store, name).await;
            lease(&store, name).await;
        }
        let refused = store.lease("f".into(), subnet("10.77.0.0/29")).await;
        assert!(matches!(refused, Err(StoreError::NoAddress(_))), "{refused:?}");
        let gone = |name: &'static str| {
            let gone = move |records: &Transaction<'_>| {
                attempt("x", records.execute("DELETE FROM vms WHERE name = ?", [name]))
            };
            store.write("remove a VM", gone)
        };
        gone("d").await.unwrap();
        gone("b").await.unwrap();
        assert_eq!((lease(&store, "f").await, lease(&store, "g").await), (3, 5));
        assert_eq!(lease(&store, "a").await, 2);
        // Of the two that came last neither has a VM: the first of them goes.
        assert_eq!(lease(&store, "b").await, 3);
    }

    #[tokio::test]
    async fn an_address_moves_along_and_is_given_up() {
        let (_dir, store) = store();
        add_vm(&store, "a").await;
        assert_eq!((lease(&store, "a").await, lease(&store, "b").await), (2, 3));
        store.write("rename", |records| super::rename(records, "a", "b")).await.unwrap();
        assert_eq!(store.leases().await.unwrap(), [("b".to_owned(), [10, 77, 0, 2].into())]);
        store.write("rename", |records| super::rename(records, "nobody", "b")).await.unwrap();
        store.write("rename", |records| super::rename(records, "b", "b")).await.unwrap();
        assert_eq!(lease(&store, "b").await, 2);
        assert!(store.forget_lease("b".into()).await.is_ok());
        assert!(matches!(store.forget_lease("b".into()).await, Err(StoreError::NoLease(_))));
        lease(&store, "a").await;
        assert!(matches!(store.forget_lease("a".into()).await, Err(StoreError::AddressInUse(_))));
    }

    #[tokio::test]
    async fn slot_and_subnet_are_remembered() {
        let (_dir, store) = store();
        assert_eq!(store.scope().await.unwrap(), None);
        for (slot, text) in [(0, "10.77.0.0/24"), (7, "10.78.0.0/16")] {
            let scope = Scope { slot: Slot::new(slot).unwrap(), subnet: subnet(text) };
            store.set_scope(scope).await.unwrap();
            assert_eq!(store.scope().await.unwrap(), Some(scope));
            assert_eq!(store.subnet().await.unwrap(), Some(scope.subnet));
        }
    }
}
