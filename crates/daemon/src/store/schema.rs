//! The tables and how older ones become them.
//!
//! **When changing a table**: append a migration, never edit one that has been released.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use super::StoreError;

const STEPS: &[M<'static>] = &[
    M::up(
        "CREATE TABLE images (
        id          TEXT PRIMARY KEY,
        name        TEXT NOT NULL UNIQUE,
        state       TEXT NOT NULL,
        system      TEXT NOT NULL DEFAULT '',
        kernel      TEXT NOT NULL DEFAULT '',
        size        INTEGER NOT NULL,
        packages    INTEGER NOT NULL DEFAULT 0,
        manifest    TEXT NOT NULL DEFAULT '',
        work_seed   INTEGER NOT NULL DEFAULT 0,
        created     INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE vms (
        id              TEXT PRIMARY KEY,
        name            TEXT NOT NULL UNIQUE,
        image           TEXT NOT NULL REFERENCES images (id) ON DELETE RESTRICT,
        cpus            INTEGER NOT NULL,
        memory          INTEGER NOT NULL,
        disk            INTEGER NOT NULL,
        env             TEXT NOT NULL,
        workdir         TEXT,
        lifetime        TEXT NOT NULL,
        uid             INTEGER NOT NULL UNIQUE,
        machine_id      TEXT NOT NULL,
        host_key        TEXT NOT NULL,
        host_key_public TEXT NOT NULL,
        created         INTEGER NOT NULL,
        state           TEXT NOT NULL,
        generation      INTEGER NOT NULL,
        host_boot       TEXT NOT NULL,
        main            INTEGER NOT NULL
    ) STRICT;",
    ),
    M::up(
        "ALTER TABLE vms ADD COLUMN restart TEXT NOT NULL DEFAULT '\"no\"';
    ALTER TABLE vms ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;",
    ),
    M::up(
        "ALTER TABLE images ADD COLUMN suite TEXT NOT NULL DEFAULT '';
    ALTER TABLE images ADD COLUMN added TEXT NOT NULL DEFAULT '[]';",
    ),
    M::up("ALTER TABLE vms ADD COLUMN guest_user TEXT"),
    M::up(
        "CREATE TABLE leases (
        name    TEXT PRIMARY KEY,
        address INTEGER NOT NULL UNIQUE,
        given   INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE network (subnet TEXT NOT NULL) STRICT;
    ALTER TABLE vms ADD COLUMN net TEXT NOT NULL DEFAULT '\"none\"';",
    ),
    M::up("ALTER TABLE vms ADD COLUMN publish TEXT NOT NULL DEFAULT '[]';"),
    M::up("CREATE TABLE wiring (wired TEXT NOT NULL) STRICT"),
    M::up("ALTER TABLE vms ADD COLUMN ssh_keys TEXT NOT NULL DEFAULT '[]'"),
    M::up(
        "ALTER TABLE vms ADD COLUMN vmm_pid INTEGER;
    ALTER TABLE vms ADD COLUMN vmm_start INTEGER;
    ALTER TABLE vms ADD COLUMN tap TEXT;",
    ),
    M::up(
        "CREATE TABLE ground (
        id       TEXT NOT NULL,
        device   INTEGER NOT NULL,
        inode    INTEGER NOT NULL,
        runtime  BLOB NOT NULL,
        uid_slot INTEGER NOT NULL
    ) STRICT;
    ALTER TABLE network ADD COLUMN slot INTEGER NOT NULL DEFAULT 0;",
    ),
];

const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);

/// Opens the file and brings its schema up to date.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let opened = |source| StoreError::Open { path: path.to_owned(), source };
    keep_to_owner(path).map_err(|error| opened(rusqlite::Error::ToSqlConversionFailure(error.into())))?;
    let mut connection = Connection::open(path).map_err(opened)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(opened)?;
    // Pragmas belong to the connection, not to the file: they are set at each opening. FULL, because what a record says
    // must not be lost to a power failure after the effect that it covers.
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        .map_err(opened)?;
    MIGRATIONS.to_latest(&mut connection).map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
    Ok(connection)
}

/// The number of the newest schema; older ones have the numbers from 1 on.
#[cfg(fuzzing)]
pub const NEWEST: usize = STEPS.len();

/// Makes a file as a banger of an older schema did, for fuzzing.
///
/// # Errors
/// Those of SQLite.
#[cfg(fuzzing)]
pub fn create_old(path: &Path, version: usize) -> Result<Connection, rusqlite_migration::Error> {
    let mut connection = Connection::open(path)?;
    MIGRATIONS.to_version(&mut connection, version)?;
    Ok(connection)
}

/// The records hold host keys and what users put into `--env`: nobody else may read them. SQLite makes the files beside this
/// one with its mode, and leaves those that are there alone.
fn keep_to_owner(path: &Path) -> io::Result<()> {
    let owners = || Permissions::from_mode(0o600);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.set_permissions(owners())?;
    for suffix in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        match std::fs::set_permissions(Path::new(&beside), owners()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_reads_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.db");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let connection = open(&path).unwrap();
        connection.execute_batch("CREATE TABLE t (c INTEGER)").unwrap();
        for entry in dir.path().read_dir().unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", entry.path().display());
        }
    }

    #[test]
    fn the_migrations_apply_and_foreign_keys_are_on() {
        MIGRATIONS.validate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let connection = open(&dir.path().join("r.db")).unwrap();
        let on: i64 = connection.query_row("PRAGMA foreign_keys", [], |row| row.get(0)).unwrap();
        assert_eq!(on, 1);
        drop(connection);
        open(&dir.path().join("r.db")).unwrap();
    }

    #[test]
    fn records_from_before_guests_had_users_have_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.db");
        let mut old = Connection::open(&path).unwrap();
        Migrations::from_slice(&STEPS[..1]).to_latest(&mut old).unwrap();
        old.execute_batch(
            "INSERT INTO images (id, name, state, size, created) VALUES ('i', 'i', 'ready', 1, 1);
             INSERT INTO vms VALUES ('v', 'v', 'i', 1, 1, 1, '{}', NULL, '', 1, '', '', '', 1, '', 1, '', 0);",
        )
        .unwrap();
        drop(old);
        let user: Option<String> =
            open(&path).unwrap().query_row("SELECT guest_user FROM vms", [], |row| row.get(0)).unwrap();
        assert_eq!(user, None);
    }

    #[test]
    fn records_of_a_newer_banger_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 999").unwrap();
        assert!(matches!(open(&path), Err(StoreError::Migrate { .. })));
    }
}
