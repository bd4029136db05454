//! Images as a daemon keeps them: reserved, built, listed, removed. A failed, cancelled or killed build leaves nothing but
//! its raw log.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use banger_api::events::Change;
use banger_api::image::{Image, ImageBuild, MIN_SIZE};
use banger_api::vm::MAX_DISK;
use tokio::sync::Notify;

use super::record::{ImageRecord, ImageState};
use super::request::{check, check_name, check_size};
use super::{BuildRequest, ImageError, Progress, build, host};
use crate::context::{Context, blocking, random, unix_seconds};
use crate::operation::fault::Injected;
use crate::operation::{Operation, Step};
use crate::store::StoreError;
use crate::vm::definition::word;
use crate::vm::spec::whole_mib;

const MIB: u64 = 1024 * 1024;

/// Why something was not done with an image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The name breaks the rule.
    #[error(
        "{name:?} cannot be an image's name: it must have 1 to 63 lower-case letters, digits, dots and hyphens, and begin with a letter"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The size is out of range.
    #[error("an image's disk can have {} MiB to {} MiB, not {} MiB", MIN_SIZE / MIB, MAX_DISK / MIB, .0 / MIB)]
    Size(u64),
    /// A word that is no release's name.
    #[error("{0:?} cannot be the name of a Debian release")]
    Suite(String),
    /// A word that is no package's name.
    #[error("{0:?} cannot be the name of a Debian package")]
    Package(String),
    /// There is no such image.
    #[error("there is no image {0}")]
    NotFound(String),
    /// It is being built or removed.
    #[error("image {0} is busy: it is being built or removed")]
    Busy(String),
    /// The records failed, or know better.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The build failed.
    #[error("cannot build image {name}")]
    Build {
        /// The image.
        name: String,
        /// The raw log.
        log: PathBuf,
        /// Why.
        #[source]
        source: Box<ImageError>,
    },
    /// A fault that a test planned.
    #[error(transparent)]
    Injected(#[from] Injected),
    /// Somebody asked to give up.
    #[error("the build was cancelled")]
    Cancelled,
    /// A file or directory could not be dealt with.
    #[error("cannot {attempted}")]
    Io {
        /// What was attempted, on what.
        attempted: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The images of a daemon.
pub struct Builds {
    context: Arc<Context>,
    under_way: Mutex<HashMap<String, Operation>>,
    ended: Notify,
}

impl Builds {
    /// Removes what builds and removals that were cut off have left.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn recover(context: Arc<Context>) -> Result<Builds, BuildError> {
        let scratch = context.paths.scratch();
        remove_tree(scratch.clone()).await?;
        std::fs::create_dir_all(&scratch).map_err(io(format!("make the directory {}", scratch.display())))?;
        let builds = Builds { context, under_way: Mutex::default(), ended: Notify::new() };
        for image in builds.context.store.images().await? {
            if image.state != ImageState::Ready {
                tracing::warn!(image = image.name, state = image.state.as_str(), "removing what was cut off");
                builds.erase(&image).await?;
                // A build that was killed had no chance to name its log to anybody.
                remove_tree(builds.context.paths.build_log(&image.name)).await?;
            }
        }
        Ok(builds)
    }

    /// Builds an image.
    ///
    /// # Errors
    /// [`BuildError`]; nothing is left then but the raw log.
    pub async fn build(&self, request: &ImageBuild, operation: &Operation) -> Result<ImageRecord, BuildError> {
        let image = self.reserve(request).await?;
        let id = image.id.clone();
        self.under_way().insert(id.clone(), operation.clone());
        let built = tokio::select! {
            built = self.make(&image, operation) => built,
            () = operation.cancelled() => Err(BuildError::Cancelled),
        };
        let finished = self.finish(image, built).await;
        if let Ok(image) = &finished {
            self.tell_built(image).await;
        }
        self.under_way().remove(&id);
        self.ended.notify_waiters();
        finished
    }

    /// Tells who follows what happens.
    async fn tell_built(&self, image: &ImageRecord) {
        match self.wire(image).await {
            Ok(image) => self.context.changes.tell(Change::ImageBuilt { image }),
            Err(error) => {
                let error = crate::api::error::chain(&error);
                tracing::error!(image = image.name, error, "cannot tell of a new image");
            }
        }
    }

    /// Records a build that worked; removes what one that did not has left.
    async fn finish(
        &self,
        mut image: ImageRecord,
        built: Result<super::Built, BuildError>,
    ) -> Result<ImageRecord, BuildError> {
        let completed = async {
            let built = built?;
            image.system = built.system;
            image.kernel = built.kernel;
            image.packages = built.packages;
            image.manifest = built.manifest_sha256;
            image.work_seed = built.work_seed;
            image.state = ImageState::Ready;
            let complete = async { Ok(self.context.store.complete_image(image.clone()).await?) };
            self.context.faults.step(Step::CompleteImage, complete).await
        };
        let completed: Result<(), BuildError> = completed.await;
        if let Err(error) = &completed {
            let mut erased = self.erase(&image).await;
            if erased.is_ok() && matches!(error, BuildError::Cancelled) {
                // Who gave up wants to know nothing more.
                erased = remove_tree(self.context.paths.build_log(&image.name)).await;
            }
            if let Err(also) = erased {
                tracing::error!(error = crate::api::error::chain(&also), "cannot remove what a failed build left");
            }
        }
        completed.map(|()| image)
    }

    async fn reserve(&self, request: &ImageBuild) -> Result<ImageRecord, BuildError> {
        let config = &self.context.config;
        let name = request.name.clone().unwrap_or_else(|| config.defaults.image.clone());
        check(request)?;
        check_name(&name)?;
        let size = request.size.unwrap_or_else(|| config.image_size());
        check_size(size)?;
        let size = whole_mib(size);
        let suite = request.suite.clone().unwrap_or_else(host::own_suite);
        let id = word(&random::<10>().map_err(io("get random bytes for an id"))?);
        let image = ImageRecord {
            id,
            name,
            state: ImageState::Building,
            system: String::new(),
            kernel: String::new(),
            size,
            packages: 0,
            manifest: String::new(),
            work_seed: false,
            suite,
            added: request.packages.clone(),
            created: unix_seconds(),
        };
        let insert = async { Ok(self.context.store.insert_image(image.clone()).await?) };
        match self.context.faults.step(Step::ReserveImage, insert).await {
            Err(BuildError::Injected(injected)) => {
                self.context.store.delete_image(image.id).await?;
                Err(injected.into())
            }
            reserved => reserved.map(|()| image),
        }
    }

    async fn make(&self, image: &ImageRecord, operation: &Operation) -> Result<super::Built, BuildError> {
        let paths = &self.context.paths;
        let request = BuildRequest {
            name: image.name.clone(),
            size: image.size,
            seed_size: self.context.config.seed_size(),
            scratch: paths.scratch().join(&image.id),
            dir: paths.image(&image.id),
            log: paths.build_log(&image.name),
            suite: image.suite.clone(),
            added: image.added.clone(),
            namespace: self.context.config.image.namespace,
            first_uid: self.context.uids.build(),
        };
        let stage = Mutex::new(None);
        let tell = |progress: Progress| {
            let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
            match progress {
                Progress::Stage(name) => {
                    if let Some((last, began)) = stage.take() {
                        operation.stage_ends(last, began);
                    }
                    *stage = Some((name, operation.stage_begins(name)));
                }
                Progress::Line(line) => operation.line(line),
            }
        };
        let built = build(&request, &*self.context.installer, &tell, &self.context.faults).await;
        if let Some((last, began)) = stage.lock().unwrap_or_else(PoisonError::into_inner).take() {
            operation.stage_ends(last, began);
        }
        let failed =
            |source| BuildError::Build { name: image.name.clone(), log: request.log.clone(), source: Box::new(source) };
        let built = built.map_err(failed)?;
        remove_tree(request.log.clone()).await?;
        Ok(built)
    }

    /// Removes an image that no VM is made from.
    ///
    /// # Errors
    /// [`BuildError`]; with [`StoreError::InUse`] it stays as it was.
    pub async fn remove(&self, name: &str) -> Result<Image, BuildError> {
        let image = self.find(name).await?;
        if image.state == ImageState::Building {
            return Err(BuildError::Busy(image.name));
        }
        let wire = self.wire(&image).await?;
        let retire = async { Ok::<_, BuildError>(self.context.store.retire_image(image.id.clone()).await?) };
        self.context.faults.step(Step::RetireImage, retire).await?;
        // Whatever becomes of its files: nobody can use it any more.
        self.context.changes.tell(Change::ImageRemoved { image: wire.clone() });
        self.erase(&image).await?;
        Ok(wire)
    }

    /// Directories first, the record last.
    async fn erase(&self, image: &ImageRecord) -> Result<(), BuildError> {
        let remove = async {
            remove_tree(self.context.paths.scratch().join(&image.id)).await?;
            remove_tree(self.context.paths.image(&image.id)).await
        };
        self.context.faults.step(Step::RemoveImage, remove).await?;
        let forget = async { Ok(self.context.store.delete_image(image.id.clone()).await?) };
        self.context.faults.step(Step::ForgetImage, forget).await
    }

    /// All images that can be used.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn list(&self) -> Result<Vec<Image>, BuildError> {
        let mut images = Vec::new();
        for image in self.context.store.images().await? {
            if image.state == ImageState::Ready {
                images.push(self.wire(&image).await?);
            }
        }
        Ok(images)
    }

    /// One image.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn show(&self, name: &str) -> Result<Image, BuildError> {
        let image = self.find(name).await?;
        self.wire(&image).await
    }

    /// Asks all builds to give up, and says how many there were.
    pub fn cancel_all(&self) -> usize {
        let under_way = self.under_way();
        under_way.values().for_each(Operation::cancel);
        under_way.len()
    }

    /// Ends when no build is under way.
    pub async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            if self.under_way().is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// An image as the API tells it.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn wire(&self, image: &ImageRecord) -> Result<Image, BuildError> {
        let dir = self.context.paths.image(&image.id);
        // As a VM's creation will find it, whatever was true when the image was built.
        let work_seed = dir.join(super::names::WORK_SEED).exists();
        let allocated = blocking(move || allocated_below(&dir)).await.map_err(io("measure an image"))?;
        let users = self.context.store.vms().await?.into_iter().filter(|vm| vm.definition.image_id == image.id);
        Ok(Image {
            id: image.id.clone(),
            name: image.name.clone(),
            default: image.name == self.context.config.defaults.image,
            system: image.system.clone(),
            kernel: image.kernel.clone(),
            size: image.size,
            allocated,
            packages: image.packages,
            manifest: image.manifest.clone(),
            work_seed,
            suite: image.suite.clone(),
            added: image.added.clone(),
            created: image.created,
            vms: users.map(|vm| vm.definition.name).collect(),
        })
    }

    async fn find(&self, name: &str) -> Result<ImageRecord, BuildError> {
        let found = self.context.store.image(name.to_owned()).await?;
        found.ok_or_else(|| BuildError::NotFound(name.to_owned()))
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashMap<String, Operation>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is below a directory; nothing, where a removal that was cut off has taken it.
fn allocated_below(dir: &std::path::Path) -> io::Result<u64> {
    let mut sum = 0;
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            allocated_below(&entry.path())?
        } else {
            banger_linux::file::allocated(&entry.path())?
        };
    }
    Ok(sum)
}

async fn remove_tree(path: PathBuf) -> Result<(), BuildError> {
    let attempted = format!("remove {}", path.display());
    blocking(move || banger_linux::file::remove_tree(&path)).await.map_err(io(attempted))
}

fn io(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> BuildError {
    let attempted = attempted.into();
    move |source| BuildError::Io { attempted, source }
}
