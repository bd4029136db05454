//! What the ground remembers of itself.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError, attempt};
use crate::ground::{Identity, Slot, StateDir, Uids};
use crate::vm::definition::VmId;

impl Store {
    /// The last daemon's record; `None` if there is none.
    ///
    /// # Errors
    /// A failed statement; [`StoreError::Unusable`].
    pub async fn ground(&self) -> Result<Option<Identity>, StoreError> {
        const WHAT: &str = "read whose ground this is";
        let unusable = |field| StoreError::Unusable { field, of: "the ground".to_owned() };
        self.run(move |records| {
            type Row = (String, i64, i64, Vec<u8>, i64);
            let sql = "SELECT id, device, inode, runtime, uid_slot FROM ground";
            let row = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Row> {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            };
            let Some((id, device, inode, runtime, uids)) = attempt(WHAT, records.query_row(sql, [], row).optional())?
            else {
                return Ok(None);
            };
            Ok(Some(Identity {
                id: id.parse().map_err(|_| unusable("id"))?,
                dir: StateDir { device: device.cast_unsigned(), inode: inode.cast_unsigned() },
                runtime: OsString::from_vec(runtime).into(),
                uids: Slot::new(uids).ok_or_else(|| unusable("uid slot"))?,
            }))
        })
        .await
    }

    /// Records it.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn set_ground(&self, identity: Identity) -> Result<(), StoreError> {
        const WHAT: &str = "record whose ground this is";
        self.write(WHAT, move |records| {
            attempt(WHAT, records.execute("DELETE FROM ground", []))?;
            let Identity { id, dir: StateDir { device, inode }, runtime, uids } = &identity;
            let insert = "INSERT INTO ground (id, device, inode, runtime, uid_slot) VALUES (?, ?, ?, ?, ?)";
            let values = params![
                id.to_string(),
                device.cast_signed(),
                inode.cast_signed(),
                runtime.as_os_str().as_bytes(),
                uids.number(),
            ];
            attempt(WHAT, records.execute(insert, values)).map(drop)
        })
        .await
    }

    /// Gives stopped VMs user ids from this range, in place of ids that another daemon may use.
    ///
    /// # Errors
    /// [`StoreError::NoUid`], or a failed statement; then all VMs keep theirs.
    pub async fn move_uids(&self, vms: Vec<VmId>, uids: Uids) -> Result<(), StoreError> {
        const WHAT: &str = "give a VM another user id";
        self.write(WHAT, move |records| {
            for vm in vms {
                let free = super::vms::free_uid(records, uids)?;
                let update = "UPDATE vms SET uid = ? WHERE id = ?";
                attempt(WHAT, records.execute(update, params![free, vm.as_str()]))?;
            }
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::GroundId;

    #[tokio::test]
    async fn a_ground_is_remembered_whatever_its_directory_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("r.db")).unwrap();
        assert_eq!(store.ground().await.unwrap(), None);
        for (number, runtime) in [(1u8, &b"/run/banger"[..]), (2, b"/r\xfcn \n")] {
            let identity = Identity {
                id: GroundId::from_random([number; 8]),
                dir: StateDir { device: u64::MAX, inode: 7 },
                runtime: OsString::from_vec(runtime.to_vec()).into(),
                uids: Slot::new(number.into()).unwrap(),
            };
            store.set_ground(identity.clone()).await.unwrap();
            assert_eq!(store.ground().await.unwrap(), Some(identity));
        }
    }
}
