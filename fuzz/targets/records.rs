//! The records of earlier bangers, with any values in their columns: they are brought up to date and read, or refused.
//!
//! A file is made as a banger of each earlier schema made it, by that schema's own migrations, so that none need be kept.
//! Rows are then written by what the file says of its columns: a schema to come is filled without a line here.

#![no_main]

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use bangerd::ground::{Slot, Uids};
use bangerd::store::Store;
use bangerd::store::schema::{NEWEST, create_old};
use bangerd::vm::definition::VmRecord;
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use rusqlite::Connection;
use rusqlite::types::Value;

thread_local! {
    static PLACE: RefCell<Place> = RefCell::new(Place::new());
}

fuzz_target!(|input: &[u8]| PLACE.with_borrow(|place| place.take(input)));

struct Place {
    directory: tempfile::TempDir,
    /// The empty file of each schema, from the first on.
    empty: Vec<Vec<u8>>,
}

impl Place {
    fn new() -> Place {
        // scripts/fuzz names one in memory, and removes it: nothing is dropped when libFuzzer ends.
        let directory = tempfile::tempdir().expect("a directory");
        let make = |version| {
            let path = directory.path().join(format!("empty-{version}"));
            drop(create_old(&path, version).expect("an old schema is made"));
            std::fs::read(path).expect("it was made")
        };
        let empty = (1..=NEWEST).map(make).collect();
        Place { directory, empty }
    }

    fn take(&self, input: &[u8]) {
        let mut input = Input(input);
        let version = usize::from(input.byte()) % self.empty.len();
        let path = self.directory.path().join("records.db");
        for suffix in ["", "-wal", "-shm"] {
            drop(std::fs::remove_file(with(&path, suffix)));
        }
        std::fs::write(&path, &self.empty[version]).expect("it can be written");
        fill(&path, &mut input);
        let Ok(store) = Store::open(&path) else { return };
        drop(block_on(store.images()));
        drop(block_on(store.image("debian".to_owned())));
        drop(block_on(store.vms()));
        if let Some(uids) = Uids::of(Slot::FIRST, u32::try_from(input.number()).unwrap_or_default()) {
            drop(block_on(store.insert_vm(vm(input.number()), uids, None)));
        }
        drop(block_on(store.leases()));
        drop(block_on(store.scope()));
        drop(block_on(store.ground()));
        drop(block_on(store.lease("fresh".to_owned(), "10.77.0.0/29".parse().expect("it is one"))));
        drop(block_on(store.retire_image("i".to_owned())));
        // Whatever was in it, the thread that owns the records lives.
        block_on(store.delete_image("nobody".to_owned())).expect("the records can still be written");
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Rows of every table. What the file itself refuses, no banger can have written.
fn fill(path: &Path, input: &mut Input<'_>) {
    let connection = Connection::open(path).expect("it was just made");
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; BEGIN").expect("it is sound");
    for table in ["images", "vms", "leases", "network"] {
        let columns = columns(&connection, table);
        for row in 0..input.byte() % 4 {
            let values: Vec<Value> = columns.iter().map(|(name, kind)| input.value(table, name, kind, row)).collect();
            let places = vec!["?"; values.len()].join(", ");
            let sql = format!("INSERT OR REPLACE INTO {table} VALUES ({places})");
            drop(connection.execute(&sql, rusqlite::params_from_iter(values)));
        }
    }
    connection.execute_batch("COMMIT").expect("it is sound");
}

fn columns(connection: &Connection, table: &str) -> Vec<(String, String)> {
    let mut query = connection.prepare(&format!("PRAGMA table_info({table})")).expect("it is sound");
    let found = query.query_map([], |row| Ok((row.get("name")?, row.get("type")?))).expect("it is sound");
    found.map(|column| column.expect("a name and a type")).collect()
}

fn vm(uid: i64) -> VmRecord {
    VmRecord::sample("fresh", u32::try_from(uid.unsigned_abs() & u64::from(u32::MAX)).expect("it was cut"))
}

/// The input, taken value by value; zeros where it has ended.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> i64 {
        match self.byte() % 8 {
            0 => i64::from(self.byte()),
            1 => i64::from(u32::MAX) - i64::from(self.byte()),
            2 => i64::MAX - i64::from(self.byte()),
            3 => i64::MIN + i64::from(self.byte()),
            4 => -i64::from(self.byte()),
            _ => (0..8).fold(0, |number, _| (number << 8) | i64::from(self.byte())),
        }
    }

    fn text(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        text.to_vec()
    }

    /// A value for a column: mostly one that a banger writes there, so that the others are reached.
    fn value(&mut self, table: &str, name: &str, kind: &str, row: u8) -> Value {
        let usual = self.byte() % 4 != 0;
        match (kind, name) {
            ("INTEGER", "uid") if usual => Value::Integer(i64::from(row) + 1_879_048_192),
            ("INTEGER", _) if usual => Value::Integer(1),
            ("INTEGER", _) => Value::Integer(self.number()),
            (_, "id") if usual && row == 0 => Value::Text("i".into()),
            (_, "image") if usual => Value::Text("i".into()),
            (_, "state") if usual && table == "images" => Value::Text("ready".into()),
            (_, "state") if usual => Value::Text(r#"{"state":"stopped","reason":null}"#.into()),
            (_, "env") if usual => Value::Text("{}".into()),
            (_, "lifetime") if usual => Value::Text(r#""kept""#.into()),
            (_, "workdir") if usual => Value::Null,
            // SQLite takes any bytes for a text, so a damaged file can hold them.
            _ => match String::from_utf8(self.text()) {
                Ok(text) => Value::Text(text),
                Err(bytes) => Value::Blob(bytes.into_bytes()),
            },
        }
    }
}
