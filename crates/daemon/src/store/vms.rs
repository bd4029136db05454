//! Records of VMs.

use std::net::Ipv4Addr;

use banger_api::vm::Net;
use banger_linux::process::Identity;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::leases::{lease, rename};
use super::{Store, StoreError, attempt, is_duplicate};
use crate::ground::Uids;
use crate::image::record::ImageState;
use crate::net::addresses::Subnet;
use crate::vm::definition::{Definition, Traces, VmId, VmRecord};
use crate::vm::state::{Run, State};

/// A state as it is written; [`State`] itself may change freely.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum StoredState {
    Creating,
    Stopped { reason: Option<String> },
    Starting,
    Running { boot_id: String, accelerator: String, since: u64 },
    Stopping,
    Removing,
}

impl Store {
    /// Reserves a VM's name, id and uid, and records it. The uid is the lowest in `uids` that no VM has.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], [`StoreError::ImageGone`] where the image went since it was looked up, or a failed
    /// statement.
    pub async fn insert_vm(
        &self,
        mut record: VmRecord,
        uids: Uids,
        subnet: Option<Subnet>,
    ) -> Result<VmRecord, StoreError> {
        const WHAT: &str = "record a new VM";
        self.write(WHAT, move |records| {
            if !image_is_ready(records, &record.definition.image_id)? {
                return Err(StoreError::ImageGone(record.definition.image));
            }
            record.definition.uid = free_uid(records, uids)?;
            if let Some(subnet) = subnet {
                record.definition.address = Some(lease(records, &record.definition.name, subnet)?);
            }
            let definition = &record.definition;
            let inserted = records.execute(
                "INSERT INTO vms (id, name, image, cpus, memory, disk, env, workdir, lifetime, uid, machine_id, host_key,
                                  host_key_public, created, state, generation, host_boot, main, restart, wanted,
                                  guest_user, net, publish, ssh_keys)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    definition.id.as_str(),
                    definition.name,
                    definition.image_id,
                    definition.cpus,
                    definition.memory.cast_signed(),
                    definition.disk.cast_signed(),
                    json(&definition.env, "environment", definition)?,
                    definition.workdir,
                    json(&definition.lifetime, "lifetime", definition)?,
                    definition.uid,
                    definition.machine_id,
                    definition.host_key,
                    definition.host_key_public,
                    definition.created.cast_signed(),
                    state_json(&record.state, definition)?,
                    record.generation.cast_signed(),
                    record.host_boot,
                    record.main,
                    json(&definition.restart, "restart policy", definition)?,
                    record.wanted,
                    definition.user.as_ref().map(|user| json(user, "user", definition)).transpose()?,
                    json(&definition.net, "network", definition)?,
                    json(&definition.publish, "ports", definition)?,
                    json(&definition.ssh_keys, "SSH keys", definition)?,
                ],
            );
            match inserted {
                Err(error) if is_duplicate(&error) => Err(StoreError::NameTaken(record.definition.name.clone())),
                other => attempt(WHAT, other).map(|_| record),
            }
        })
        .await
    }

    /// Writes what changes in a VM's life. That it stops, or goes, is written on a full disk, too.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn update_vm(&self, record: VmRecord) -> Result<(), StoreError> {
        const WHAT: &str = "record a VM's state";
        let gives_space_back = matches!(record.state, State::Stopping | State::Stopped { .. } | State::Removing);
        let update = move |records: &Transaction<'_>| {
            let updated = records.execute(
                "UPDATE vms SET state = ?, generation = ?, host_boot = ?, main = ?, wanted = ?,
                                vmm_pid = ?, vmm_start = ?, tap = ? WHERE id = ?",
                params![
                    state_json(&record.state, &record.definition)?,
                    record.generation.cast_signed(),
                    record.host_boot,
                    record.main,
                    record.wanted,
                    record.traces.as_ref().map(|traces| traces.process.pid),
                    record.traces.as_ref().map(|traces| traces.process.start.cast_signed()),
                    record.traces.as_ref().and_then(|traces| traces.tap.as_deref()),
                    record.definition.id.as_str(),
                ],
            );
            attempt(WHAT, updated).map(drop)
        };
        if gives_space_back { self.write_in_need(WHAT, update).await } else { self.write(WHAT, update).await }
    }

    /// Writes what can be changed of what a VM is, and its generation.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], or a failed statement.
    pub async fn redefine_vm(&self, record: VmRecord) -> Result<(), StoreError> {
        const WHAT: &str = "record a VM's change";
        self.write(WHAT, move |records| {
            let definition = &record.definition;
            let id = definition.id.as_str();
            let before = records.query_row("SELECT name FROM vms WHERE id = ?", [id], |row| row.get::<_, String>(0));
            rename(records, &attempt(WHAT, before)?, &definition.name)?;
            let updated = records.execute(
                "UPDATE vms SET name = ?, cpus = ?, memory = ?, disk = ?, env = ?, workdir = ?, restart = ?, ssh_keys = ?,
                                generation = ?
                 WHERE id = ?",
                params![
                    definition.name,
                    definition.cpus,
                    definition.memory.cast_signed(),
                    definition.disk.cast_signed(),
                    json(&definition.env, "environment", definition)?,
                    definition.workdir,
                    json(&definition.restart, "restart policy", definition)?,
                    json(&definition.ssh_keys, "SSH keys", definition)?,
                    record.generation.cast_signed(),
                    definition.id.as_str(),
                ],
            );
            match updated {
                Err(error) if is_duplicate(&error) => Err(StoreError::NameTaken(definition.name.clone())),
                other => attempt(WHAT, other).map(drop),
            }
        })
        .await
    }

    /// Forgets a VM, on a full disk, too.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn delete_vm(&self, id: VmId) -> Result<(), StoreError> {
        const WHAT: &str = "forget a VM";
        self.write_in_need(WHAT, move |records| {
            attempt(WHAT, records.execute("DELETE FROM vms WHERE id = ?", [id.as_str()])).map(drop)
        })
        .await
    }

    /// All VMs, in the order of their creation.
    ///
    /// # Errors
    /// A failed statement, or a value of another banger.
    pub async fn vms(&self) -> Result<Vec<VmRecord>, StoreError> {
        const WHAT: &str = "read the VMs";
        self.run(|records| {
            let sql = "SELECT vms.*, images.name AS image_name, leases.address AS address FROM vms
                       JOIN images ON images.id = vms.image LEFT JOIN leases ON leases.name = vms.name ORDER BY vms.created, vms.id";
            let mut query = attempt(WHAT, records.prepare(sql))?;
            let mut rows = attempt(WHAT, query.query([]))?;
            let mut vms = Vec::new();
            while let Some(row) = attempt(WHAT, rows.next())? {
                vms.push(vm(row)?);
            }
            Ok(vms)
        })
        .await
    }
}

