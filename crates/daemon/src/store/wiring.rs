//! How the host is told names.

use banger_api::dns::Wired;
use rusqlite::OptionalExtension;

use super::{Store, StoreError, attempt};

impl Store {
    /// What is set up on the host.
    ///
    /// # Errors
    /// A failed statement; [`StoreError::Unusable`].
    pub async fn wired(&self) -> Result<Wired, StoreError> {
        const WHAT: &str = "read how the host is told names";
        self.run(|records| {
            let found = records.query_row("SELECT wired FROM wiring", [], |row| row.get::<_, String>(0)).optional();
            match attempt(WHAT, found)? {
                None => Ok(Wired::None),
                Some(word) => [Wired::Resolved, Wired::HostsFile]
                    .into_iter()
                    .find(|wired| self::word(*wired) == Some(word.as_str()))
                    .ok_or_else(|| StoreError::Unusable { field: "wired", of: "the host".to_owned() }),
            }
        })
        .await
    }

    /// Remembers what is set up, or is about to be.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn set_wired(&self, wired: Wired) -> Result<(), StoreError> {
        const WHAT: &str = "record how the host is told names";
        self.write(WHAT, move |records| {
            attempt(WHAT, records.execute("DELETE FROM wiring", []))?;
            match word(wired) {
                Some(word) => attempt(WHAT, records.execute("INSERT INTO wiring (wired) VALUES (?)", [word])).map(drop),
                None => Ok(()),
            }
        })
        .await
    }
}

fn word(wired: Wired) -> Option<&'static str> {
    match wired {
        Wired::None => None,
        Wired::Resolved => Some("resolved"),
        Wired::HostsFile => Some("hosts-file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_set_up_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(&dir.path().join("r.db")).unwrap();
        assert_eq!(open().wired().await.unwrap(), Wired::None);
        for wired in [Wired::Resolved, Wired::HostsFile, Wired::None] {
            open().set_wired(wired).await.unwrap();
            assert_eq!(open().wired().await.unwrap(), wired);
        }
    }
}
