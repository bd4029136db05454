//! Records of images.

use rusqlite::{OptionalExtension, Row, params};

use super::{Store, StoreError, attempt, is_duplicate};
use crate::image::record::{ImageRecord, ImageState};

impl Store {
    /// Reserves a name for an image that is about to be built.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] or a failed statement.
    pub async fn insert_image(&self, image: ImageRecord) -> Result<(), StoreError> {
        const WHAT: &str = "record a new image";
        self.write(WHAT, move |records| {
            let inserted = records.execute(
                "INSERT INTO images (id, name, state, system, kernel, size, packages, manifest, work_seed, created,
                                     suite, added)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    image.id,
                    image.name,
                    image.state.as_str(),
                    image.system,
                    image.kernel,
                    image.size.cast_signed(),
                    image.packages,
                    image.manifest,
                    image.work_seed,
                    image.created.cast_signed(),
                    image.suite,
                    added_json(&image)?,
                ],
            );
            match inserted {
                Err(error) if is_duplicate(&error) => Err(StoreError::NameTaken(image.name)),
                other => attempt(WHAT, other).map(drop),
            }
        })
        .await
    }

    /// Says that an image is built.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn complete_image(&self, image: ImageRecord) -> Result<(), StoreError> {
        const WHAT: &str = "record a built image";
        self.write(WHAT, move |records| {
            let updated = records.execute(
                "UPDATE images SET state = ?, system = ?, kernel = ?, size = ?, packages = ?, manifest = ?, work_seed = ?
                 WHERE id = ?",
                params![
                    ImageState::Ready.as_str(),
                    image.system,
                    image.kernel,
                    image.size.cast_signed(),
                    image.packages,
                    image.manifest,
                    image.work_seed,
                    image.id,
                ],
            );
            attempt(WHAT, updated).map(drop)
        })
        .await
    }

    /// Says that an image is being removed, if no VM is made from it.
    ///
    /// # Errors
    /// [`StoreError::InUse`] with the VMs' names, or a failed statement.
    pub async fn retire_image(&self, id: String) -> Result<(), StoreError> {
        const WHAT: &str = "record that an image goes";
        self.write(WHAT, move |records| {
            let mut query = attempt(WHAT, records.prepare("SELECT name FROM vms WHERE image = ? ORDER BY name"))?;
            let users = attempt(WHAT, query.query_map([&id], |row| row.get(0)))?;
            let users: Vec<String> = attempt(WHAT, users.collect())?;
            if !users.is_empty() {
                return Err(StoreError::InUse(users));
            }
            let retired =
                records.execute("UPDATE images SET state = ? WHERE id = ?", params![ImageState::Removing.as_str(), id]);
            attempt(WHAT, retired).map(drop)
        })
        .await
    }

    /// Forgets an image.
    ///
    /// # Errors
    /// A failed statement.
    pub async fn delete_image(&self, id: String) -> Result<(), StoreError> {
        const WHAT: &str = "forget an image";
        self.write(WHAT, move |records| {
            attempt(WHAT, records.execute("DELETE FROM images WHERE id = ?", [id])).map(drop)
        })
        .await
    }

    /// All images, by name.
    ///
    /// # Errors
    /// A failed statement, or a value of another banger.
    pub async fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        const WHAT: &str = "read the images";
        self.run(|records| {
            let mut query = attempt(WHAT, records.prepare("SELECT * FROM images ORDER BY name"))?;
            let mut rows = attempt(WHAT, query.query([]))?;
            let mut images = Vec::new();
            while let Some(row) = attempt(WHAT, rows.next())? {
                images.push(image(row)?);
            }
            Ok(images)
        })
        .await
    }

    /// One image by its name, if there is one.
    ///
    /// # Errors
    /// A failed statement, or a value of another banger.
    pub async fn image(&self, name: String) -> Result<Option<ImageRecord>, StoreError> {
        const WHAT: &str = "read an image";
        self.run(move |records| {
            let found = records
                .query_row("SELECT * FROM images WHERE name = ? OR id = ?", [&name, &name], |row| Ok(image(row)))
                .optional();
            attempt(WHAT, found)?.transpose()
        })
        .await
    }
}

fn added_json(image: &ImageRecord) -> Result<String, StoreError> {
    let unusable = |_| StoreError::Unusable { field: "packages", of: format!("image {}", image.name) };
    serde_json::to_string(&image.added).map_err(unusable)
}

fn image(row: &Row<'_>) -> Result<ImageRecord, StoreError> {
    const WHAT: &str = "read an image's record";
    let state: String = attempt(WHAT, row.get("state"))?;
    let name: String = attempt(WHAT, row.get("name"))?;
    let added: String = attempt(WHAT, row.get("added"))?;
    let unusable = |field| StoreError::Unusable { field, of: format!("image {name}") };
    Ok(ImageRecord {
        id: attempt(WHAT, row.get("id"))?,
        state: ImageState::parse(&state).ok_or_else(|| unusable("state"))?,
        name: name.clone(),
        system: attempt(WHAT, row.get("system"))?,
        kernel: attempt(WHAT, row.get("kernel"))?,
        size: attempt(WHAT, row.get::<_, i64>("size"))?.cast_unsigned(),
        packages: attempt(WHAT, row.get("packages"))?,
        manifest: attempt(WHAT, row.get("manifest"))?,
        work_seed: attempt(WHAT, row.get("work_seed"))?,
        suite: attempt(WHAT, row.get("suite"))?,
        added: serde_json::from_str(&added).map_err(|_| unusable("packages"))?,
        created: attempt(WHAT, row.get::<_, i64>("created"))?.cast_unsigned(),
    })
}