fn image_is_ready(records: &Transaction<'_>, id: &str) -> Result<bool, StoreError> {
    let found =
        records.query_row("SELECT state FROM images WHERE id = ?", [id], |row| row.get::<_, String>(0)).optional();
    Ok(attempt("look an image up", found)?.is_some_and(|state| state == ImageState::Ready.as_str()))
}

/// The lowest id in this range that no VM has.
pub(super) fn free_uid(records: &Transaction<'_>, uids: Uids) -> Result<u32, StoreError> {
    const WHAT: &str = "find a free uid";
    let mut query = attempt(WHAT, records.prepare("SELECT uid FROM vms WHERE uid >= ? ORDER BY uid"))?;
    let taken = attempt(WHAT, query.query_map([uids.first()], |row| row.get::<_, u32>(0)))?;
    let mut free = uids.first();
    for uid in taken {
        if attempt(WHAT, uid)? != free {
            break;
        }
        free += 1;
    }
    if uids.is_vmm(free) { Ok(free) } else { Err(StoreError::NoUid(uids)) }
}

fn vm(row: &Row<'_>) -> Result<VmRecord, StoreError> {
    const WHAT: &str = "read a VM's record";
    let name: String = attempt(WHAT, row.get("name"))?;
    let unusable = |field| StoreError::Unusable { field, of: format!("VM {name}") };
    let text = |column: &str| attempt(WHAT, row.get::<_, String>(column));
    let number = |column: &str| attempt(WHAT, row.get::<_, i64>(column)).map(i64::cast_unsigned);
    let net: Net = serde_json::from_str(&text("net")?).map_err(|_| unusable("network"))?;
    let state: StoredState = serde_json::from_str(&text("state")?).map_err(|_| unusable("state"))?;
    Ok(VmRecord {
        definition: Definition {
            id: VmId::from_record(text("id")?),
            image_id: text("image")?,
            image: text("image_name")?,
            cpus: attempt(WHAT, row.get("cpus"))?,
            memory: number("memory")?,
            disk: number("disk")?,
            env: serde_json::from_str(&text("env")?).map_err(|_| unusable("environment"))?,
            workdir: attempt(WHAT, row.get("workdir"))?,
            user: attempt(WHAT, row.get::<_, Option<String>>("guest_user"))?
                .map(|user| serde_json::from_str(&user).map_err(|_| unusable("user")))
                .transpose()?,
            ssh_keys: serde_json::from_str(&text("ssh_keys")?).map_err(|_| unusable("SSH keys"))?,
            net,
            address: attempt(WHAT, row.get::<_, Option<u32>>("address"))?
                .map(Ipv4Addr::from_bits)
                .filter(|_| net != Net::None),
            publish: serde_json::from_str(&text("publish")?).map_err(|_| unusable("ports"))?,
            lifetime: serde_json::from_str(&text("lifetime")?).map_err(|_| unusable("lifetime"))?,
            restart: serde_json::from_str(&text("restart")?).map_err(|_| unusable("restart policy"))?,
            uid: attempt(WHAT, row.get("uid"))?,
            machine_id: text("machine_id")?,
            host_key: text("host_key")?,
            host_key_public: text("host_key_public")?,
            created: number("created")?,
            name: name.clone(),
        },
        state: from_stored(state),
        generation: number("generation")?,
        host_boot: text("host_boot")?,
        main: attempt(WHAT, row.get("main"))?,
        wanted: attempt(WHAT, row.get("wanted"))?,
        traces: attempt(WHAT, traces(row))?,
    })
}

