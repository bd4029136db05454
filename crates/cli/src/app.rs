//! What every verb needs: the daemon, started where none runs, and the screen.

use std::io;

use banger_api::client::{Client, ClientError, Operation, Request, Upgraded};
use banger_api::error::ErrorCode;
use banger_api::image::Image;
use banger_api::vm::Vm;
use banger_linux::process::Attributes;
use serde::de::DeserializeOwned;

use crate::commands::{self, Globals, Verb};
use crate::daemon_start;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::Screen;

/// How often the command line repeats a request that meets a daemon's end. Each time a daemon listened just before.
const REPEATS: u32 = 5;

/// One run of the command line.
#[derive(Debug)]
pub struct App {
    /// What the process was given.
    pub environment: Environment,
    /// What the user sees.
    pub screen: Screen,
    /// The daemon's address.
    pub client: Client,
}

impl App {
    /// From the process's surroundings and the options that every verb has.
    pub fn new(environment: Environment, globals: &Globals) -> App {
        let client = environment.client(globals.host.clone());
        let screen = Screen::new(&environment, globals.output, globals.quiet, globals.timings);
        App { environment, screen, client }
    }

    /// Runs a verb; its exit code.
    ///
    /// # Errors
    /// Every [`Failure`].
    pub fn run(&self, verb: Verb) -> Result<u8, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Failure::Own { attempted: "start the event loop", source })?;
        let result = runtime.block_on(commands::run(self, verb));
        // A thread that still waits for the keyboard must not hold up the end.
        runtime.shutdown_background();
        result
    }

    /// Asks for one value.
    ///
    /// # Errors
    /// [`Failure::Client`], [`Failure::Helped`], [`Failure::Start`].
    pub async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, Failure> {
        self.with_daemon(async || self.client.call(request.clone()).await).await
    }

    /// Begins an operation.
    ///
    /// # Errors
    /// As [`App::call`].
    pub async fn operation<T: DeserializeOwned>(&self, request: Request) -> Result<Operation<T>, Failure> {
        self.with_daemon(async || self.client.operation(request.clone()).await).await
    }

    /// Opens a stream of frames.
    ///
    /// # Errors
    /// As [`App::call`].
    pub async fn upgrade(&self, request: Request) -> Result<Upgraded, Failure> {
        self.with_daemon(async || self.client.upgrade(request.clone()).await).await
    }

    /// Makes an attempt. If it finds no daemon, or one that ends, starts one and tries again.
    ///
    /// # Errors
    /// As [`App::call`].
    pub async fn with_daemon<T>(&self, attempt: impl AsyncFn() -> Result<T, ClientError>) -> Result<T, Failure> {
        let own = self.client.socket() == self.environment.own_socket();
        let mut result = attempt().await;
        for _ in 0..REPEATS {
            if !own || !result.as_ref().is_err_and(ClientError::lacks_daemon) {
                break;
            }
            // The daemon serves long after this command, whose priority and limits are not meant for it.
            daemon_start::ensure(self, Attributes::Usual).await?;
            result = attempt().await;
        }
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(self.helped(error).await),
        }
    }

    /// Adds the name that was perhaps meant to an error about one that does not exist, where the daemon has not.
    pub async fn helped(&self, error: ClientError) -> Failure {
        const MEANT: &str = "did you mean ";
        let ClientError::Api(api) = &error else { return Failure::Client(error) };
        if api.help.as_ref().is_some_and(|help| help.starts_with(MEANT)) {
            return Failure::Client(error);
        }
        let (names, list) = match api.code {
            ErrorCode::VmNotFound => {
                (self.client.call(Request::get(["vms"])).await.map(names_of_vms), "`banger ls` lists all VMs")
            }
            ErrorCode::ImageNotFound => {
                let images = self.client.call(Request::get(["images"])).await.map(names_of_images);
                (images, "`banger image ls` lists all images")
            }
            _ => return Failure::Client(error),
        };
        // A message about a name ends with it.
        let typed = api.message.split_whitespace().last().unwrap_or_default();
        match (names.ok().and_then(|names| commands::suggest::nearest(typed, &names)), &api.help) {
            (Some(name), _) => Failure::Helped { source: error, help: format!("{MEANT}{name}? {list}") },
            (None, Some(_)) => Failure::Client(error),
            (None, None) => Failure::Helped { source: error, help: list.to_owned() },
        }
    }
}

fn names_of_vms(vms: Vec<Vm>) -> Vec<String> {
    vms.into_iter().map(|vm| vm.name).collect()
}

fn names_of_images(images: Vec<Image>) -> Vec<String> {
    images.into_iter().map(|image| image.name).collect()
}

/// An error of the process's own means.
pub fn own(attempted: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::Own { attempted, source }
}