fn traces(row: &Row<'_>) -> rusqlite::Result<Option<Traces>> {
    let (pid, start) = (row.get::<_, Option<u32>>("vmm_pid")?, row.get::<_, Option<i64>>("vmm_start")?);
    let Some((pid, start)) = pid.zip(start) else { return Ok(None) };
    Ok(Some(Traces { process: Identity { pid, start: start.cast_unsigned() }, tap: row.get("tap")? }))
}

fn json(value: &impl Serialize, field: &'static str, of: &Definition) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Unusable { field, of: format!("VM {}", of.name) })
}

fn state_json(state: &State, of: &Definition) -> Result<String, StoreError> {
    let stored = match state.clone() {
        State::Creating => StoredState::Creating,
        State::Stopped { reason } => StoredState::Stopped { reason },
        State::Starting => StoredState::Starting,
        State::Running(Run { boot_id, accelerator, since }) => StoredState::Running { boot_id, accelerator, since },
        State::Stopping => StoredState::Stopping,
        State::Removing => StoredState::Removing,
    };
    json(&stored, "state", of)
}

fn from_stored(stored: StoredState) -> State {
    match stored {
        StoredState::Creating => State::Creating,
        StoredState::Stopped { reason } => State::Stopped { reason },
        StoredState::Starting => State::Starting,
        StoredState::Running { boot_id, accelerator, since } => State::Running(Run { boot_id, accelerator, since }),
        StoredState::Stopping => State::Stopping,
        StoredState::Removing => State::Removing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Slot;

    #[tokio::test]
    async fn the_traces_of_a_vmm_are_kept_and_go_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("r.db")).unwrap();
        let image = "INSERT INTO images (id, name, state, size, created) VALUES ('i', 'debian', 'ready', 1, 1)";
        store.run(move |records| attempt("add an image", records.execute_batch(image))).await.unwrap();
        let mut record =
            store.insert_vm(VmRecord::sample("a", 0), Uids::of(Slot::FIRST, 1000).unwrap(), None).await.unwrap();
        assert_eq!(store.vms().await.unwrap()[0].traces, None);
        for tap in [None, Some("tap-pool-7".to_owned())] {
            record.traces = Some(Traces { process: Identity { pid: 4711, start: u64::MAX }, tap });
            store.update_vm(record.clone()).await.unwrap();
            assert_eq!(store.vms().await.unwrap(), [record.clone()]);
        }
        record.traces = None;
        store.update_vm(record.clone()).await.unwrap();
        assert_eq!(store.vms().await.unwrap(), [record]);
    }

    #[tokio::test]
    async fn when_all_uids_are_taken_a_vm_is_refused_and_the_records_live_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("r.db")).unwrap();
        let image = "INSERT INTO images (id, name, state, size, created) VALUES ('i', 'debian', 'ready', 1, 1)";
        store.run(move |records| attempt("add an image", records.execute_batch(image))).await.unwrap();
        let uids = Uids::of(Slot::FIRST, 100_000).unwrap();
        for (name, uid) in [("a", 100_000), ("b", 100_001)] {
            assert_eq!(store.insert_vm(VmRecord::sample(name, 0), uids, None).await.unwrap().definition.uid, uid);
        }
        // A VM with an id from another slot is in nobody's way.
        let other = Uids::of(Slot::new(1).unwrap(), 100_000).unwrap();
        assert_eq!(store.insert_vm(VmRecord::sample("c", 0), other, None).await.unwrap().definition.uid, 231_072);
        assert_eq!(store.insert_vm(VmRecord::sample("d", 0), uids, None).await.unwrap().definition.uid, 100_002);
        store
            .run(move |records| attempt("take the rest", fill(records, uids.first() + 3, uids.build())))
            .await
            .unwrap();
        let refused = store.insert_vm(VmRecord::sample("e", 0), uids, None).await;
        assert!(matches!(&refused, Err(StoreError::NoUid(of)) if *of == uids), "{refused:?}");
        assert_eq!(refused.unwrap_err().to_string(), "every uid from 100000 to 165535 is taken by a VM");
        assert!(store.insert_vm(VmRecord::sample("f", 0), other, None).await.is_ok());
    }

    /// VMs that use all of these uids.
    fn fill(records: &rusqlite::Connection, from: u32, to: u32) -> rusqlite::Result<()> {
        let sql = "WITH RECURSIVE uids (uid) AS (VALUES (?1) UNION ALL SELECT uid + 1 FROM uids WHERE uid + 1 < ?2)
                   INSERT INTO vms (id, name, image, cpus, memory, disk, env, lifetime, uid, machine_id, host_key, host_key_public,
                                    created, state, generation, host_boot, main)
                   SELECT 'v' || uid, 'v' || uid, 'i', 1, 1, 1, '{}', '', uid, '', '', '', 1, '', 1, '', 0 FROM uids";
        records.execute(sql, [from, to]).map(drop)
    }
}
